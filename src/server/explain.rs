//! EXPLAIN over several shards: our plan in PostgreSQL's words, and the shards' own plans below it.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::BufMut;

use super::control;
use super::prepare::refused;
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::{Ended, Session};
use crate::executor::{Bound, Execution, Parameters, Step};
use crate::metrics::Reason;
use crate::plan::{Plan, Planned, Remote, ShardId};
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
            Kind::Show { name } => Ok(self.own_shown(name).map(|value| vec![value])),
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
                Reason::Explain,
                "EXPLAIN over several shards prints text only",
                "Leave FORMAT out.",
            )
            .into());
        }
        let inner = self.prepare(inner.to_owned(), &[]).await?;
        if !inner.parameter_types.is_empty() {
            return Err(unsupported(
                Reason::Explain,
                "EXPLAIN of a statement with parameters is not supported",
                "Put the values into the statement.",
            )
            .into());
        }
        if options.analyze {
            self.tie(&inner);
        }
        let columns = inner.columns.clone().unwrap_or_else(|| Arc::from([]));
        let bound = self.bound(Arc::new(Parameters::default()), columns, 0, true)?;
        let count = self.shared.shard_names.len();
        let Some(planned) = &inner.planned else {
            return Err(unsupported(
                Reason::Explain,
                "this statement cannot be explained",
                "EXPLAIN takes a SELECT.",
            )
            .into());
        };
        let shard = self.explained_shard(planned, options, &bound)?;
        if let Some(shard) = shard {
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
        for (stage, remote) in remotes(plan) {
            let shards = execution.shards().to_vec();
            let plans = self.remote_plans(remote, shards, options).await?;
            lines.extend(step_lines(stage, plans, options, &self.shared.shard_names));
        }
        if options.analyze {
            self.analyze(&mut execution, &mut lines).await?;
        }
        Ok(lines)
    }

    /// The one shard that runs a statement, if it is only one.
    fn explained_shard(
        &self,
        planned: &Planned,
        options: &ExplainOptions,
        bound: &Bound,
    ) -> Result<Option<ShardId>, ServerError> {
        let count = self.shared.shard_names.len();
        match &planned.write {
            None => Ok(Execution::single_shard(&planned.route, bound, count)),
            Some(_) if options.analyze => Err(unsupported(
                Reason::Explain,
                "EXPLAIN ANALYZE of a change is not supported over several shards",
                "EXPLAIN without ANALYZE shows the shard's plan.",
            )),
            Some(write) => Ok(self.written_shard(planned, write, bound).ok()),
        }
    }

    /// Each shard's own plan of a step, where values of other steps that it waits for are left out.
    async fn remote_plans(
        &mut self,
        remote: &Remote,
        shards: Vec<ShardId>,
        options: &ExplainOptions,
    ) -> Result<Vec<(ShardId, Vec<String>)>, ServerError> {
        let mut plans = Vec::with_capacity(shards.len());
        for shard in shards {
            let timestamp = !remote.extra.is_empty();
            let plan = self.shard_plan(shard, &remote.sql, options, timestamp);
            plans.push((shard, plan.await?));
        }
        Ok(plans)
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
            let of = match s.step {
                Step::Rows => String::new(),
                Step::Stage(n) => format!(" for stage_{}", n + 1),
                Step::Merge => " as merge session".to_owned(),
            };
            let mut line = format!(
                "Shard {}{of}: {} rows, {} bytes",
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

/// The steps of a plan that run on shards, with the names of the stages they fill.
fn remotes(plan: &Plan) -> Vec<(Option<&str>, &Remote)> {
    match plan {
        Plan::Remote(remote) => vec![(None, remote)],
        Plan::Gather { input }
        | Plan::GatherMerge { input, .. }
        | Plan::Limit { input, .. }
        | Plan::FinalAggregate { input, .. }
        | Plan::Distinct { input } => remotes(input),
        Plan::Combine { stages, .. } => stages
            .iter()
            .flat_map(|s| {
                remotes(&s.plan)
                    .into_iter()
                    .map(|(_, r)| (Some(&*s.name), r))
            })
            .collect(),
    }
}

/// The shards' estimates of a step added up, and the plan of the first one, of all with VERBOSE.
fn step_lines(
    stage: Option<&str>,
    plans: Vec<(ShardId, Vec<String>)>,
    options: &ExplainOptions,
    names: &[Arc<str>],
) -> Vec<String> {
    let of = stage.map_or_else(String::new, |s| format!(" of {s}"));
    let mut lines = Vec::new();
    let estimates = plans
        .iter()
        .map(|(_, plan)| plan.first().and_then(|l| estimate(l)));
    if let Some(all) = estimates.collect::<Option<Vec<_>>>() {
        let rows: f64 = all.iter().map(|(rows, _)| rows).sum();
        let bytes: f64 = all.iter().map(|(rows, width)| rows * width).sum();
        lines.push(format!("Estimate{of}: {rows} rows, {bytes} bytes"));
    }
    let shown = if options.verbose { plans.len() } else { 1 };
    for (shard, plan) in plans.into_iter().take(shown) {
        lines.push(format!("Plan{of} on {}:", names[shard.0 as usize]));
        lines.extend(plan);
    }
    lines
}

/// Rows, and bytes a row, that the first line of a shard's plan expects; `None` without COSTS.
fn estimate(line: &str) -> Option<(f64, f64)> {
    let number = |name: &str| {
        let rest = line.split_once(name)?.1;
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    Some((number(" rows=")?, number(" width=")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_read_from_a_plan() {
        let line = "  Seq Scan on t  (cost=0.00..11.77 rows=677 width=12)";
        assert_eq!(estimate(line), Some((677.0, 12.0)));
        assert_eq!(estimate("  Seq Scan on t"), None);
    }
}
