//! The subcommands. Each prints for people and returns the exit status: 0 well, 1 not; those that compare say 2 where they could not
//! look.

pub mod check;
pub mod doctor;
pub mod health;
pub mod init;
mod notify;
pub mod plan;
pub mod serve;
mod state;
pub mod verify;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pgbraid::config::{self, Config, ConfigErrors};
use pgbraid::tools::doctor::Extent;

/// The exit status of a comparison that could not be made.
const COULD_NOT_LOOK: u8 = 2;

/// How long a tool waits for a server.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Patience {
    /// How long a statement may take on a server, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Patience {
    fn limit(self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// How much of the rows a tool looks at.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Rows {
    /// Look at every row, not only at a sample of large tables
    #[arg(long)]
    full: bool,
}

impl Rows {
    fn extent(self) -> Extent {
        match self.full {
            true => Extent::Full,
            false => Extent::Sample,
        }
    }
}

/// Says what went wrong, on standard error.
pub fn fail(message: &str) -> ExitCode {
    eprintln!("pgbraid: {message}");
    ExitCode::FAILURE
}

/// Loads the configuration; its mistakes have been printed when it comes to nothing.
pub fn configuration(path: &Path) -> Result<Arc<Config>, ExitCode> {
    load(path).map(Arc::new).map_err(|errors| {
        eprintln!("{errors}");
        ExitCode::FAILURE
    })
}

fn load(path: &Path) -> Result<Config, ConfigErrors> {
    // Variables whose names or values are no UTF-8 can be none of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    config::load(path, &environment)
}
