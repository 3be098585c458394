//! Loads while shards are not there: those of which nothing is known yet are left out until they come, so that one of them does not keep
//! the others from being used.
//!
//! The catalog shard is no such shard: clients know types and tables by the numbers it gives them.

use super::snapshot::Snapshot;
use super::{Difference, Loaded};
use crate::backend::BackendError;
use crate::config::{Config, Placement};
use crate::plan::ShardId;

/// What a load goes by: a snapshot for each shard, and whose are not their own.
#[derive(Debug)]
pub(super) struct Read {
    /// In the order of the configuration; an unread shard is taken to be as the catalog shard is.
    pub snapshots: Vec<Snapshot>,
    /// Shards that have never been read, ascending. Nothing may run there.
    pub unread: Vec<ShardId>,
}

impl Read {
    /// From what the shards said just now, and what is `known` of those that have been read before.
    ///
    /// # Errors
    /// Of the first shard that fails: one that is there, the catalog shard, or, where no other shard is read for the first time, one that
    /// has been read before. What is in force then tells as much.
    pub(super) fn of(
        said: Vec<Result<Snapshot, BackendError>>,
        known: &[Option<&Snapshot>],
    ) -> Result<Self, BackendError> {
        let known = |shard: usize| known.get(shard).copied().flatten();
        let of_new = |(shard, said): (usize, &Result<_, _>)| said.is_ok() && known(shard).is_none();
        let has_new = said.iter().enumerate().any(of_new);
        let mut read = Self {
            snapshots: Vec::with_capacity(said.len()),
            unread: Vec::new(),
        };
        for (shard, said) in said.into_iter().enumerate() {
            let snapshot = match (said, known(shard), read.snapshots.first()) {
                (Ok(snapshot), ..) => snapshot,
                (Err(error), ..) if !error.is_absence() => return Err(error),
                (Err(_), Some(known), _) if has_new => known.clone(),
                (Err(error), Some(_), _) | (Err(error), None, None) => return Err(error),
                (Err(_), None, Some(first)) => {
                    read.unread.push(ShardId(shard as u16));
                    Snapshot {
                        estimates: Default::default(),
                        ..first.clone()
                    }
                }
            };
            read.snapshots.push(snapshot);
        }
        Ok(read)
    }
}

impl Loaded {
    /// Takes out what a shard was only taken for.
    pub(super) fn without(self, unread: &[ShardId], config: &Config) -> Self {
        let is_unread = |shard: usize| unread.contains(&ShardId(shard as u16));
        let place = |name: &str| config.shards.iter().position(|s| s.name == name);
        let keeps = |d: &Difference| {
            !place(&d.shard).is_some_and(is_unread) && !is_of_home(d, unread, config)
        };
        let versions = self.server_versions.into_iter().enumerate();
        Self {
            differences: self.differences.into_iter().filter(keeps).collect(),
            server_versions: versions
                .map(|(shard, version)| match is_unread(shard) {
                    true => String::new(),
                    false => version,
                })
                .collect(),
            unread: unread.to_vec(),
            ..self
        }
    }
}

/// True for what is said of a table that has an unread shard for its home: whether it is there is not known.
fn is_of_home(difference: &Difference, unread: &[ShardId], config: &Config) -> bool {
    let at_unread = |placement: &Placement| match placement {
        Placement::Home(home) => unread.contains(&ShardId(*home as u16)),
        Placement::Sharded { .. } | Placement::Reference => false,
    };
    let rules = config.tables.iter().filter(|t| at_unread(&t.placement));
    let mut names = rules.map(|t| format!("table {}.{}", t.schema, t.name));
    names.any(|name| name == difference.object)
}

#[cfg(test)]
mod tests {
    use super::super::merge::tests::shard;
    use super::*;
    use crate::protocol::error::ServerError;

    fn down(shard: &str) -> Result<Snapshot, BackendError> {
        Err(BackendError::Unreachable {
            shard: shard.into(),
            reason: "connection refused".into(),
        })
    }

    /// Whose snapshots they are, by the OIDs of their first tables, and which shards are unread.
    fn read(
        said: Vec<Result<Snapshot, BackendError>>,
        known: &[Option<&Snapshot>],
    ) -> Result<(Vec<u32>, Vec<u16>), String> {
        let read = Read::of(said, known).map_err(|error| error.shard().to_owned())?;
        let oids = read.snapshots.iter().map(|s| s.contents.relations[0].oid);
        let unread = read.unread.iter().map(|s| s.0);
        Ok((oids.collect(), unread.collect()))
    }

    #[test]
    fn a_shard_that_was_never_there_is_left_out() {
        let first = || Ok(shard(100, "1"));
        let left_out = read(vec![first(), down("s2"), Ok(shard(300, "1"))], &[]);
        assert_eq!(left_out, Ok((vec![100, 100, 300], vec![1])));
        let both = read(vec![first(), down("s2"), down("s3")], &[]);
        assert_eq!(both, Ok((vec![100, 100, 100], vec![1, 2])));
        // Again, while what is known of the others changes.
        let (old, third) = (shard(90, "1"), shard(300, "1"));
        let known = [Some(&old), None, Some(&third)];
        let again = read(vec![first(), down("s2"), Ok(shard(310, "1"))], &known);
        assert_eq!(again, Ok((vec![100, 100, 310], vec![1])));
    }

    #[test]
    fn the_catalog_shard_and_one_that_says_no_are_needed() {
        let refuses = Err(BackendError::Server {
            shard: "s2".into(),
            error: ServerError::fatal("28P01", "password authentication failed"),
        });
        assert_eq!(
            read(vec![down("s1"), Ok(shard(200, "1"))], &[]),
            Err("s1".into())
        );
        assert_eq!(
            read(vec![Ok(shard(100, "1")), refuses], &[]),
            Err("s2".into())
        );
    }

    #[test]
    fn what_is_known_of_a_shard_that_goes_serves_one_that_comes() {
        let (first, second) = (shard(100, "1"), shard(200, "1"));
        let all_known = [Some(&first), Some(&second)];
        let gone = || vec![Ok(shard(100, "1")), down("s2")];
        assert_eq!(read(gone(), &all_known), Err("s2".into()));
        let mut comes = gone();
        comes.push(Ok(shard(300, "1")));
        let known = [Some(&first), Some(&second), None];
        assert_eq!(read(comes, &known), Ok((vec![100, 200, 300], vec![])));
    }
}
