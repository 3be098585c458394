//! `pgbraid verify`: the same statements on a reference server that holds all rows and through pgbraid, and whether the answers are the
//! same: columns, types, rows, SQLSTATEs. Only statements that read are run, in sessions that may do nothing else.

mod answer;
mod compare;
mod sample;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::report::statement_line;
use super::server_url;
use crate::backend::BackendError;
use crate::backend::catalog;
use crate::backend::control::ControlPlane;
use crate::config::{Auth, AuthMethod, Config, Secret, Server, Shard, ShardRole, Tls, User};
use crate::progress::Progress;
use crate::protocol::sqlstate;
use crate::sql::{self, Kind};
use answer::{Answer, ask};
use compare::Order;

/// The role that logs in to the pgbraid that is started for this.
const USER: &str = "pgbraid_verify";
/// How long pgbraid may take until it answers.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// What is asked of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connection string of the server that holds all rows.
    pub reference: String,
    /// Connection string of a pgbraid that runs; `None`: one is started for this.
    pub via: Option<String>,
    /// Statements to run; empty: they are made from the tables.
    pub statements: Vec<String>,
    /// How many are made.
    pub sample: usize,
    /// For each statement on either side.
    pub limit: Duration,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A connection string is of no use.
    #[error("{0}")]
    Url(String),
    /// A side said no, or nothing.
    #[error("{side}: {error}")]
    Side {
        /// `the reference`, `pgbraid`.
        side: &'static str,
        /// What it said.
        error: BackendError,
    },
    /// pgbraid did not start.
    #[error("pgbraid did not start: {0}")]
    Start(String),
}

/// What became of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// The answers are the same.
    Same,
    /// They are not: in which way.
    Different(String),
    /// pgbraid does not answer it, and says why.
    Refused(String),
    /// It was not run, or says nothing: why.
    Skipped(String),
}

/// A statement with its verdict.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its text.
    pub statement: String,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Runs all statements, one after the other.
///
/// # Errors
/// See [`VerifyError`]; a side that is lost in between is one, too.
pub async fn run(config: &Arc<Config>, options: &Options) -> Result<Vec<Outcome>, VerifyError> {
    let url = |text: &str, name: &str| {
        server_url::parse(name, text).map_err(|why| VerifyError::Url(format!("{name} {why}")))
    };
    let reference = url(&options.reference, "the reference")?;
    let stop = CancellationToken::new();
    let (braid, serving) = match &options.via {
        Some(text) => (url(text, "pgbraid")?, None),
        None => {
            let (shard, serving) = start(config, stop.clone()).await?;
            (shard, Some(serving))
        }
    };
    let result = compare_all(config, options, [reference, braid]).await;
    stop.cancel();
    if let Some(serving) = serving {
        // Whatever it says at its end changes nothing of what was compared.
        let _ = serving.await;
    }
    result
}

async fn compare_all(
    config: &Arc<Config>,
    options: &Options,
    sides: [Shard; 2],
) -> Result<Vec<Outcome>, VerifyError> {
    let names = ["the reference", "pgbraid"];
    let planes = sides.map(|shard| ControlPlane::new(&only(config, shard)));
    let side = |n: usize| {
        move |error| VerifyError::Side {
            side: names[n],
            error,
        }
    };
    let reference = planes[0].shards[0].client().await.map_err(side(0))?;
    let braid = planes[1].shards[0].client().await.map_err(side(1))?;
    prepare(&reference, options.limit)
        .await
        .map_err(|e| side(0)(planes[0].shards[0].connector.control_error(&e)))?;
    prepare(&braid, options.limit)
        .await
        .map_err(|e| side(1)(planes[1].shards[0].connector.control_error(&e)))?;
    let statements = match options.statements.is_empty() {
        false => options.statements.clone(),
        true => {
            let loaded = catalog::load(config, 1).await;
            let loaded = loaded.map_err(side(1))?;
            sample::statements(&loaded.catalog, &reference, options.sample).await
        }
    };
    let progress = Progress::new("running statements", statements.len() as u64);
    let mut outcomes = Vec::new();
    for statement in statements {
        let verdict = judge(&statement, &reference, &braid).await;
        if reference.is_closed() || braid.is_closed() {
            let n = usize::from(!reference.is_closed());
            let connector = &planes[n].shards[0].connector;
            let error = BackendError::Lost {
                shard: connector.name.to_string(),
                reason: format!("while this ran: {statement}"),
            };
            return Err(side(n)(error));
        }
        outcomes.push(Outcome { statement, verdict });
        progress.add(1);
    }
    progress.finish();
    Ok(outcomes)
}

