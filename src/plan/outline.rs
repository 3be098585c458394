//! A plan as operators see it: the same tree as EXPLAIN's, without the literals that its texts and counts hold.

use super::{OutputColumn, Plan, Remote, SortKey, SqlPart, Stage};
use crate::registry::{Outline, PlanStep};
use crate::sql::without_literals;

impl Outline for Plan {
    fn outline(&self, shards: usize) -> PlanStep {
        match self {
            Self::Remote(remote) => outline_of_remote(remote, shards),
            Self::Gather { input } => over(input, shards, "Gather", String::new()),
            Self::GatherMerge { input, keys } => {
                over(input, shards, "GatherMerge by", list(keys.iter().map(key)))
            }
            // The counts are literals, or parameters.
            Self::Limit { input, .. } => over(input, shards, "Limit", String::new()),
            Self::FinalAggregate {
                input,
                groups,
                aggregates,
                output,
                ..
            } => {
                let computed = output.iter().filter_map(|column| match column {
                    OutputColumn::Aggregate(n) => aggregates.get(*n),
                    OutputColumn::Group(_) => None,
                });
                let text = list(computed.map(|a| without_literals(&a.text)));
                let step = match groups {
                    0 => "FinalAggregate".to_owned(),
                    1 => "FinalAggregate by 1 column".to_owned(),
                    n => format!("FinalAggregate by {n} columns"),
                };
                over(input, shards, &step, text)
            }
            Self::Distinct { input } => over(input, shards, "Distinct", String::new()),
            Self::Combine { sql, stages, .. } => PlanStep {
                step: "Combine on merge session".into(),
                text: without_literals(&combined(sql, stages)),
                inputs: stages.iter().map(|s| of_stage(s, stages, shards)).collect(),
            },
        }
    }
}

fn over(input: &Plan, shards: usize, step: &str, text: String) -> PlanStep {
    PlanStep {
        step: step.to_owned(),
        text,
        inputs: vec![input.outline(shards)],
    }
}

fn outline_of_remote(remote: &Remote, shards: usize) -> PlanStep {
    let mut text = without_literals(&remote.sql);
    if let Some(first) = &remote.first_sql {
        text.push_str(&format!(" (first shard: {})", without_literals(first)));
    }
    PlanStep {
        step: format!("Remote on {}", remote.targets.display(shards)),
        text,
        inputs: Vec::new(),
    }
}

fn key(key: &SortKey) -> String {
    let direction = if key.descending { " DESC" } else { "" };
    format!("{}{direction}", without_literals(&key.text))
}

fn combined(sql: &[SqlPart], stages: &[Stage]) -> String {
    let part = |part: &SqlPart| match part {
        SqlPart::Text(text) => text.clone(),
        SqlPart::Stage(n) => stages.get(*n).map_or("?", |s| &s.name).to_owned(),
    };
    sql.iter().map(part).collect()
}

fn of_stage(stage: &Stage, all: &[Stage], shards: usize) -> PlanStep {
    let filters = stage.filters.iter().map(|filter| {
        let source = all.get(filter.stage);
        let column = source.and_then(|s| s.columns.get(filter.column));
        let names = source.zip(column).map(|(s, c)| (&*s.name, &*c.name));
        let (source, column) = names.unwrap_or(("?", "?"));
        let expression = without_literals(&filter.expression);
        format!("{expression} in {source}.{column}")
    });
    let filters: Vec<_> = filters.collect();
    let text = match filters.as_slice() {
        [] => String::new(),
        filters => format!("where {}", filters.join(" and ")),
    };
    over(&stage.plan, shards, &format!("Stage {}", stage.name), text)
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Count, Final, FinalFunction, StageColumn, StageFilter, Targets};

    fn remote(sql: &str) -> Box<Plan> {
        Box::new(Plan::Remote(Remote {
            targets: Targets::All,
            sql: sql.into(),
            first_sql: None,
            visible: 1,
            hidden: 0,
            extra: Vec::new(),
        }))
    }

    fn texts(step: &PlanStep, out: &mut String) {
        out.push_str(&format!("{}|{}\n", step.step, step.text));
        step.inputs.iter().for_each(|input| texts(input, out));
    }

    fn shown(plan: &Plan) -> String {
        let mut out = String::new();
        texts(&plan.outline(3), &mut out);
        out
    }

    #[test]
    fn no_literal_is_left() {
        let sorted = Plan::Limit {
            input: Box::new(Plan::GatherMerge {
                input: remote("SELECT a FROM t WHERE b = 'secret-1' AND c = $1"),
                keys: vec![SortKey {
                    text: "a || 'secret-2'".into(),
                    descending: true,
                    nulls_first: true,
                    collation: None,
                }],
            }),
            count: Some(Count::Rows(4711)),
            offset: None,
        };
        let counted = Plan::FinalAggregate {
            input: remote("SELECT count(*) FROM t WHERE d = 'secret-3'"),
            groups: 0,
            aggregates: vec![Final {
                function: FinalFunction::Count { column: 0 },
                text: "count(*) FILTER (WHERE d = 'secret-4')".into(),
            }],
            output: vec![OutputColumn::Aggregate(0)],
            spill: None,
        };
        let stage = |name: &str, plan, filters| Stage {
            name: name.into(),
            columns: vec![StageColumn {
                name: "c1".into(),
                type_name: "text".into(),
                type_oid: 25,
                collation: None,
                joined: false,
            }],
            plan,
            filters,
        };
        let filter = StageFilter {
            expression: "e || 'secret-5'".into(),
            stage: 0,
            column: 0,
        };
        let plan = Plan::Combine {
            sql: vec![
                SqlPart::Text("SELECT 'secret-6' FROM ".into()),
                SqlPart::Stage(0),
            ],
            stages: vec![
                stage("stage_1", sorted, Vec::new()),
                stage("stage_2", counted, vec![filter]),
            ],
            extra: Vec::new(),
        };
        let shown = shown(&plan);
        assert!(
            !shown.contains("secret") && !shown.contains("4711"),
            "{shown}"
        );
        let expected = "Combine on merge session|SELECT $1 FROM stage_1\n\
            Stage stage_1|\nLimit|\nGatherMerge by|a || $1 DESC\n\
            Remote on 3 of 3 shards|SELECT a FROM t WHERE b = $2 AND c = $1\n\
            Stage stage_2|where e || $1 in stage_1.c1\nFinalAggregate|count(*) FILTER (WHERE d = $1)\n\
            Remote on 3 of 3 shards|SELECT count(*) FROM t WHERE d = $1\n";
        assert_eq!(shown, expected);
    }
}
