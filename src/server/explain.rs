//! EXPLAIN over several shards: our plan in PostgreSQL's words, and the shards' own plans below it.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::BufMut;

use super::control;
use super::prepare::refused;
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::{Ended, Session};
use crate::executor::{Execution, Parameters};
use crate::plan::{Plan, Remote, ShardId};
use crate::protocol::error::ServerError;
use crate::protocol::messages;
use crate::sql::{ExplainFormat, ExplainOptions, Kind};

impl Session {
    /// The lines of an EXPLAIN; `None` for other statements and where one shard explains by itself.
    ///
    /// # Errors
    /// The refusal of the statement that is explained.
    pub async fn explain(&mut self, prepared: &Prepared) -> Result<Option<Vec<String>>, Ended> {
        match &prepared.kind {
            Kind::Explain { options, inner } if !self.shared.is_one_shard() => {
                Box::pin(self.explain_plan(options, inner)).await.map(Some)
            }
            // On shards it is always UTF8.
            Kind::Show { name } if name.eq_ignore_ascii_case("client_encoding") => {
                let encoding = self.settings.get(name).unwrap_or("UTF8");
                Ok(Some(vec![encoding.to_owned()]))
            }
            _ => Ok(None),
        }
    }

    async fn explain_plan(
        &mut self,
        options: &ExplainOptions,
        inner: &str,
    ) -> Result<Vec<String>, Ended> {
        if options.format != ExplainFormat::Text {
            return Err(unsupported(
                "EXPLAIN over several shards prints text only",
                "Leave FORMAT out.",
            )
            .into());
        }
        let inner = self.prepare(inner.to_owned(), &[]).await?;
        if !inner.parameter_types.is_empty() {
            return Err(unsupported(
                "EXPLAIN of a statement with parameters is not supported",
                "Put the values into the statement.",
            )
            .into());
        }
        let columns = inner.columns.clone().unwrap_or_else(|| Arc::from([]));
        let bound = self.bound(Arc::new(Parameters::default()), columns, 0, true)?;
        let count = self.shared.config.shards.len();
        let Some(planned) = &inner.planned else {
            return Err(unsupported(
                "this statement cannot be explained",
                "EXPLAIN takes a SELECT.",
            )
            .into());
        };
        if let Some(shard) = Execution::single_shard(&planned.route, &bound, count) {
            let mut lines = vec![format!(
                "Remote on 1 of {count} shards ({})",
                self.shared.shard_names[shard.0 as usize]
            )];
            let mut execution = Execution::routed(shard, inner.sql.clone(), bound);
            lines.extend(self.shard_plan(shard, &inner.sql, options, false).await?);
            if options.analyze {
                self.analyze(&mut execution, &mut lines).await?;
            }
            return Ok(lines);
        }
        let plan = planned
            .fan_out
            .as_ref()
            .map_err(|r| refused(r, &inner.sql))?;
        let mut execution = Execution::new(plan, bound, count)?;
        let mut lines: Vec<String> = plan
            .display(count)
            .to_string()
            .lines()
            .map(str::to_owned)
            .collect();
        let mut remotes = Vec::new();
        collect_remotes(plan, &mut remotes);
        for remote in remotes {
            self.remote_plans(remote, execution.shards().to_vec(), options, &mut lines)
                .await?;
        }
        if options.analyze {
            self.analyze(&mut execution, &mut lines).await?;
        }
        Ok(lines)
    }

    /// The plan of the first shard a step runs on, of all with VERBOSE.
    async fn remote_plans(
        &mut self,
        remote: &Remote,
        shards: Vec<ShardId>,
        options: &ExplainOptions,
        lines: &mut Vec<String>,
    ) -> Result<(), ServerError> {
        let shown = if options.verbose { shards.len() } else { 1 };
        for shard in shards.into_iter().take(shown) {
            lines.push(format!(
                "Plan on {}:",
                self.shared.shard_names[shard.0 as usize]
            ));
            lines.extend(
                self.shard_plan(shard, &remote.sql, options, !remote.extra.is_empty())
                    .await?,
            );
        }
        Ok(())
    }

