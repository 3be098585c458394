//! `pgbraid plan`: the plan of one statement, as EXPLAIN would print it, or how the statements of a file would run; nothing is run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use pgbraid::config::Config;
use pgbraid::sql;
use pgbraid::tools::plans::{self, Desk};

use super::{configuration, fail};

/// What the command line asks for.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The statement; parameters ($1 …) may stay open
    #[arg(required_unless_present = "files")]
    sql: Option<String>,
    /// A file of statements instead: SQL, or an export of pg_stat_statements as CSV (psql --csv) or JSON; may be given several times
    #[arg(long = "file", value_name = "FILE", conflicts_with = "sql")]
    files: Vec<PathBuf>,
    /// With --file: print one JSON list, plans included
    #[arg(long, requires = "files")]
    json: bool,
}

/// Prints the plan or plans, or why there are none.
pub async fn run(path: &Path, arguments: Arguments) -> ExitCode {
    let config = match configuration(path) {
        Ok(config) => config,
        Err(status) => return status,
    };
    match arguments.sql {
        Some(text) => one(&config, &text).await,
        None => all(&config, &arguments.files, arguments.json).await,
    }
}

async fn one(config: &Arc<Config>, text: &str) -> ExitCode {
    let statement = match sql::parse(text).as_deref() {
        Ok([statement]) => statement.text.clone(),
        Ok(several) => {
            return fail(&format!(
                "one statement is needed, there are {}",
                several.len()
            ));
        }
        Err(error) => return fail(&error.to_string()),
    };
    let mut desk = match Desk::open(config).await {
        Ok(desk) => desk,
        Err(why) => return fail(&why),
    };
    match desk.plan(&statement).await {
        Ok(planned) => match planned.explain(&statement, config.shards.len()) {
            Ok(lines) => {
                println!("{}", lines.trim_end());
                ExitCode::SUCCESS
            }
            Err(refusal) => fail(&plans::refusal_in_words(refusal, &statement)),
        },
        Err(error) => fail(&plans::in_words(&error)),
    }
}

/// Files are looked at as they are: what is refused in them is an answer, too.
async fn all(config: &Arc<Config>, files: &[PathBuf], json: bool) -> ExitCode {
    let given = match plans::read_files(files) {
        Ok(given) => given,
        Err(why) => return fail(&why),
    };
    let mut desk = match Desk::open(config).await {
        Ok(desk) => desk,
        Err(why) => return fail(&why),
    };
    let mut outcomes = Vec::with_capacity(given.len());
    for statement in &given {
        outcomes.push(desk.outcome(statement).await);
    }
    match serde_json::to_string_pretty(&outcomes) {
        Ok(text) if json => println!("{text}"),
        _ => println!("{}", plans::table(&outcomes)),
    }
    ExitCode::SUCCESS
}
