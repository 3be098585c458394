//! `pgbraid health`: what HEALTHCHECK and exec probes run, so that an image needs no HTTP client.

use std::process::ExitCode;
use std::time::Duration;

use pgbraid::admin;

use super::fail;

/// Prints the answer; anything but status 200 is unhealthy.
pub async fn run(address: &str, path: &str, limit: Duration) -> ExitCode {
    match admin::get(address, path, limit).await {
        Ok(answer) if answer.status == 200 => {
            println!("{}", answer.body.trim_end());
            ExitCode::SUCCESS
        }
        Ok(answer) => fail(&format!(
            "{address}{path}: status {}\n{}",
            answer.status,
            answer.body.trim_end()
        )),
        Err(error) => fail(&format!("{address}{path}: {error}")),
    }
}
