//! With one shard its cursors are those of the shard; a client that describes one by its name is told what the shard says.

use std::sync::Arc;

use super::super::control;
use super::super::extended::no_portal;
use super::super::prepare::CATALOG_SHARD;
use super::super::session::Session;
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::sql::{Kind, Strings};

impl Session {
    /// True where a statement about cursors is carried out by the session: with one shard, those about portals that its own client has
    /// bound, of which the shard has either none of that name or one that is read ahead.
    pub fn has_cursor(&self, kind: &Kind) -> bool {
        match kind {
            _ if !self.shared.is_one_shard() => true,
            Kind::Fetch { name, .. } | Kind::CloseCursor { name: Some(name) } => {
                !name.is_empty() && self.portals.get(name).is_some()
            }
            _ => false,
        }
    }

    /// How ordinary string literals are read: over several shards only one way is allowed.
    pub fn strings(&self) -> Strings {
        match self.reported.get("standard_conforming_strings") {
            Some(value) if value == "off" && self.shared.is_one_shard() => Strings::Escaped,
            _ => Strings::Standard,
        }
    }

    /// The columns of a portal that this session knows nothing of.
    ///
    /// # Errors
    /// 34000 where the shard does not know it either.
    pub async fn describe_shard_cursor(
        &mut self,
        name: &str,
    ) -> Result<Option<Arc<[ColumnDescription]>>, ServerError> {
        let held = self.shared.is_one_shard() && !name.is_empty();
        let conn = match held {
            true => self.connections.get(CATALOG_SHARD),
            false => None,
        };
        let conn = conn.ok_or_else(|| no_portal(name))?;
        // In the middle of a pipeline a Sync would commit what came before.
        let sync = !conn.unsynced();
        let described = control::describe_portal(conn, name, sync).await?;
        Ok(described.columns.map(Arc::from))
    }
}
