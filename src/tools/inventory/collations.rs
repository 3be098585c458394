//! Versions of collations: text sorts as the library of the server has it, and indexes stay sorted as it had it when they were made.

use tokio_postgres::{Error, Transaction};

use super::super::report::Finding;
use super::{get, queries};

/// A collation in use whose order is a library's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollationVersion {
    /// `default collation`, `collation public.german`
    pub object: String,
    /// When the database or the collation was made, or last looked over.
    pub recorded: Option<String>,
    /// What the library is now.
    pub actual: Option<String>,
    /// Builds what depends on it anew and records the version at hand.
    pub refresh: Vec<String>,
}

impl CollationVersion {
    /// All in use.
    ///
    /// # Errors
    /// The shard's.
    pub async fn read(transaction: &Transaction<'_>) -> Result<Vec<Self>, Error> {
        let version = transaction
            .query_typed_one(queries::SERVER_VERSION, &[])
            .await?;
        let mut rows = transaction
            .query_typed(queries::COLLATION_VERSIONS, &[])
            .await?;
        if get::<i32>(&version, 0)? >= 150_000 {
            let own = transaction.query_typed(queries::DEFAULT_COLLATION_VERSION, &[]);
            rows.extend(own.await?);
        }
        let version = |row| {
            Ok(Self {
                object: get(row, 0)?,
                recorded: get(row, 1)?,
                actual: get(row, 2)?,
                refresh: get(row, 3)?,
            })
        };
        rows.iter().map(version).collect()
    }
}

/// Versions that are not the library's, or not those of most shards.
pub fn versions_of_collations(shards: &[(&str, Vec<CollationVersion>)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (shard, versions) in shards {
        for version in versions {
            let object = format!("version of the {}", version.object);
            let actual = version.actual.as_deref().unwrap_or("unknown");
            let recorded = version.recorded.as_deref().unwrap_or("not recorded");
            if version.recorded != version.actual {
                let message = format!(
                    "is {recorded} as recorded, the server's library has {actual}: indexes over text may be out of order"
                );
                let finding = Finding::new(shard, object, message);
                findings.push(finding.mended_by(version.refresh.iter().cloned()));
                continue;
            }
            let others = || {
                let all = shards
                    .iter()
                    .flat_map(|(name, v)| v.iter().map(move |v| (name, v)));
                all.filter(|(_, v)| v.object == version.object)
            };
            let votes = |a: &Option<String>| others().filter(|(_, v)| v.actual == *a).count();
            let mut all: Vec<_> = others().collect();
            all.reverse();
            let right = all.into_iter().max_by_key(|(_, v)| votes(&v.actual));
            if let Some((model, right)) = right
                && right.actual != version.actual
            {
                let other = right.actual.as_deref().unwrap_or("unknown");
                let message = format!("is {actual}, on shard {model} {other}");
                findings.push(Finding::new(shard, object, message).noted(
                    "the servers sort by different libraries: install the same version on both; until then text of this collation is \
                     ordered on merge sessions",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_and_different_versions_are_told_apart() {
        let version = |recorded: &str, actual: &str| CollationVersion {
            object: "default collation".into(),
            recorded: Some(recorded.into()),
            actual: Some(actual.into()),
            refresh: vec!["refresh".into()],
        };
        let found = versions_of_collations(&[
            ("s1", vec![version("2.36", "2.36")]),
            ("s2", vec![version("2.31", "2.36")]),
            ("s3", vec![version("2.40", "2.40")]),
            ("s4", vec![version("2.36", "2.36")]),
        ]);
        let words: Vec<_> = found.iter().map(|f| (&*f.shard, f.mend.len())).collect();
        assert_eq!(words, [("s2", 1), ("s3", 0)]);
    }
}
