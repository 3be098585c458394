//! Statements that run now, with their plans: those that have run longest. Their texts have no literals.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::admin::Served;
use crate::admin::console::{LOOK_PATIENCE, plan_label, slowest};
use crate::registry::{
    PlanStep, Progress, Registry, SessionEntry, ShardProgress, State, Statement,
};
use crate::sql::without_literals;

/// Statements shown; of the others only the number is.
const SHOWN_MAX: usize = 20;
/// A text of a statement or a plan's step is cut behind so many characters.
const TEXT_CHARS_MAX: usize = 1000;
/// Steps shown of a plan.
const STEPS_MAX: usize = 40;

/// What runs.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Running {
    /// All statements under way, those that wait for a connection included.
    total: usize,
    /// The first ones of them, as they began.
    shown: Vec<RunningStatement>,
}

#[derive(Debug, PartialEq, Serialize)]
struct RunningStatement {
    /// As KILL takes it.
    id: i32,
    user: String,
    client: String,
    state: &'static str,
    kind: &'static str,
    text: String,
    seconds: f64,
    /// Given to the client so far; `None` where the session could not say.
    rows: Option<u64>,
    /// The shard that is waited for.
    waits_for: Option<String>,
    parts: Vec<Part>,
    plan: Option<PlanStep>,
}

/// A step on a shard.
#[derive(Debug, PartialEq, Serialize)]
struct Part {
    shard: String,
    rows: u64,
    first_row_seconds: Option<f64>,
    last_row_seconds: Option<f64>,
    done: bool,
}

/// Asks those that are shown how far they are.
pub(super) async fn running(served: &Served) -> Running {
    let sessions = served.registry.sessions().into_iter();
    let mut at_work: Vec<_> = sessions
        .filter(|s| !s.client.console)
        .filter(|s| matches!(s.activity.state(), State::Active | State::Waiting))
        .filter_map(|session| Some((session.activity.statement()?, session)))
        .collect();
    at_work.sort_by_key(|(statement, _)| statement.since);
    let more = at_work.len().saturating_sub(SHOWN_MAX);
    at_work.truncate(SHOWN_MAX);
    let sessions: Vec<_> = at_work.iter().map(|(_, session)| session.clone()).collect();
    Registry::look_at(&sessions, LOOK_PATIENCE).await;
    let config = served.config();
    let names: Vec<&str> = config.shards.iter().map(|s| s.name.as_str()).collect();
    let shown = at_work.iter();
    let shown = shown.filter_map(|(statement, session)| shown_of(statement, session, &names));
    let shown: Vec<_> = shown.collect();
    Running {
        // Some have ended while they were asked.
        total: shown.len() + more,
        shown,
    }
}

/// `None` for a session that is done with it: what it has told is of another statement.
fn shown_of(
    statement: &Statement,
    session: &Arc<SessionEntry>,
    names: &[&str],
) -> Option<RunningStatement> {
    let activity = &session.activity;
    let (plan, progress) = (activity.take_plan(), activity.progress());
    let now = activity.statement()?;
    let is_over =
        now.since != statement.since || !matches!(activity.state(), State::Active | State::Waiting);
    if is_over {
        return None;
    }
    let told = progress.unwrap_or_default();
    let plan = match plan {
        Some(plan) => Some(plan.outline(names.len())),
        None => one_step(&told, names),
    };
    let waits_for = slowest(&told.shards).map(|part| name_of(part, names));
    Some(RunningStatement {
        id: session.pid,
        user: session.user.clone(),
        client: session.client.peer.clone(),
        state: activity.state().label(),
        kind: plan_label(now.kind),
        text: cut(without_literals(&now.sql)),
        seconds: now.since.elapsed().as_secs_f64(),
        rows: activity.progress().map(|p| p.rows),
        waits_for,
        parts: told.shards.iter().map(|p| part(p, names)).collect(),
        plan: plan.map(|plan| pruned(plan, &mut { STEPS_MAX })),
    })
}

/// The plan of what one shard answers: the text as it is.
fn one_step(told: &Progress, names: &[&str]) -> Option<PlanStep> {
    let [part] = told.shards.as_slice() else {
        return None;
    };
    Some(PlanStep {
        step: format!("Remote on {}", name_of(part, names)),
        text: String::new(),
        inputs: Vec::new(),
    })
}

fn part(progress: &ShardProgress, names: &[&str]) -> Part {
    let seconds = |d: Option<Duration>| d.map(|d| d.as_secs_f64());
    Part {
        shard: name_of(progress, names),
        rows: progress.rows,
        first_row_seconds: seconds(progress.first_row),
        last_row_seconds: seconds(progress.last),
        done: progress.done,
    }
}

