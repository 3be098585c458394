//! A plan in EXPLAIN's words: a tree with one step a line.

use std::fmt::{self, Display, Formatter};

use super::{
    Count, KeyCondition, OutputColumn, Plan, Planned, Refusal, Remote, SqlPart, Stage, Targets,
};

/// A plan or its part with the number of shards, to be printed.
pub struct Shown<'a, T> {
    what: &'a T,
    shards: usize,
}

impl Plan {
    /// The plan as EXPLAIN prints it for this many shards.
    pub fn display(&self, shards: usize) -> Shown<'_, Self> {
        Shown { what: self, shards }
    }

    /// One step without what is below it.
    fn line(&self, shards: usize) -> String {
        match self {
            Self::Remote(remote) => remote_line(remote, shards),
            Self::Gather { .. } => "Gather".into(),
            Self::GatherMerge { keys, .. } => {
                let keys: Vec<String> = keys.iter().map(key_text).collect();
                format!("GatherMerge: {}", keys.join(", "))
            }
            Self::Limit { count, offset, .. } => limit_line(*count, *offset),
            Self::FinalAggregate {
                groups,
                aggregates,
                output,
                ..
            } => {
                let column = |c: &OutputColumn| match c {
                    OutputColumn::Group(n) => format!("group {}", n + 1),
                    OutputColumn::Aggregate(n) => aggregates
                        .get(*n)
                        .map_or_else(String::new, |a| a.text.clone()),
                };
                let output: Vec<String> = output.iter().map(column).collect();
                match groups {
                    0 => format!("FinalAggregate: {}", output.join(", ")),
                    n => format!("FinalAggregate by {n} columns: {}", output.join(", ")),
                }
            }
            Self::Distinct { .. } => "Distinct".into(),
            Self::Combine { sql, stages, .. } => {
                let text: String = sql
                    .iter()
                    .map(|part| match part {
                        SqlPart::Text(text) => text.as_str(),
                        SqlPart::Stage(n) => stages.get(*n).map_or("?", |s| s.name.as_str()),
                    })
                    .collect();
                format!("Combine on merge session: {text}")
            }
        }
    }

    fn write(&self, f: &mut Formatter<'_>, shards: usize, indent: &str) -> fmt::Result {
        f.write_str(&self.line(shards))?;
        match self {
            Self::Remote(_) => Ok(()),
            Self::Gather { input }
            | Self::GatherMerge { input, .. }
            | Self::Limit { input, .. }
            | Self::FinalAggregate { input, .. }
            | Self::Distinct { input } => {
                write!(f, "\n{indent}└─ ")?;
                input.write(f, shards, &format!("{indent}   "))
            }
            Self::Combine { stages, .. } => {
                for (i, stage) in stages.iter().enumerate() {
                    let last = i + 1 == stages.len();
                    let (branch, below) = if last {
                        ("└─ ", "   ")
                    } else {
                        ("├─ ", "│  ")
                    };
                    write!(f, "\n{indent}{branch}")?;
                    write_stage(stage, stages, f, shards, &format!("{indent}{below}"))?;
                }
                Ok(())
            }
        }
    }
}

fn write_stage(
    stage: &Stage,
    all: &[Stage],
    f: &mut Formatter<'_>,
    shards: usize,
    indent: &str,
) -> fmt::Result {
    let columns: Vec<String> = stage
        .columns
        .iter()
        .map(|c| match &c.collation {
            Some(collation) => format!("{} {} COLLATE {collation}", c.name, c.type_name),
            None => format!("{} {}", c.name, c.type_name),
        })
        .collect();
    write!(f, "Stage {} ({})", stage.name, columns.join(", "))?;
    for (i, filter) in stage.filters.iter().enumerate() {
        let word = if i == 0 { " where" } else { " and" };
        let source = all.get(filter.stage);
        let column = source.and_then(|s| s.columns.get(filter.column));
        let names = source.zip(column).map(|(s, c)| (&*s.name, &*c.name));
        let (source, column) = names.unwrap_or(("?", "?"));
        write!(f, "{word} {} in {source}.{column}", filter.expression)?;
    }
    write!(f, "\n{indent}└─ ")?;
    stage.plan.write(f, shards, &format!("{indent}   "))
}

fn key_text(key: &super::SortKey) -> String {
    let nulls = match (key.descending, key.nulls_first) {
        (false, true) => " NULLS FIRST",
        (true, false) => " NULLS LAST",
        _ => "",
    };
    format!("{}{nulls}", key.text)
}

fn limit_line(count: Option<Count>, offset: Option<Count>) -> String {
    let text = |c: Count| match c {
        Count::Rows(n) => n.to_string(),
        Count::Parameter(p) => format!("${}", p + 1),
    };
    match (count, offset) {
        (Some(n), Some(m)) => format!("Limit: {} offset {}", text(n), text(m)),
        (Some(n), None) => format!("Limit: {}", text(n)),
        (None, Some(m)) => format!("Offset: {}", text(m)),
        (None, None) => "Limit: all".into(),
    }
}

fn remote_line(remote: &Remote, shards: usize) -> String {
    let mut line = format!(
        "Remote on {}: {}",
        remote.targets.display(shards),
        remote.sql
    );
    if let Some(first) = &remote.first_sql {
        line.push_str(&format!(" (first shard: {first})"));
    }
    line
}

impl Targets {
    /// The targets in words for this many shards.
    pub fn display(&self, shards: usize) -> Shown<'_, Self> {
        Shown { what: self, shards }
    }
}

impl Display for Shown<'_, Plan> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.what.write(f, self.shards, "")
    }
}

impl Display for Shown<'_, Targets> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shards = self.shards;
        match self.what {
            Targets::Any => write!(f, "any shard"),
            Targets::Catalog => write!(f, "the catalog shard"),
            Targets::Shard(shard) => write!(f, "shard {}", shard.0 + 1),
            Targets::All => write!(f, "{shards} of {shards} shards"),
            Targets::Keyed(condition) => match condition.constant_shards() {
                _ if condition.has_parameter() => write!(f, "the shards of its parameters"),
                None => write!(f, "{shards} of {shards} shards"),
                // A step still runs when no shard can hold a row.
                Some(set) => write!(f, "{} of {shards} shards", set.len().max(1)),
            },
        }
    }
}

impl Planned {
    /// What EXPLAIN prints for this many shards: one step where everything is on one shard, else the plan.
    pub fn explain(&self, sql: &str, shards: usize) -> Result<String, &Refusal> {
        let one_step = |on: &dyn Display| Ok(format!("Remote on {on}: {sql}"));
        match &self.route {
            Targets::Any | Targets::Catalog | Targets::Shard(_) => {
                one_step(&self.route.display(shards))
            }
            Targets::Keyed(c) if is_routed(c) || self.is_keyed_write(c) => {
                one_step(&self.route.display(shards))
            }
            _ => match &self.fan_out {
                Ok(plan) => Ok(match &self.lazy {
                    Some(lazy) => format!(
                        "{}\nAfter an error of a value:\n{}",
                        plan.display(shards),
                        lazy.display(shards)
                    ),
                    None => plan.display(shards).to_string(),
                }),
                Err(why) => Err(why),
            },
        }
    }

    /// A change whose parameters say which shard it is.
    fn is_keyed_write(&self, condition: &KeyCondition) -> bool {
        self.write.is_some() && condition.has_parameter() && condition.constant_shards().is_none()
    }
}

/// True when the constants leave at most one shard.
fn is_routed(condition: &KeyCondition) -> bool {
    condition
        .constant_shards()
        .is_some_and(|set| set.len() <= 1)
}
