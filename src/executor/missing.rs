//! Where a step runs while shards are missing whose rows may be left out.
//!
//! A database without their rows would read the same tables: a step that any shard can run goes to another one, one by keys to the other
//! shards of these keys. Where none is left of those, no row fits; one shard still runs it, for an aggregate over no rows is a row.

use super::target::{self, Choice};
use super::{Bound, Execution, error};
use crate::plan::{ShardId, Targets};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;

/// Where a step runs.
pub(super) struct There {
    /// Ascending, never none.
    pub(super) shards: Vec<ShardId>,
    /// Those that have rows of it and are missing.
    pub(super) lacking: Vec<ShardId>,
}

/// The shards of `targets` that are there.
///
/// # Errors
/// 08006 for what none of them has.
pub(super) fn there(targets: &Targets, bound: &Bound, shards: usize) -> Result<There, ServerError> {
    let found = target::evaluate(targets, &bound.parameters, bound.choice(shards));
    if bound.missing.is_empty() {
        return Ok(There {
            shards: found,
            lacking: Vec::new(),
        });
    }
    without(found, targets, bound, shards)
}

/// The same of shards that have been found already.
///
/// # Errors
/// As [`there`].
pub(super) fn without(
    found: Vec<ShardId>,
    targets: &Targets,
    bound: &Bound,
    shards: usize,
) -> Result<There, ServerError> {
    let is_missing = |shard: &ShardId| bound.missing.contains(shard);
    let (lacking, mut left): (Vec<ShardId>, Vec<ShardId>) = found.into_iter().partition(is_missing);
    let lacking = match targets {
        _ if lacking.is_empty() => lacking,
        Targets::Shard(_) | Targets::Catalog => return Err(only_there(&lacking, targets, bound)),
        // Any other one has all of it.
        Targets::Any => Vec::new(),
        Targets::Keyed(_) if possible(targets, bound, shards).is_empty() => Vec::new(),
        Targets::Keyed(_) | Targets::All => lacking,
    };
    if left.is_empty() {
        let all = (0..shards).map(|i| ShardId(i as u16));
        left.extend(all.filter(|shard| !is_missing(shard)).take(1));
    }
    match left.is_empty() {
        true => Err(none_left()),
        false => Ok(There {
            shards: left,
            lacking,
        }),
    }
}

fn possible(targets: &Targets, bound: &Bound, shards: usize) -> Vec<ShardId> {
    target::possible(targets, &bound.parameters, bound.choice(shards))
}

fn only_there(missing: &[ShardId], targets: &Targets, bound: &Bound) -> ServerError {
    let name = |shard: &ShardId| bound.shard_names.get(shard.0 as usize);
    let Some(shard) = missing.first().and_then(name) else {
        return error::internal("no shard is missing");
    };
    let message = format!("shard {shard} cannot be reached");
    let hint = match targets {
        Targets::Catalog => {
            "There are no partial results of the catalog: clients know its objects by the numbers that this shard gives them."
        }
        _ => "There are no partial results of what is on one shard only.",
    };
    ServerError::new(sqlstate::CONNECTION_FAILURE, message).with_hint(hint)
}

fn none_left() -> ServerError {
    let message = "no shard can be reached";
    ServerError::new(sqlstate::CONNECTION_FAILURE, message)
}

impl Execution {
    /// Where the client's text goes that a missing shard would have answered, and that shard, if it is missing: no other one has rows of
    /// its keys.
    ///
    /// # Errors
    /// 08006 for what is on that shard alone.
    pub fn in_place_of(
        shard: ShardId,
        targets: &Targets,
        bound: &Bound,
        shards: usize,
    ) -> Result<(ShardId, Vec<ShardId>), ServerError> {
        if !bound.missing.contains(&shard) {
            return Ok((shard, Vec::new()));
        }
        let there = without(vec![shard], targets, bound, shards)?;
        let found = there.shards.first().copied().unwrap_or(shard);
        Ok((found, there.lacking))
    }

    /// Notes missing shards that would have answered.
    #[must_use]
    pub fn with_lacking(self, lacking: Vec<ShardId>) -> Self {
        Self { lacking, ..self }
    }

    /// Shards whose rows it does without, ascending.
    pub fn lacking(&self) -> Vec<ShardId> {
        let mut all = self.lacking.clone();
        self.pipeline.collect_lacking(&mut all);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Shards that it must not need.
    pub fn missing(&self) -> &[ShardId] {
        &self.bound.missing
    }

    /// Says that it may be begun anew without the rows of shards that are lost.
    #[must_use]
    pub fn partially(self) -> Self {
        Self {
            partial: true,
            ..self
        }
    }

    /// True for one of which [`Execution::partially`] was said, until its first row comes out.
    pub fn may_begin_anew(&self) -> bool {
        self.partial && !self.has_given && self.copy.is_none()
    }
}

impl Bound {
    /// What targets are evaluated with.
    pub(super) fn choice(&self, shards: usize) -> Choice {
        let known = self.catalog.as_ref().and_then(|c| c.catalog_shard);
        Choice {
            shards,
            catalog_shard: known.unwrap_or(ShardId(0)),
            preferred: self.preferred,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::plan::KeyCondition;

    fn bound(missing: &[u16]) -> Bound {
        Bound {
            missing: missing.iter().map(|i| ShardId(*i)).collect(),
            ..testing::bound()
        }
    }

    /// Where it runs and what it lacks, on two shards.
    fn of(targets: &Targets, missing: &[u16]) -> Option<(Vec<u16>, Vec<u16>)> {
        let numbers = |shards: Vec<ShardId>| shards.iter().map(|s| s.0).collect();
        let there = there(targets, &bound(missing), 2).ok()?;
        Some((numbers(there.shards), numbers(there.lacking)))
    }

    #[test]
    fn rows_of_missing_shards_are_lacking() {
        assert_eq!(of(&Targets::All, &[]), Some((vec![0, 1], vec![])));
        assert_eq!(of(&Targets::All, &[0]), Some((vec![1], vec![0])));
        assert_eq!(of(&Targets::All, &[0, 1]), None);
        let keyed = Targets::Keyed(KeyCondition::Any);
        assert_eq!(of(&keyed, &[1]), Some((vec![0], vec![1])));
    }

    #[test]
    fn what_any_shard_has_lacks_nothing() {
        for _ in 0..4 {
            assert_eq!(of(&Targets::Any, &[0]), Some((vec![1], vec![])));
            let never = Targets::Keyed(KeyCondition::Never);
            assert_eq!(of(&never, &[0]), Some((vec![1], vec![])));
        }
    }

    #[test]
    fn what_one_shard_has_alone_is_an_error_without_it() {
        let home = Targets::Shard(ShardId(1));
        assert_eq!(of(&home, &[1]), None);
        assert_eq!(of(&home, &[0]), Some((vec![1], vec![])));
        assert_eq!(of(&Targets::Catalog, &[0]), None);
        assert_eq!(of(&Targets::Catalog, &[1]), Some((vec![0], vec![])));
    }
}
