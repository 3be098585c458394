//! Asks the catalog shard to sort strings that locales and their versions sort differently: where this machine's C library has
//! another order, or cannot be compared, text of that collation is ordered on the merge session.

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type as SqlType};
use tokio_postgres::{Client, Error};

use super::snapshot::Snapshot;
use crate::backend::BackendError;
use crate::backend::control::ControlPlane;
use crate::plan::{Collation, CollationProvider};
use crate::sql::quote_identifier;
use crate::types::collate::{Locale, SELF_TEST, c_library_version};

/// Locales compared at most; text of others is ordered on the merge session.
const LOCALES_MAX: usize = 64;

/// By locale and version: whether the shard sorts as we do.
pub(super) type Agreed = HashMap<(String, Option<String>), bool>;

/// Compares the locales not yet in `agreed`, and takes the version from all collations that are not proved: without one nothing
/// is ordered here.
///
/// # Errors
/// The connection's. What the server refuses is not proved.
pub(super) async fn prove(
    control: &ControlPlane,
    snapshots: &mut [Snapshot],
    agreed: &mut Agreed,
) -> Result<(), BackendError> {
    let (Some(shard), Some(first)) = (control.shards.first(), snapshots.first_mut()) else {
        return Ok(());
    };
    let contents = &mut first.contents;
    let named = contents.collations.iter();
    let all = named
        .map(|(_, schema, c)| (schema.as_str(), c))
        .chain([("pg_catalog", &contents.default_collation)]);
    let mut questions = Vec::new();
    for (schema, collation) in all.filter(|(_, c)| depends_on_library(c)) {
        let usable = collation.version.as_deref() == c_library_version();
        let asked = questions.len() + agreed.len() < LOCALES_MAX;
        match Locale::named(&collation.locale).filter(|_| usable && asked) {
            Some(locale) if !agreed.contains_key(&key(collation)) => {
                questions.push((
                    format!("{schema}.{}", collation.name),
                    schema.to_owned(),
                    collation.clone(),
                    locale,
                ));
            }
            _ => {}
        }
    }
    if !questions.is_empty() {
        let answers = shard.within(async {
            let client = shard.client().await?;
            let mut answers = Vec::new();
            for (_, schema, collation, _) in &questions {
                let sorted = sorted(&client, schema, &collation.name).await;
                match sorted {
                    Err(error) if error.as_db_error().is_none() => {
                        return Err(shard.connector.control_error(&error));
                    }
                    sorted => answers.push(sorted.unwrap_or_default()),
                }
            }
            Ok(answers)
        });
        for ((name, _, collation, locale), sorted) in questions.iter().zip(answers.await?) {
            let agrees = sorted.len() == SELF_TEST.len() && locale.agrees_with(&sorted);
            if !agrees {
                tracing::warn!(
                    collation = name,
                    "the shards sort in another order than this machine's C library: their text is ordered on merge sessions"
                );
            }
            agreed.insert(key(collation), agrees);
        }
    }
    let every = contents.collations.iter_mut().map(|(_, _, c)| c);
    for collation in every.chain([&mut contents.default_collation]) {
        if depends_on_library(collation) && agreed.get(&key(collation)) != Some(&true) {
            collation.version = None;
        }
    }
    Ok(())
}

fn key(collation: &Collation) -> (String, Option<String>) {
    (collation.locale.clone(), collation.version.clone())
}

fn depends_on_library(collation: &Collation) -> bool {
    collation.provider == CollationProvider::Libc
        && !matches!(collation.locale.as_str(), "C" | "POSIX")
}

/// The strings in the order of a collation.
async fn sorted(client: &Client, schema: &str, name: &str) -> Result<Vec<String>, Error> {
    let sql = format!(
        "SELECT v FROM pg_catalog.unnest($1::pg_catalog.text[]) v ORDER BY v COLLATE {}.{}",
        quote_identifier(schema),
        quote_identifier(name)
    );
    let parameters: [(&(dyn ToSql + Sync), SqlType); 1] = [(&SELF_TEST, SqlType::TEXT_ARRAY)];
    let rows = client.query_typed(&sql, &parameters).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_own_orders_are_in_doubt() {
        let collation = |provider, locale: &str| Collation {
            name: "x".into(),
            provider,
            locale: locale.into(),
            deterministic: true,
            version: None,
        };
        assert!(depends_on_library(&collation(
            CollationProvider::Libc,
            "en_US.UTF-8"
        )));
        assert!(!depends_on_library(&collation(
            CollationProvider::Libc,
            "C"
        )));
        assert!(!depends_on_library(&collation(
            CollationProvider::Icu,
            "en"
        )));
        assert!(!depends_on_library(&collation(
            CollationProvider::Bytes,
            "C"
        )));
    }
}