    /// A shard's own EXPLAIN of a text, indented. Never with ANALYZE: the statement would run twice.
    async fn shard_plan(
        &mut self,
        shard: ShardId,
        sql: &str,
        options: &ExplainOptions,
        timestamp: bool,
    ) -> Result<Vec<String>, ServerError> {
        self.join_and_wait(&[shard]).await?;
        let Some(conn) = self.connections.get(shard) else {
            return Ok(Vec::new());
        };
        let list: Vec<String> = options
            .all
            .iter()
            .filter(|(name, _)| matches!(name.as_str(), "verbose" | "costs" | "settings"))
            .map(|(name, value)| {
                value
                    .as_ref()
                    .map_or_else(|| name.clone(), |v| format!("{name} {v}"))
            })
            .collect();
        let head = if list.is_empty() {
            String::new()
        } else {
            format!(" ({})", list.join(", "))
        };
        const TIMESTAMPTZ: u32 = 1184;
        let types: &[u32] = if timestamp { &[TIMESTAMPTZ] } else { &[] };
        let rows = control::ask(conn, &format!("EXPLAIN{head} {sql}"), types).await?;
        Ok(rows
            .into_iter()
            .flatten()
            .flatten()
            .map(|line| format!("  {line}"))
            .collect())
    }

    /// Runs the statement, throws its rows away, and adds what each shard did.
    async fn analyze(
        &mut self,
        execution: &mut Execution,
        lines: &mut Vec<String>,
    ) -> Result<(), Ended> {
        let started = std::time::Instant::now();
        if let Err(error) = self.start(execution).await {
            self.recover().await;
            return Err(error.into());
        }
        let rows = self.discard(execution).await?;
        self.end_snapshot().await?;
        for s in execution.statistics() {
            let mut line = format!(
                "Shard {}: {} rows, {} bytes",
                self.shared.shard_names[s.shard.0 as usize], s.rows, s.bytes
            );
            let since = |at: Option<std::time::Instant>| {
                at.map(|t| t.duration_since(started).as_secs_f64() * 1e3)
            };
            if let (Some(first), Some(last)) = (since(s.first_row), since(s.last_row)) {
                // Writing to a String has no failure to report.
                let _ = write!(line, ", first row {first:.3} ms, last row {last:.3} ms");
            }
            lines.push(line);
        }
        lines.push(format!("Rows: {rows}"));
        lines.push(format!(
            "Execution Time: {:.3} ms",
            started.elapsed().as_secs_f64() * 1e3
        ));
        Ok(())
    }

    /// Sends lines as the rows of one text column.
    pub fn send_lines(&mut self, prepared: &Prepared, lines: Vec<String>) -> Result<(), Ended> {
        if let Some(columns) = &prepared.columns {
            self.describe_rows(columns)?;
        }
        self.send_line_rows(prepared, lines);
        Ok(())
    }

    /// Only the rows and the tag: the extended protocol has described them already.
    pub fn send_line_rows(&mut self, prepared: &Prepared, lines: Vec<String>) {
        let encoding = self.client.encoding;
        for line in &lines {
            let line = match encoding {
                Some(encoding) => encoding.encode_lossy(line.as_bytes()),
                None => line.as_bytes().to_vec(),
            };
            messages::frame(b'D', self.client.out(), |out| {
                out.put_i16(1);
                out.put_i32(line.len() as i32);
                out.put_slice(&line);
            });
        }
        let tag = match prepared.kind {
            Kind::Show { .. } => "SHOW",
            _ => "EXPLAIN",
        };
        messages::command_complete(tag, self.client.out());
    }
}

fn collect_remotes<'a>(plan: &'a Plan, out: &mut Vec<&'a Remote>) {
    match plan {
        Plan::Remote(remote) => out.push(remote),
        Plan::Gather { input }
        | Plan::GatherMerge { input, .. }
        | Plan::Limit { input, .. }
        | Plan::FinalAggregate { input, .. }
        | Plan::Distinct { input } => collect_remotes(input, out),
        Plan::Combine { stages, .. } => stages.iter().for_each(|s| collect_remotes(&s.plan, out)),
    }
}
