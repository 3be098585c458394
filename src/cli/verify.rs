//! `pgbraid verify`: the same statements on a reference server and through pgbraid.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pgbraid::tools::plans;
use pgbraid::tools::verify::{self, Options, Verdict};

use super::{COULD_NOT_LOOK, Patience, configuration};

/// What the command line asks for.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The server that holds all rows, as libpq names servers (postgres://user:password@host:5432/database)
    #[arg(long, value_name = "URL")]
    reference: String,
    /// A pgbraid that runs, named in the same way (default: one is started for this, on loopback)
    #[arg(long, value_name = "URL")]
    via: Option<String>,
    /// A file of statements: SQL, or an export of pg_stat_statements; may be given several times (default: statements are made from the
    /// tables)
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How many statements are made from the tables
    #[arg(long, default_value_t = 200)]
    sample: usize,
    #[command(flatten)]
    patience: Patience,
    /// Print one JSON list
    #[arg(long)]
    json: bool,
}

/// Prints what differs: 0 when nothing does, 1 when something does, 2 where nothing could be compared.
pub async fn run(path: &Path, arguments: Arguments) -> ExitCode {
    let Ok(config) = configuration(path) else {
        return COULD_NOT_LOOK.into();
    };
    let statements: Vec<String> = match plans::read_files(&arguments.files) {
        Ok(given) => given.into_iter().map(|g| g.text).collect(),
        Err(why) => return could_not(&why),
    };
    if statements.is_empty() && !arguments.files.is_empty() {
        return could_not("there is no statement in the files");
    }
    let options = Options {
        reference: arguments.reference,
        via: arguments.via,
        statements,
        sample: arguments.sample,
        limit: arguments.patience.limit(),
    };
    let outcomes = match verify::run(&config, &options).await {
        Ok(outcomes) => outcomes,
        Err(error) => return could_not(&error.to_string()),
    };
    match serde_json::to_string_pretty(&outcomes) {
        Ok(json) if arguments.json => println!("{json}"),
        _ => println!("{}", verify::text(&outcomes)),
    }
    let count = |f: fn(&Verdict) -> bool| outcomes.iter().filter(|o| f(&o.verdict)).count();
    match (
        count(|v| matches!(v, Verdict::Different(_))),
        count(|v| *v == Verdict::Same),
    ) {
        (0, 0) => COULD_NOT_LOOK.into(),
        (0, _) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn could_not(why: &str) -> ExitCode {
    eprintln!("pgbraid: {why}");
    COULD_NOT_LOOK.into()
}
