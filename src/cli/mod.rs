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

use pgbraid::config::{self, Config, ConfigErrors};

/// The exit status of a comparison that could not be made.
const COULD_NOT_LOOK: u8 = 2;

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
