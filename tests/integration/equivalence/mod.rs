//! Every case of `tests/equivalence/*.sql` runs on the oracle and through pgbraid over three shards, in the simple protocol
//! (text), the extended one (unnamed, binary) and as a prepared statement run twice. Names, types, rows, tags and SQLSTATEs
//! must agree; see `tests/equivalence/README.md` for the directives.

pub mod case;
mod compare;

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::client::{bind, describe_or_close, execute, parse, sync};
use crate::harness::{
    Client, Reply, TypeNames, assert_target_sound, cluster, target, target_is_postgres,
};
use case::{Case, Expect};
use compare::difference;

/// Cases marked `same-or-refused` that are answered: this may only rise.
const ANSWERED_MIN: usize = 194;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Simple,
    Extended,
    Prepared,
}

impl Mode {
    /// For statements that give another answer when they run twice.
    fn unprepared(self) -> Self {
        match self {
            Self::Prepared => Self::Extended,
            mode => mode,
        }
    }
}

#[test]
fn cases_are_well_formed() {
    let cases = case::load();
    assert!(cases.len() >= 250, "{} cases", cases.len());
    let mut names: Vec<_> = cases.iter().map(|c| (&c.file, &c.name)).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "a name twice in one file");
}

#[test]
fn simple_protocol_answers_as_one_server() {
    run(Mode::Simple);
}

#[test]
fn extended_protocol_answers_as_one_server() {
    run(Mode::Extended);
}

#[test]
fn prepared_statements_answer_as_one_server() {
    run(Mode::Prepared);
}

#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    refused: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

fn run(mode: Mode) {
    let cases: Vec<Case> = case::load()
        .into_iter()
        .filter(|c| mode != Mode::Simple || !c.only_extended)
        .filter(|c| mode == Mode::Simple || !c.only_simple)
        .collect();
    let (next, tally) = (AtomicUsize::new(0), Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut pair = Pair::connect();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    judge(case, mode, &mut pair, &tally);
                }
            });
        }
    });
    let (answered, refused) = (tally.answered.into_inner(), tally.refused.into_inner());
    eprintln!(
        "{mode:?}: of the cases that may be refused {answered} are answered, {refused} refused"
    );
    assert_target_sound();
    let failures = tally.failures.into_inner().expect("no panic while held");
    let total = cases.len();
    assert!(
        failures.is_empty(),
        "{mode:?}: {} of {total} cases failed\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(
        answered >= ANSWERED_MIN,
        "{answered} cases answered that may be refused, and it were {ANSWERED_MIN} before"
    );
}

/// A session on the oracle and one on pgbraid, with what their types are called.
struct Pair {
    oracle: (Client, TypeNames),
    target: (Client, TypeNames),
}

impl Pair {
    fn connect() -> Self {
        Self {
            oracle: open(cluster().oracle),
            target: open(target()),
        }
    }
}

fn open(port: u16) -> (Client, TypeNames) {
    let mut client = Client::connect(port, "app", "app").expect("login");
    let types = TypeNames::read(&mut client);
    (client, types)
}

fn judge(case: &Case, mode: Mode, pair: &mut Pair, tally: &Tally) {
    let outcome = judge_in(case, mode, pair, tally);
    if let Err(problem) = outcome {
        let mut failures = tally.failures.lock().expect("no panic while held");
        let mut text = format!("--- {}: {}\n", case.file, case.name);
        writeln!(text, "{}\n=> {problem}", case.sql).expect("a String takes all");
        failures.push(text);
        // Whatever happened, the next case starts on fresh connections.
        drop(failures);
        *pair = Pair::connect();
    }
}