/// The same configuration with this server as its only shard.
fn only(config: &Config, shard: Shard) -> Config {
    Config {
        shards: vec![shard],
        ..config.clone()
    }
}

/// Both sides print alike, change nothing, and give up at the same time.
async fn prepare(client: &Client, limit: Duration) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "SET default_transaction_read_only = on; SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'; \
             SET extra_float_digits = 1; SET bytea_output = 'hex'; SET statement_timeout = {}",
            limit.as_millis()
        ))
        .await
}

/// Starts pgbraid in this process, with a password of its own, and waits until it answers.
async fn start(
    config: &Arc<Config>,
    stop: CancellationToken,
) -> Result<(Shard, tokio::task::JoinHandle<()>), VerifyError> {
    let fault = |e: &dyn std::fmt::Display| VerifyError::Start(e.to_string());
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|e| fault(&e))?
        .port();
    let password = Secret::new(format!("{:032x}", rand::random::<u128>()));
    let own = Config {
        server: Server {
            listen: format!("127.0.0.1:{port}"),
            http: String::new(),
            shutdown_grace: Duration::from_secs(1),
            ..config.server.clone()
        },
        users: vec![User::new(USER, password.clone())],
        // At the shards it works as their own user, whose privileges it needs for nothing but reading.
        auth: Auth {
            method: AuthMethod::Scram,
            shard_role: ShardRole::Service,
            query: None,
        },
        tls: Tls::default(),
        ..(**config).clone()
    };
    let shard = Shard {
        dbname: config.database.name.clone(),
        user: USER.to_owned(),
        password,
        ..server_url::parse(
            "pgbraid",
            &format!("host=127.0.0.1 port={port} user={USER}"),
        )
        .map_err(VerifyError::Url)?
    };
    let serving = tokio::spawn(async move {
        // Why it ended is told by the login that fails.
        let _ = crate::server::serve(Arc::new(own), stop).await;
    });
    let plane = ControlPlane::new(&only(config, shard.clone()));
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let ready = match plane.shards[0].client().await {
            Ok(client) => client
                .batch_execute("SELECT 1")
                .await
                .map_err(|e| plane.shards[0].connector.control_error(&e)),
            Err(error) => Err(error),
        };
        match ready {
            Ok(()) => return Ok((shard, serving)),
            Err(error) if Instant::now() > deadline || serving.is_finished() => {
                return Err(fault(&error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn judge(statement: &str, reference: &Client, braid: &Client) -> Verdict {
    let order = match fitness(statement) {
        Ok(order) => order,
        Err(why) => return Verdict::Skipped(why),
    };
    let (expected, given) = futures_util::join!(ask(reference, statement), ask(braid, statement));
    let verdict = verdict(&order, &expected, &given);
    if !matches!(verdict, Verdict::Different(_)) {
        return verdict;
    }
    // What one server answers in two ways cannot be compared.
    let again = ask(reference, statement).await;
    match self::verdict(&order, &expected, &again) {
        Verdict::Different(_) => {
            Verdict::Skipped("the reference gives another answer each time".to_owned())
        }
        _ => verdict,
    }
}

/// How the rows of a statement are to be compared, or why it is not run.
fn fitness(statement: &str) -> Result<Order, String> {
    let parsed = sql::parse(statement).map_err(|e| e.to_string())?;
    let [one] = parsed.as_slice() else {
        return Err(format!("there are {} statements in it", parsed.len()));
    };
    match sql::classify(one) {
        Kind::Select {
            writes: false,
            locks: false,
        } => Ok(Order::of(one)),
        _ => Err("it does not only read".to_owned()),
    }
}

fn verdict(order: &Order, expected: &Answer, given: &Answer) -> Verdict {
    let told = |state: &str, message: &str| format!("{state} {message}");
    match (expected, given) {
        (Answer::TooMany(why), _) | (_, Answer::TooMany(why)) => Verdict::Skipped(why.clone()),
        (Answer::Failed { state, .. }, Answer::Failed { state: other, .. }) if state == other => {
            Verdict::Same
        }
        (_, Answer::Failed { state, message }) if state == sqlstate::FEATURE_NOT_SUPPORTED => {
            Verdict::Refused(message.clone())
        }
        (Answer::Failed { state, message }, _) | (_, Answer::Failed { state, message })
            if state == sqlstate::QUERY_CANCELED =>
        {
            Verdict::Skipped(message.clone())
        }
        (Answer::Failed { state, message }, Answer::Rows(rows)) => Verdict::Different(format!(
            "the reference fails ({}), pgbraid gives {} rows",
            told(state, message),
            rows.rows.len()
        )),
        (Answer::Rows(rows), Answer::Failed { state, message }) => Verdict::Different(format!(
            "the reference gives {} rows, pgbraid fails ({})",
            rows.rows.len(),
            told(state, message)
        )),
        (
            Answer::Failed { state, message },
            Answer::Failed {
                state: other,
                message: theirs,
            },
        ) => Verdict::Different(format!(
            "the reference fails with {}, pgbraid with {}",
            told(state, message),
            told(other, theirs)
        )),
        (Answer::Rows(expected), Answer::Rows(given)) => {
            match compare::difference(order, expected, given) {
                None => Verdict::Same,
                Some(why) => Verdict::Different(why),
            }
        }
    }
}

/// The outcomes for people: everything but what is the same, then how many came to what.
pub fn text(outcomes: &[Outcome]) -> String {
    let mut out = String::new();
    let mut counts = [0; 4];
    for outcome in outcomes {
        let (n, word, why) = match &outcome.verdict {
            Verdict::Same => (0, "", ""),
            Verdict::Different(why) => (1, "DIFFERENT", why.as_str()),
            Verdict::Refused(why) => (2, "refused", why.as_str()),
            Verdict::Skipped(why) => (3, "skipped", why.as_str()),
        };
        counts[n] += 1;
        if n > 0 {
            let statement = statement_line(&outcome.statement);
            out.push_str(&format!("{word:<10} {statement}\n           {why}\n"));
        }
    }
    let [same, different, refused, skipped] = counts;
    out + &format!(
        "{} statements: {same} the same, {different} different, {refused} refused, {skipped} not comparable",
        outcomes.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_is_run() {
        assert!(fitness("select 1").is_ok());
        assert!(fitness("with x as (delete from t returning *) select * from x").is_err());
        assert!(fitness("select * from t for update").is_err());
        assert!(fitness("delete from t").is_err());
        assert!(fitness("select 1; drop table t").is_err());
    }

    #[test]
    fn the_same_error_is_the_same_answer() {
        let failed = |state: &str| Answer::Failed {
            state: state.to_owned(),
            message: "no".to_owned(),
        };
        let order = Order::default();
        assert_eq!(
            verdict(&order, &failed("22012"), &failed("22012")),
            Verdict::Same
        );
        assert!(matches!(
            verdict(&order, &failed("22012"), &failed("42P01")),
            Verdict::Different(_)
        ));
        assert!(matches!(
            verdict(&order, &failed("22012"), &failed("0A000")),
            Verdict::Refused(_)
        ));
    }
}
