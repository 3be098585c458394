//! `pgbraid doctor`: what differs between the shards, with the statement that mends it.

use std::path::Path;
use std::process::ExitCode;

use pgbraid::tools::doctor::{self, Options};

use super::{COULD_NOT_LOOK, Patience, Rows, configuration};

/// What the command line asks for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    patience: Patience,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the report: 0 when all is well, 1 with differences, 2 where something could not be looked at.
pub async fn run(path: &Path, arguments: Arguments) -> ExitCode {
    let Ok(config) = configuration(path) else {
        return COULD_NOT_LOOK.into();
    };
    let options = Options {
        extent: arguments.rows.extent(),
        limit: arguments.patience.limit(),
    };
    let report = match doctor::run(&config, options).await {
        Ok(report) => report,
        Err(error) => {
            eprintln!("pgbraid: the shards cannot be looked at: {error}");
            return COULD_NOT_LOOK.into();
        }
    };
    match serde_json::to_string_pretty(&report) {
        Ok(json) if arguments.json => println!("{json}"),
        _ => println!("{}", report.text()),
    }
    match (report.findings.is_empty(), report.not_looked_at.is_empty()) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => COULD_NOT_LOOK.into(),
        (true, true) => ExitCode::SUCCESS,
    }
}