fn name_of(part: &ShardProgress, names: &[&str]) -> String {
    match part.merge {
        true => "merge session".to_owned(),
        false => (*names.get(usize::from(part.shard)).unwrap_or(&"?")).to_owned(),
    }
}

/// The plan without the steps that are too many.
fn pruned(mut step: PlanStep, left: &mut usize) -> PlanStep {
    *left = left.saturating_sub(1);
    step.text = cut(step.text);
    let inputs = std::mem::take(&mut step.inputs);
    let all = inputs.len();
    for input in inputs {
        if *left == 0 {
            break;
        }
        step.inputs.push(pruned(input, left));
    }
    if step.inputs.len() < all {
        let more = all - step.inputs.len();
        step.inputs.push(PlanStep {
            step: format!("… {more} more"),
            ..PlanStep::default()
        });
    }
    step
}

pub(super) fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
        text.truncate(end);
        text.push_str(" …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::QueryKind;
    use crate::plan::{Plan, Remote, Targets};
    use crate::registry::{Client, Registration};
    use std::time::Instant;

    const SQL: &str = "select * from people where name = 'secret-literal' and id = $1 limit 4711";

    fn session(registry: &Arc<Registry>) -> Registration {
        let client = Client {
            database: "app".into(),
            peer: "127.0.0.1:5".into(),
            local: "127.0.0.1:6".into(),
            encrypted: false,
            console: false,
        };
        let registration = registry.register("app".into(), client, Arc::default());
        let activity = &registration.entry.activity;
        activity.set_state(State::Active);
        activity.begin(QueryKind::PushDown as u8, Instant::now(), &SQL.into());
        registration
    }

    fn progress() -> Progress {
        let part = |shard, rows| ShardProgress {
            shard,
            merge: false,
            first_row: Some(Duration::from_millis(2)),
            last: Some(Duration::from_millis(3)),
            rows,
            done: rows == 7,
        };
        Progress {
            rows: 7,
            shards: vec![part(0, 7), part(1, 2)],
        }
    }

    fn plan() -> Plan {
        Plan::Gather {
            input: Box::new(Plan::Remote(Remote {
                targets: Targets::All,
                sql: SQL.into(),
                first_sql: None,
                visible: 1,
                hidden: 0,
                extra: Vec::new(),
            })),
        }
    }

    #[test]
    fn a_statement_is_shown_without_its_literals() {
        let registry = Arc::new(Registry::default());
        let one = session(&registry);
        let statement = one.entry.activity.statement().unwrap();
        one.entry.activity.tell(progress(), Some(Arc::new(plan())));
        let shown = shown_of(&statement, &one.entry, &["s1", "s2"]).unwrap();
        let json = serde_json::to_value(&shown).unwrap();
        let text = json.to_string();
        assert!(!text.contains("secret") && !text.contains("4711"), "{text}");
        assert_eq!(
            json["text"],
            "select * from people where name = $2 and id = $1 limit $3"
        );
        assert_eq!(json["kind"], "push_down");
        assert_eq!(json["rows"], 7);
        assert_eq!(json["waits_for"], "s2");
        assert_eq!(json["parts"][0]["shard"], "s1");
        assert_eq!(json["parts"][0]["first_row_seconds"], 0.002);
        assert_eq!(json["plan"]["step"], "Gather");
        assert_eq!(json["plan"]["inputs"][0]["step"], "Remote on 2 of 2 shards");
    }

    #[test]
    fn what_is_over_is_not_shown() {
        let registry = Arc::new(Registry::default());
        let one = session(&registry);
        let activity = &one.entry.activity;
        let statement = activity.statement().unwrap();
        activity.begin(QueryKind::Routed as u8, Instant::now(), &"select 2".into());
        assert_eq!(shown_of(&statement, &one.entry, &["s1"]), None);
        let statement = activity.statement().unwrap();
        assert!(shown_of(&statement, &one.entry, &["s1"]).is_some());
        activity.set_state(State::Idle);
        assert_eq!(shown_of(&statement, &one.entry, &["s1"]), None);
    }

    #[test]
    fn a_large_plan_is_pruned() {
        let leaf = PlanStep {
            step: "Remote".into(),
            text: "ä".repeat(3000),
            inputs: Vec::new(),
        };
        let plan = PlanStep {
            step: "Combine".into(),
            text: String::new(),
            inputs: vec![leaf; 100],
        };
        let shown = pruned(plan, &mut { STEPS_MAX });
        assert_eq!(shown.inputs.len(), STEPS_MAX);
        assert_eq!(shown.inputs[STEPS_MAX - 1].step, "… 61 more");
        assert_eq!(shown.inputs[0].text.chars().count(), TEXT_CHARS_MAX + 2);
    }
}
