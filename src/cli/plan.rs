//! `pgbraid plan`: the plan of one statement, as EXPLAIN would print it, with nothing run.

use std::path::Path;
use std::process::ExitCode;

/// Prints the plan, or why there is none.
pub async fn run(_path: &Path, _sql: &str) -> ExitCode {
    unimplemented!()
}
