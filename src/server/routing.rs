//! Where statements go, as the client says it (`/* pgbraid shard=s1 */`, `pgbraid.shard`) or as it wants to be told
//! (`pgbraid.explain_routing`).
//!
//! A SELECT that is sent to a shard by hand runs there whole and unchanged: its answer is that shard's alone. Nobody but who asks for it
//! gets that, and nothing can be changed that way: a row on a shard that its key does not lead to would never be found again.

use std::fmt::Write as _;
use std::sync::Arc;

use super::own_settings::{Own, available};
use super::prepare::CATALOG_SHARD;
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::Session;
use crate::executor::Execution;
use crate::metrics::{QueryKind, Reason};
use crate::plan::{Planned, Refusal, ShardId, Targets};
use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::{self, Kind};

impl Session {
    /// The shard that a comment before the statement names, or else the session's setting.
    ///
    /// # Errors
    /// 22023 for a shard that there is none of, 42601 for a comment that says something else; 0A000 where a comment stands before what
    /// cannot be sent anywhere by hand.
    pub(super) fn chosen_shard(
        &self,
        sql: &str,
        kind: &Kind,
    ) -> Result<Option<ShardId>, ServerError> {
        let named = sql::shard_by_comment(sql)
            .map_err(|error| ServerError::new(error.sqlstate, error.message))?;
        let by_comment = named.map(|name| {
            self.shard_named(name).ok_or_else(|| {
                let message = format!("there is no shard \"{name}\"");
                ServerError::new(sqlstate::INVALID_PARAMETER_VALUE, message)
                    .with_hint(format!("{}.", available(&self.shared.shard_names)))
            })
        });
        let by_comment = by_comment.transpose()?;
        if self.shared.is_one_shard() {
            return Ok(None);
        }
        match kind {
            Kind::Select { .. } | Kind::Insert | Kind::Update | Kind::Delete => {
                Ok(by_comment.or_else(|| self.shard_by_setting()))
            }
            _ if by_comment.is_some() && reads_or_changes(kind) => Err(unsupported(
                Reason::Setting,
                "a comment sends to a shard only the SELECT that it stands before",
                "Use SET pgbraid.shard.",
            )),
            _ => Ok(None),
        }
    }

    /// Sends a planned SELECT to the shard that has been chosen for it. A change keeps to where its rows belong.
    ///
    /// # Errors
    /// 0A000 for one that needs the session's own connection to another shard.
    pub(super) fn send_to_chosen(
        &self,
        prepared: &Prepared,
        planned: &mut Planned,
    ) -> Result<(), ServerError> {
        let Some(shard) = prepared.chosen.filter(|_| planned.write.is_none()) else {
            return Ok(());
        };
        if prepared.at_home && shard != CATALOG_SHARD {
            let home = &self.shared.shard_names[CATALOG_SHARD.0 as usize];
            return Err(unsupported(
                Reason::Temporary,
                "temporary tables, advisory locks and notifications cannot be sent to another shard by hand",
                &format!("The session has them on shard {home}."),
            ));
        }
        planned.route = Targets::Shard(shard);
        planned.fan_out = Err(Refusal {
            reason: Reason::Setting,
            message: "sent to one shard by hand".into(),
            hint: String::new(),
            location: None,
        });
        planned.lazy = None;
        Ok(())
    }

    /// Refuses a change on another shard than its rows belong to.
    ///
    /// # Errors
    /// 0A000.
    pub(super) fn check_chosen(
        &self,
        prepared: &Prepared,
        shard: ShardId,
    ) -> Result<(), ServerError> {
        match prepared.chosen {
            Some(chosen) if chosen != shard => {
                let name = |shard: ShardId| &self.shared.shard_names[shard.0 as usize];
                let message = format!(
                    "a change of rows that belong on shard {} cannot be sent to shard {} by hand",
                    name(shard),
                    name(chosen)
                );
                let hint = "Leave the choice to pgbraid: RESET pgbraid.shard, or no comment.";
                Err(unsupported(Reason::Write, message, hint))
            }
            _ => Ok(()),
        }
    }

    /// Tells the client where a statement goes, where it wants to know.
    pub(super) fn tell_routing(
        &mut self,
        prepared: &Prepared,
        kind: QueryKind,
        execution: &Execution,
    ) {
        if !self.is_on(Own::ExplainRouting) || self.hears_no(&["warning", "error"]) {
            return;
        }
        let plan = prepared
            .planned
            .as_ref()
            .and_then(|p| p.fan_out.as_ref().ok());
        let text = self.routing_text(prepared, kind, execution);
        let notice = ServerError::new(sqlstate::SUCCESSFUL_COMPLETION, text)
            .with(b'S', "NOTICE")
            .with(b'V', "NOTICE");
        let notice = match plan.filter(|_| kind != QueryKind::Routed) {
            Some(plan) => {
                let shown = plan.display(self.shared.shard_names.len()).to_string();
                notice.with_detail(shown.trim_end())
            }
            None => notice,
        };
        super::encoding::send_notice(&mut self.client, &notice);
    }

    fn routing_text(
        &mut self,
        prepared: &Prepared,
        kind: QueryKind,
        execution: &Execution,
    ) -> String {
        let names = self.shared.shard_names.clone();
        let list = listed(execution.shards(), &names);
        match kind {
            QueryKind::Routed => {
                let by_hand = match prepared.chosen {
                    Some(_) => " by hand",
                    None => "",
                };
                format!("routed{by_hand} to {list}, the text unchanged")
            }
            QueryKind::Staged | QueryKind::Gathered => {
                let mut text = match kind {
                    QueryKind::Gathered => format!("gathered from {list}"),
                    _ => format!("staged on {list}"),
                };
                if execution.needs_merge() {
                    let merge = self.choose_merge_shard(execution.missing());
                    let name = &names[merge.0 as usize];
                    // Writing to a String has no failure to report.
                    let _ = write!(text, ", combined on a merge session of {name}");
                }
                text
            }
            _ => format!("pushed down to {list}, put together in pgbraid"),
        }
    }

    /// Which shard's merge session the statement in hand will use.
    fn choose_merge_shard(&mut self, missing: &[ShardId]) -> ShardId {
        let merge = self.shared.next_merge_shard(missing);
        self.steering.merge = Some(merge);
        merge
    }

    /// True where the client has asked for messages of these levels and above only (`client_min_messages`).
    pub(super) fn hears_no(&self, levels: &[&str]) -> bool {
        let name = "client_min_messages";
        let local = self.transaction.local(name);
        let level = local.or_else(|| self.settings.get(name));
        level.is_some_and(|level| levels.iter().any(|l| level.eq_ignore_ascii_case(l)))
    }
}

/// `shard s1` or `shards s1, s2`
pub(super) fn listed(shards: &[ShardId], names: &[Arc<str>]) -> String {
    let list: Vec<&str> = shards.iter().map(|s| &*names[s.0 as usize]).collect();
    let word = match list.len() {
        1 => "shard",
        _ => "shards",
    };
    format!("{word} {}", list.join(", "))
}

/// Kinds that a comment could have been meant for. Those of the session itself have no shard to go to.
fn reads_or_changes(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Merge
            | Kind::Explain { .. }
            | Kind::Prepare { .. }
            | Kind::Execute { .. }
            | Kind::DeclareCursor { .. }
            | Kind::CopyTo(_)
            | Kind::CopyIn
            | Kind::Ddl
            | Kind::Do
            | Kind::Other
    )
}
