//! `pgbraid init`: writes a first configuration by looking at the shards.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use pgbraid::tools::init::{self, Options};

use super::{Patience, Rows, fail};

/// What the command line asks for.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// A shard, as libpq names servers (postgres://user:password@host:5432/database?sslmode=verify-full); once for each, in the order
    /// in which the rows are spread over them
    #[arg(long = "shard", value_name = "URL", required = true)]
    shards: Vec<String>,
    /// The file to write, which must not be there yet (default: standard output)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The name clients connect to (default: that of the first shard's database)
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    patience: Patience,
}

/// Writes the file and says what is left to do.
pub async fn run(arguments: Arguments) -> ExitCode {
    let options = Options {
        shards: arguments.shards,
        name: arguments.name,
        extent: arguments.rows.extent(),
        limit: arguments.patience.limit(),
    };
    let draft = match init::run(&options).await {
        Ok(draft) => draft,
        Err(error) => return fail(&error.to_string()),
    };
    let written = match &arguments.output {
        None => std::io::stdout().write_all(draft.text.as_bytes()),
        // Never over a file that is there.
        Some(path) => std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(draft.text.as_bytes())),
    };
    if let Err(error) = written {
        let place = arguments.output.unwrap_or_else(|| "standard output".into());
        return fail(&format!("{}: {error}", place.display()));
    }
    eprintln!(
        "{} tables declared, {} to decide (look for TO DECIDE). Before `pgbraid serve`, set {}.",
        draft.declared,
        draft.asked,
        draft.variables.join(", ")
    );
    ExitCode::SUCCESS
}
