//! FETCH and MOVE of a portal that a Bind has made, which goes forward only: drivers pass over rows of one so.

use super::super::portals::Portal;
use super::super::run::{Outcome, unsupported};
use super::super::session::{Ended, Session};
use super::fetch::Motion;
use super::kept::Kept;
use super::output::{Keeping, Output, Sink};
use super::place::ALL;
use super::{forward_only, no_cursor};
use crate::metrics::Reason;
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;
use crate::sql::{FetchDirection, Kind};

impl Session {
    /// As `fetch`, of a portal of the extended protocol.
    pub(super) async fn fetch_from_portal(
        &mut self,
        name: &str,
        motion: Motion,
        columns: Option<&[ColumnDescription]>,
        output: &mut Output,
    ) -> Result<u64, Ended> {
        let forward = match motion.direction {
            FetchDirection::Forward => motion.count > 0,
            FetchDirection::Backward => motion.count < 0,
            FetchDirection::Absolute | FetchDirection::Relative => false,
        };
        let turns = matches!(
            motion.direction,
            FetchDirection::Forward | FetchDirection::Backward
        );
        if turns && !forward && motion.count != 0 {
            return Err(forward_only().into());
        }
        let mut portal = self.portals.take(name).ok_or_else(|| no_cursor(name))?;
        let ordinary = matches!(portal.prepared.kind, Kind::Select { writes: false, .. })
            && portal.prepared.set_config.is_empty();
        let formats = |c: Option<&[ColumnDescription]>| -> Option<Vec<i16>> {
            c.map(|c| c.iter().map(|c| c.format).collect())
        };
        let same_form = motion.is_move || formats(columns) == formats(portal.columns.as_deref());
        if !forward || !ordinary || !same_form {
            self.portals.put(name, portal);
            return Err(unsupported(
                Reason::Cursor,
                "this FETCH or MOVE of a portal of the extended protocol is not supported over several shards",
                "Go forward and ask for the rows in the form they are bound in, or DECLARE a cursor.",
            )
            .into());
        }
        let count = motion.count.unsigned_abs();
        let done = self.pass_portal(&mut portal, count, output).await;
        if done.is_ok() {
            self.portals.put(name, portal);
        }
        done
    }

    async fn pass_portal(
        &mut self,
        portal: &mut Portal,
        count: u64,
        output: &mut Output,
    ) -> Result<u64, Ended> {
        if portal.done {
            return Ok(0);
        }
        let max_rows = if count == ALL { 0 } else { count };
        if portal.running.is_none() {
            self.start_portal(portal, max_rows, false).await?;
        }
        let Some(execution) = &mut portal.running else {
            return Ok(0);
        };
        if let Some(lease) = portal.merge.take() {
            self.connections.put_merge(lease);
        }
        portal.batched = true;
        self.sink = Some(Sink {
            output: std::mem::replace(output, Output::Nothing),
            kept: Kept::default(),
            keeping: Keeping::Nothing,
            bytes_max: self.shared.config().merge.memory_max,
            rows: 0,
        });
        let outcome = self.stream(execution, max_rows).await;
        let mut rows = 0;
        if let Some(sink) = self.sink.take() {
            rows = sink.rows;
            *output = sink.output;
        }
        match outcome? {
            Outcome::Suspended => {
                portal.merge = self.connections.take_merge();
                Box::pin(self.end_snapshot()).await?;
            }
            Outcome::Complete { .. } => {
                portal.done = true;
                portal.running = None;
                let prepared = portal.prepared.clone();
                self.after_statement(&prepared).await?;
            }
            other => {
                let message = format!("a portal has come to {other:?}");
                return Err(ServerError::new(sqlstate::INTERNAL_ERROR, message).into());
            }
        }
        Ok(rows)
    }
}
