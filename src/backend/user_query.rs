//! `auth.query`: asks the first shard what is stored of a user's password, over control connections of its own.
//!
//! Nothing a client says reaches the query but the name, as a parameter; the search_path is fixed. What is found is not kept.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{FromSqlOwned, Type};
use tokio_postgres::{Row, Transaction};

use super::BackendError;
use super::connector::Connector;
use super::control::ControlShard;
use crate::config::{Config, Secret};

/// The longest a client's login waits for it, several clients at once included.
const LIMIT: Duration = Duration::from_secs(5);
/// Neither temporary objects nor schemas that others may write to come before what the query means.
const PREPARE: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '5s'";

/// The query and where it runs.
pub struct UserQuery {
    sql: String,
    shard: ControlShard,
}

/// What the shard has of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// No such user.
    Nobody,
    /// One without a password, or whose password may not be used any more.
    Nothing(&'static str),
    /// What is stored of the password.
    Password(Secret),
}

enum Failure {
    Said(tokio_postgres::Error),
    Odd(String),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Said(error)
    }
}

impl UserQuery {
    /// `None` where the configuration has none. Must be called inside a runtime.
    pub fn new(config: &Config) -> Option<Self> {
        let sql = config.auth.query.as_ref()?;
        let connector: Arc<Connector> = Connector::all(config).into_iter().next()?;
        Some(Self {
            sql: sql.trim().trim_end_matches(';').to_owned(),
            // Apart from the catalog's and the health's: strangers make it run.
            shard: ControlShard::new(connector),
        })
    }

    /// Asks for a user.
    ///
    /// # Errors
    /// The shard's, `TimedOut` past five seconds; `Protocol` for a result that is not what such a query gives.
    pub async fn ask(&self, user: &str) -> Result<Stored, BackendError> {
        let connector = &self.shard.connector;
        let asked = tokio::time::timeout(LIMIT, async {
            let mut client = self.shard.client().await?;
            let stored = self.stored(&mut client, user).await;
            stored.map_err(|failure| match failure {
                Failure::Said(error) => connector.control_error(&error),
                Failure::Odd(what) => connector.protocol(format!("auth.query {what}")),
            })
        });
        asked.await.unwrap_or_else(|_| {
            Err(BackendError::TimedOut {
                shard: connector.name.to_string(),
            })
        })
    }

    async fn stored(
        &self,
        client: &mut tokio_postgres::Client,
        user: &str,
    ) -> Result<Stored, Failure> {
        let transaction = client.build_transaction().read_only(true).start().await?;
        transaction.batch_execute(PREPARE).await?;
        let rows = self.rows(&transaction, user).await?;
        transaction.rollback().await?;
        let [row] = &rows[..] else {
            return match rows.len() {
                0 => Ok(Stored::Nobody),
                n => Err(Failure::Odd(format!("gives {n} rows for one user"))),
            };
        };
        // A query that compares names in another way than PostgreSQL does would let one user in as another.
        if get::<Option<String>>(row, 0)?.as_deref() != Some(user) {
            return Err(Failure::Odd(
                "gives another user than the one asked for".into(),
            ));
        }
        if get::<Option<bool>>(row, 2)? == Some(true) {
            return Ok(Stored::Nothing("the password has expired"));
        }
        Ok(match get::<Option<String>>(row, 1)? {
            Some(password) => Stored::Password(Secret::new(password)),
            None => Stored::Nothing("there is no password"),
        })
    }

    /// Name, password, and whether VALID UNTIL has passed by the shard's clock.
    async fn rows(&self, transaction: &Transaction<'_>, user: &str) -> Result<Vec<Row>, Failure> {
        let inner = transaction.prepare(&self.sql).await?;
        let columns = inner.columns();
        if inner.params().len() != 1 || !matches!(columns.len(), 2 | 3) {
            let message = "must have one parameter, $1, and two or three columns: name, password, valid until";
            return Err(Failure::Odd(message.into()));
        }
        let expired = match columns.get(2) {
            Some(column) if *column.type_() != Type::TIMESTAMPTZ => {
                return Err(Failure::Odd(
                    "must have a timestamptz for the third column".into(),
                ));
            }
            Some(_) => "q.until < pg_catalog.clock_timestamp()",
            None => "false",
        };
        let until = if columns.len() == 3 { ", until" } else { "" };
        let sql = format!(
            "SELECT q.name::text, q.password::text, {expired} FROM ({}\n) q(name, password{until})",
            self.sql
        );
        let outer = transaction.prepare(&sql).await?;
        Ok(transaction.query(&outer, &[&user]).await?)
    }
}

fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Result<T, Failure> {
    row.try_get(column).map_err(Failure::Said)
}
