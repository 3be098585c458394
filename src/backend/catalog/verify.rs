//! Asks a shard whether pgbraid's hash of a key is PostgreSQL's: on a difference every routed row would be looked for in the
//! wrong place.

use tokio_postgres::types::{ToSql, Type as SqlType};
use tokio_postgres::{Client, Error, Transaction};

use crate::backend::BackendError;
use crate::backend::control::{ControlPlane, ControlShard};
use crate::catalog::sharding::{KeyClass, KeyDatum, Sharding, ShardingFunction};
use crate::config::{Config, FunctionName, Placement};

/// What the check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HashCheck {
    /// Equal, or not needed.
    Passed,
    /// The shard does not let us ask (no temporary tables for this role, a standby).
    Skipped(String),
    Differs(String),
}

/// Compares a handful of keys of each class on the catalog shard. The temporary tables it needs are rolled back.
///
/// # Errors
/// The connection's; what the server refuses is `Skipped`.
pub(super) async fn hash_partitions(
    config: &Config,
    control: &ControlPlane,
) -> Result<HashCheck, BackendError> {
    let hashed = config.tables.iter().any(|table| {
        matches!(
            table.placement,
            Placement::Sharded {
                key: Some(_),
                function: FunctionName::Postgres,
                ..
            }
        )
    });
    let Some(shard) = control.shards.first().filter(|_| hashed) else {
        return Ok(HashCheck::Passed);
    };
    let modulus = config.shards.len();
    shard
        .within(async {
            let mut client = shard.client().await?;
            match check(&mut client, modulus).await {
                Ok(None) => Ok(HashCheck::Passed),
                Ok(Some(difference)) => Ok(HashCheck::Differs(difference)),
                Err(error) => skipped(shard, &error),
            }
        })
        .await
}

fn skipped(shard: &ControlShard, error: &Error) -> Result<HashCheck, BackendError> {
    match error.as_db_error() {
        Some(said) => Ok(HashCheck::Skipped(said.message().to_owned())),
        None => Err(shard.connector.control_error(error)),
    }
}

/// The first key that the server places elsewhere.
async fn check(client: &mut Client, modulus: usize) -> Result<Option<String>, Error> {
    let transaction = client.build_transaction().read_only(false).start().await?;
    let integers: [Option<i64>; 7] = [
        None,
        Some(0),
        Some(1),
        Some(-1),
        Some(42),
        Some(1 << 40),
        Some(i64::MIN),
    ];
    let texts = [
        None,
        Some(""),
        Some("a"),
        Some("abcdefghijklm"),
        Some("Grüße"),
        Some("\u{1f600}"),
    ];
    let days: [i32; 4] = [0, -1, 9821, 730_000];
    let uuids: [u128; 3] = [0, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677];

    let mut keys = Vec::new();
    for value in integers {
        let datum = value.map_or(KeyDatum::Null, KeyDatum::Integer);
        keys.push((KeyClass::Integer, value.map(|v| v.to_string()), datum));
    }
    for value in texts {
        let datum = value.map_or(KeyDatum::Null, |v| KeyDatum::Text(v.to_owned()));
        keys.push((KeyClass::Text, value.map(str::to_owned), datum));
    }
    for value in days {
        let text = format!("{value} days");
        keys.push((KeyClass::Date, Some(text), KeyDatum::Date(value)));
    }
    for value in uuids {
        let datum = KeyDatum::Uuid(value.to_be_bytes());
        keys.push((KeyClass::Uuid, Some(format!("{value:032x}")), datum));
    }
    let mut difference = None;
    for class in [
        KeyClass::Integer,
        KeyClass::Text,
        KeyClass::Date,
        KeyClass::Uuid,
    ] {
        let of_class: Vec<_> = keys.iter().filter(|(c, ..)| *c == class).collect();
        let texts: Vec<Option<&str>> = of_class.iter().map(|(_, t, _)| t.as_deref()).collect();
        let placed = placed(&transaction, class, &texts, modulus).await?;
        let sharding = Sharding {
            function: ShardingFunction::Postgres,
            class,
            shards: modulus,
        };
        for ((_, text, datum), remainder) in of_class.into_iter().zip(placed) {
            let ours = sharding.shard_of(datum).map(|s| i32::from(s.0));
            if ours != Some(remainder) {
                difference = difference.or(Some(format!(
                    "the server's hash partitioning puts {class:?} key {text:?} at {remainder} of {modulus}, pgbraid at {ours:?}"
                )));
            }
        }
    }
    transaction.rollback().await?;
    Ok(difference)
}

/// The remainder the server gives each key, in their order.
async fn placed(
    transaction: &Transaction<'_>,
    class: KeyClass,
    keys: &[Option<&str>],
    modulus: usize,
) -> Result<Vec<i32>, Error> {
    let (name, value) = match class {
        KeyClass::Integer | KeyClass::HiveBigint => ("int8", "k::pg_catalog.int8"),
        KeyClass::Text => ("text", "k"),
        KeyClass::Date => (
            "date",
            "(pg_catalog.date '2000-01-01' + k::pg_catalog.interval)::pg_catalog.date",
        ),
        KeyClass::Uuid => ("uuid", "k::pg_catalog.uuid"),
    };
    let table = format!("pg_temp.pgbraid_hash_{name}");
    transaction
        .batch_execute(&format!(
            "CREATE TEMP TABLE pgbraid_hash_{name} (k pg_catalog.{name}) PARTITION BY HASH (k)"
        ))
        .await?;
    let sql = format!(
        "SELECT r FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY u(k, n), pg_catalog.generate_series(0, $2 - 1) r
         WHERE pg_catalog.satisfies_hash_partition('{table}'::regclass, $2, r, {value}) ORDER BY n"
    );
    let modulus = modulus as i32;
    let parameters: [(&(dyn ToSql + Sync), SqlType); 2] =
        [(&keys, SqlType::TEXT_ARRAY), (&modulus, SqlType::INT4)];
    let rows = transaction.query_typed(&sql, &parameters).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
