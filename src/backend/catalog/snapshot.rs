//! One shard's catalog as its own tables tell it: read in one transaction, compared with nothing yet.

use std::collections::HashMap;

use tokio_postgres::types::{FromSqlOwned, Type as SqlType};
use tokio_postgres::{IsolationLevel, Row, Transaction};

use super::{queries, writes};
use crate::backend::BackendError;
use crate::backend::connector::Connector;
use crate::backend::control::ControlShard;
use crate::catalog::writes::Writes;
use crate::catalog::{Function, FunctionKind, Type, Volatility};
use crate::plan::{Collation, CollationProvider};

/// What is read of a shard. Equal snapshots give the same plans.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub contents: Contents,
    /// Rows and pages by relation OID; they change all the time.
    pub estimates: HashMap<u32, (f64, f64)>,
    pub parameters: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contents {
    pub server_version: String,
    /// 15 for 15.2
    pub major_version: i32,
    pub search_path: Vec<String>,
    /// A digest of what decides which schemas a role may look into: plans hold for the names found there.
    pub grants: String,
    /// default_transaction_isolation
    pub isolation: String,
    pub settings: Vec<(String, String)>,
    pub default_collation: Collation,
    pub types: Vec<ShardType>,
    /// With their schema.
    pub collations: Vec<(u32, String, Collation)>,
    pub relations: Vec<Relation>,
    /// On the catalog shard only.
    pub functions: Vec<Function>,
    /// User-defined functions.
    pub bodies: Vec<Body>,
    /// User-defined operators, and casts (`::type`).
    pub operators: Vec<Operator>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operator {
    pub name: String,
    /// The name of the one behind it.
    pub function: String,
    /// Types on its sides; 0 for none.
    pub operands: [u32; 2],
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ShardType {
    pub definition: Type,
    /// What makes two user-defined types the same, in words that hold on every shard; empty where nothing is to be compared.
    pub signature: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Body {
    pub name: String,
    /// `schema.name(arguments)`
    pub signature: String,
    /// Of all that decides what it does.
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Relation {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `relkind`
    pub kind: u8,
    pub parents: Vec<u32>,
    pub view_definition: Option<String>,
    pub guarded: bool,
    /// Expressions of its row security.
    pub policies: Vec<String>,
    /// Attribute numbers.
    pub primary_key: Vec<i16>,
    pub columns: Vec<ShardColumn>,
    pub writes: Writes,
}

impl Relation {
    pub(super) fn is_system(&self) -> bool {
        matches!(&*self.schema, "pg_catalog" | "information_schema")
    }

    pub(super) fn key(&self) -> (String, String) {
        (self.schema.clone(), self.name.clone())
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ShardColumn {
    pub attribute: i16,
    pub name: String,
    pub type_oid: u32,
    pub type_modifier: i32,
    pub type_name: String,
    pub not_null: bool,
    pub collation: u32,
    /// `schema.name`, empty without one.
    pub collation_name: String,
}

/// Reads a shard; `full` includes what is the same on every server: system relations and all functions.
pub(super) async fn read(shard: &ControlShard, full: bool) -> Result<Snapshot, BackendError> {
    // What a new session is told. It comes first because our own connections refuse a password request in clear text.
    let connector = &shard.connector;
    let session = connector.connect().await?;
    let parameters = session.parameters().to_vec();
    drop(session);
    shard
        .within(async {
            let mut client = shard.client().await?;
            let contents = contents(connector, &mut client, full).await;
            let (contents, estimates) = contents.map_err(|e| match e {
                ReadError::Said(e) => connector.control_error(&e),
                ReadError::Odd(what) => connector.protocol(format!("catalog: {what}")),
            })?;
            Ok(Snapshot {
                contents,
                estimates,
                parameters,
            })
        })
        .await
}

pub(super) enum ReadError {
    Said(tokio_postgres::Error),
    /// A catalog that does not say what PostgreSQL's says.
    Odd(String),
}

impl From<tokio_postgres::Error> for ReadError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Said(error)
    }
}

type Estimates = HashMap<u32, (f64, f64)>;

async fn contents(
    connector: &Connector,
    client: &mut tokio_postgres::Client,
    full: bool,
) -> Result<(Contents, Estimates), ReadError> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let session = one(&transaction, queries::SESSION).await?;
    transaction.batch_execute(queries::PREPARE).await?;
    let everything = [(&full as _, SqlType::BOOL)];
    let settings = queries::result_settings();
    // All at once: one round trip.
    let (
        collation,
        settings,
        types,
        collations,
        relations,
        attributes,
        functions,
        bodies,
        operators,
        changes,
    ) = tokio::try_join!(
        // In this order: the first error is the cause of those behind it.
        biased;
        one(&transaction, queries::DEFAULT_COLLATION),
        transaction.query_typed(queries::SETTINGS, &settings),
        transaction.query_typed(queries::TYPES, &everything),
        transaction.query_typed(queries::COLLATIONS, &[]),
        transaction.query_typed(queries::RELATIONS, &everything),
        transaction.query_typed(queries::ATTRIBUTES, &everything),
        transaction.query_typed(queries::FUNCTIONS, &everything),
        transaction.query_typed(queries::BODIES, &[]),
        transaction.query_typed(queries::OPERATORS, &[]),
        transaction.query_typed(writes::WRITES, &[]),
    )?;
    transaction.rollback().await?;

    let estimates = relations.iter().map(estimate).collect::<Result<_, _>>()?;
    let mut relations = relations
        .iter()
        .map(relation)
        .collect::<Result<Vec<_>, _>>()?;
    add_columns(&mut relations, &attributes)?;
    writes::add_writes(&mut relations, &changes)?;
    tracing::debug!(
        shard = &*connector.name,
        relations = relations.len(),
        types = types.len(),
        functions = functions.len(),
        "catalog read"
    );
    let contents = Contents {
        server_version: get(&session, 0)?,
        major_version: get::<i32>(&session, 1)? / 10_000,
        search_path: get(&session, 2)?,
        grants: get(&session, 3)?,
        isolation: get(&session, 4)?,
        settings: pairs(&settings)?,
        default_collation: self::collation(&collation, 0)?,
        types: types.iter().map(shard_type).collect::<Result<_, _>>()?,
        collations: collations
            .iter()
            .map(|r| Ok((get(r, 0)?, get(r, 1)?, self::collation(r, 2)?)))
            .collect::<Result<_, ReadError>>()?,
        relations,
        functions: functions.iter().map(function).collect::<Result<_, _>>()?,
        bodies: bodies.iter().map(body).collect::<Result<_, _>>()?,
        operators: operators.iter().map(operator).collect::<Result<_, _>>()?,
    };
    Ok((contents, estimates))
}

async fn one(transaction: &Transaction<'_>, sql: &str) -> Result<Row, tokio_postgres::Error> {
    transaction.query_typed_one(sql, &[]).await
}

pub(super) fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Result<T, ReadError> {
    Ok(row.try_get(column)?)
}

fn pairs(rows: &[Row]) -> Result<Vec<(String, String)>, ReadError> {
    let pair = |r: &Row| Ok((get(r, 0)?, get(r, 1)?));
    rows.iter().map(pair).collect()
}

fn operator(row: &Row) -> Result<Operator, ReadError> {
    Ok(Operator {
        name: get(row, 0)?,
        function: get(row, 1)?,
        operands: [get(row, 2)?, get(row, 3)?],
    })
}

/// A `"char"`, which is read as text.
fn letter(row: &Row, column: usize) -> Result<u8, ReadError> {
    let text: String = get(row, column)?;
    let letter = text.bytes().next();
    letter.ok_or_else(|| ReadError::Odd("an empty kind".into()))
}

fn estimate(row: &Row) -> Result<(u32, (f64, f64)), ReadError> {
    Ok((get(row, 0)?, (get(row, 8)?, get(row, 9)?)))
}

fn relation(row: &Row) -> Result<Relation, ReadError> {
    Ok(Relation {
        oid: get(row, 0)?,
        schema: get(row, 1)?,
        name: get(row, 2)?,
        kind: letter(row, 3)?,
        parents: get(row, 4)?,
        view_definition: get(row, 5)?,
        guarded: get(row, 6)?,
        policies: get(row, 10)?,
        primary_key: get(row, 7)?,
        columns: Vec::new(),
        writes: Writes::default(),
    })
}

fn add_columns(relations: &mut [Relation], attributes: &[Row]) -> Result<(), ReadError> {
    let places: HashMap<u32, usize> = relations
        .iter()
        .enumerate()
        .map(|(place, r)| (r.oid, place))
        .collect();
    for row in attributes {
        let Some(place) = places.get(&get(row, 0)?) else {
            continue;
        };
        relations[*place].columns.push(ShardColumn {
            attribute: get(row, 1)?,
            name: get(row, 2)?,
            type_oid: get(row, 3)?,
            type_modifier: get(row, 4)?,
            type_name: get(row, 5)?,
            not_null: get(row, 6)?,
            collation: get(row, 7)?,
            collation_name: get(row, 8)?,
        });
    }
    Ok(())
}

fn shard_type(row: &Row) -> Result<ShardType, ReadError> {
    Ok(ShardType {
        definition: Type {
            oid: get(row, 0)?,
            schema: get(row, 1)?,
            name: get(row, 2)?,
            kind: letter(row, 3)?,
            element: get(row, 4)?,
            array: get(row, 5)?,
            base: get(row, 6)?,
            subtype: get(row, 7)?,
            collatable: get(row, 8)?,
            labels: get(row, 9)?,
            fields: get(row, 10)?,
            apart: get(row, 12)?,
        },
        signature: get(row, 11)?,
    })
}

/// Name, provider, locale, determinism and version, from column `first` on.
fn collation(row: &Row, first: usize) -> Result<Collation, ReadError> {
    let locale: String = get(row, first + 2)?;
    let provider = match (letter(row, first + 1)?, &*locale) {
        // Byte order. The builtin provider (17) has only locales that sort by code point, which is the same for UTF-8.
        (b'b', _) | (b'c', "C" | "POSIX") => CollationProvider::Bytes,
        (b'i', _) => CollationProvider::Icu,
        _ => CollationProvider::Libc,
    };
    Ok(Collation {
        name: get(row, first)?,
        provider,
        locale,
        deterministic: get(row, first + 3)?,
        version: get(row, first + 4)?,
    })
}

fn body(row: &Row) -> Result<Body, ReadError> {
    Ok(Body {
        name: get(row, 0)?,
        signature: get(row, 1)?,
        digest: get(row, 2)?,
    })
}

fn function(row: &Row) -> Result<Function, ReadError> {
    Ok(Function {
        schema: get(row, 0)?,
        name: get(row, 1)?,
        kind: match letter(row, 2)? {
            b'a' => FunctionKind::Aggregate,
            b'w' => FunctionKind::Window,
            b'p' => FunctionKind::Procedure,
            _ => FunctionKind::Function,
        },
        volatility: match letter(row, 3)? {
            b'i' => Volatility::Immutable,
            b's' => Volatility::Stable,
            _ => Volatility::Volatile,
        },
        strict: get(row, 4)?,
        arguments: get(row, 5)?,
        result: get(row, 6)?,
        returns_set: get(row, 7)?,
        language: get(row, 8)?,
        variadic: get(row, 9)?,
        default_arguments: usize::try_from(get::<i16>(row, 10)?).unwrap_or(0),
        names: get::<Option<String>>(row, 11)?.and_then(|s| crate::sql::names_in_source(&s)),
        columns: get(row, 12)?,
    })
}