fn judge_in(case: &Case, mode: Mode, pair: &mut Pair, tally: &Tally) -> Result<(), String> {
    // What is to be refused may write: on the oracle it must leave nothing behind.
    let expected = match case.expect {
        Expect::Refused => {
            pair.oracle.0.query("begin");
            let reply = ask(&mut pair.oracle.0, case, mode.unprepared());
            pair.oracle.0.query("rollback");
            reply.map(|r| Reply { status: b'I', ..r })
        }
        _ => ask(&mut pair.oracle.0, case, mode),
    }
    .map_err(|e| format!("oracle: {e}"))?;
    if case.expect == Expect::Refused && target_is_postgres() {
        return match &expected.error {
            Some(_) => Err(format!("the oracle fails: {}", expected.complaint())),
            None => Ok(()),
        };
    }
    let given = ask(&mut pair.target.0, case, mode).map_err(|e| format!("connection lost: {e}"))?;
    let (client, _) = &mut pair.target;
    let alive = client
        .try_query("select 'in' || 'step'")
        .map_err(|e| format!("then: {e}"))?;
    if alive.error.is_some() || alive.rows != [[Some(b"instep".to_vec())]] {
        return Err("the connection is out of step behind it".into());
    }
    if let Expect::State(state) = &case.expect {
        if expected.sqlstate().as_ref() != Some(state) {
            return Err(format!(
                "the oracle says {:?}, the case {state}",
                expected.sqlstate()
            ));
        }
    } else if expected.error.is_some() {
        return Err(format!("the oracle fails: {}", expected.complaint()));
    }
    if is_refusal(&given, &expected) {
        return refused(case, &given, tally);
    }
    if case.expect == Expect::Refused {
        return Err("must be refused, and is not".into());
    }
    let superset = match &case.subset_of {
        Some(sql) => Some(pair.oracle.0.query(sql).rows),
        None => None,
    };
    let (oracle, target) = (&pair.oracle.1, &pair.target.1);
    match difference(case, (&expected, oracle), (&given, target), superset) {
        Some(difference) => Err(difference),
        None => {
            if case.expect == Expect::SameOrRefused {
                tally.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    }
}

/// PostgreSQL has statements of its own that it answers with 0A000.
fn is_refusal(given: &Reply, expected: &Reply) -> bool {
    given.sqlstate().as_deref() == Some("0A000") && expected.sqlstate().as_deref() != Some("0A000")
}

fn refused(case: &Case, given: &Reply, tally: &Tally) -> Result<(), String> {
    let error = given.error.as_ref().ok_or("no error")?;
    if case.expect == Expect::Same || matches!(case.expect, Expect::State(_)) {
        return Err(format!("refused: {}", given.complaint()));
    }
    if error.field(b'H').is_none_or(|h| h.is_empty()) {
        return Err(format!("refused without a hint: {}", given.complaint()));
    }
    if !given.rows.is_empty() {
        return Err("refused behind rows".into());
    }
    tally.refused.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn ask(client: &mut Client, case: &Case, mode: Mode) -> Result<Reply, String> {
    let lost = |e: std::io::Error| e.to_string();
    for sql in &case.before {
        client.try_query(sql).map_err(lost)?;
    }
    let reply = match mode {
        Mode::Simple => client.try_query(&case.simple_sql()).map_err(lost)?,
        Mode::Extended => extended(client, case)?,
        Mode::Prepared => prepared(client, case)?,
    };
    for sql in &case.after {
        client.try_query(sql).map_err(lost)?;
    }
    Ok(reply)
}

/// Parse, Bind, Describe of the portal, Execute and Sync in one packet; text parameters, binary results.
fn extended(client: &mut Client, case: &Case) -> Result<Reply, String> {
    let bytes = [
        parse("", &case.sql, &case.oids()),
        bind("", "", &case.values(false), &[1]),
        describe_or_close(b'D', b'P', ""),
        execute("", 0),
        sync(),
    ];
    round(client, &bytes.concat())
}

/// A named statement, described first, then run twice; binary parameters where they have such, binary results.
fn prepared(client: &mut Client, case: &Case) -> Result<Reply, String> {
    let preparation = [
        parse("case", &case.sql, &case.oids()),
        describe_or_close(b'D', b'S', "case"),
        sync(),
    ];
    let described = round(client, &preparation.concat())?;
    if described.error.is_some() {
        return Ok(described);
    }
    let once = [
        bind("", "case", &case.values(true), &[1]),
        execute("", 0),
        sync(),
    ]
    .concat();
    let mut replies = Vec::new();
    for _ in 0..2 {
        let mut reply = round(client, &once)?;
        reply.columns = described.columns.clone();
        // Describe of a statement cannot know the formats of a later Bind.
        reply.columns.iter_mut().for_each(|c| c.format = 1);
        replies.push(reply);
    }
    round(
        client,
        &[describe_or_close(b'C', b'S', "case"), sync()].concat(),
    )?;
    let (second, first) = (replies.pop().expect("two"), replies.pop().expect("two"));
    let (mut a, mut b) = (first.rows.clone(), second.rows.clone());
    a.sort();
    b.sort();
    // Which rows come before an error is not determined.
    let whole = first.error.is_none() && second.error.is_none();
    if whole && case.subset_of.is_none() && !case.volatile && (a != b || first.tag != second.tag) {
        return Err("the second run of the prepared statement differs from the first".into());
    }
    if first.sqlstate() != second.sqlstate() {
        return Err(format!(
            "first run: {}; second: {}",
            first.complaint(),
            second.complaint()
        ));
    }
    Ok(second)
}

fn round(client: &mut Client, bytes: &[u8]) -> Result<Reply, String> {
    client.send(bytes).map_err(|e| e.to_string())?;
    let messages = client.until_ready().map_err(|e| e.to_string())?;
    Ok(Reply::of(&messages))
}
