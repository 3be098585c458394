//! Commands that change something.

use super::command::Command;
use super::{Console, settings};
use crate::plan::ShardId;
use crate::protocol::error::ServerError;
use crate::registry::SessionEntry;

impl Console {
    /// Carries out what is no SHOW, and writes it into the log.
    pub(super) async fn steer(
        &self,
        command: &Command,
        by: &SessionEntry,
    ) -> Result<(), ServerError> {
        let served = &self.served;
        tracing::info!(user = %by.user, peer = %by.client.peer, ?command, "console");
        match command {
            Command::Set { name, value } => settings::set(&served.config(), name, value)?,
            Command::Reload => crate::admin::reload().notify_one(),
            Command::Pause(shard) => {
                let shards = self.shards(shard.as_deref())?;
                if !served.roles.pause(&shards).await {
                    let message =
                        "the pause was ended by RESUME before all connections had come back";
                    return Err(ServerError::new("55000", message));
                }
            }
            Command::Resume(shard) => served.roles.resume(&self.shards(shard.as_deref())?),
            Command::Reconnect(shard) => {
                let shards = self.shards(shard.as_deref())?;
                served.roles.reconnect(&shards);
            }
            Command::Kill(id) => match served.registry.session(*id) {
                Some(session) => session.end(),
                None => {
                    let message = format!("there is no client with id {id}");
                    return Err(
                        ServerError::new("42704", message).with_hint("SHOW CLIENTS has the ids.")
                    );
                }
            },
            Command::Shutdown {
                wait_for_clients: true,
            } => served.closing.cancel(),
            Command::Shutdown {
                wait_for_clients: false,
            } => served.shutdown.cancel(),
            Command::Show { .. } => {}
        }
        Ok(())
    }

    fn shards(&self, name: Option<&str>) -> Result<Vec<ShardId>, ServerError> {
        let config = self.served.config();
        let all = config.shards.iter().enumerate();
        // The configuration allows no more shards than fit.
        let chosen = all.filter(|(_, s)| name.is_none_or(|name| s.name == name));
        let chosen: Vec<_> = chosen.map(|(n, _)| ShardId(n as u16)).collect();
        match (chosen.is_empty(), name) {
            (true, Some(name)) => {
                let message = format!("there is no shard \"{name}\"");
                Err(ServerError::new("42704", message).with_hint("SHOW SHARDS has the names."))
            }
            _ => Ok(chosen),
        }
    }
}
