//! Golden plans: every statement of `tests/plans/*.txt` with its plan or refusal, made without a database.
//!
//! A case is a block of lines: directives, the statement, `----`, the expected text; a blank line ends it. Directives:
//! `# params: int8 text` types $1 …; `# columns: int4 text/C` answers the next question about columns; `# value: 6` the next
//! about a value. `UPDATE_GOLDEN=1` rewrites the expected texts: read the difference, each plan is a claim of exactness.

#[path = "plans/catalog.rs"]
mod catalog;

use std::fmt::Write as _;
use std::path::Path;

use pgbraid::catalog::Catalog;
use pgbraid::metrics::Reason;
use pgbraid::planner::{Fact, Facts, Probe, ProbedColumn, Request, plan};

/// One statement of a golden file.
#[derive(Default)]
struct Case {
    head: Vec<String>,
    sql: String,
    expected: String,
}

impl Case {
    fn directive(&self, name: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("# {name}:");
        self.head
            .iter()
            .filter_map(move |l| l.strip_prefix(&prefix).map(str::trim))
    }

    /// The plan as text; questions without an answer are part of it.
    fn planned(&self, catalog: &Catalog) -> String {
        let types: Vec<u32> = self
            .directive("params")
            .flat_map(str::split_whitespace)
            .map(catalog::type_oid)
            .collect();
        let mut columns = self.directive("columns");
        let mut values = self.directive("value");
        let mut facts = Facts::new();
        for _ in 0..10 {
            let request = Request {
                sql: &self.sql,
                parameter_types: &types,
                search_path: &catalog.search_path,
                facts: &facts,
            };
            let probes = match plan(&request, catalog) {
                Err(probes) => probes,
                Ok(planned) => {
                    return match planned.explain(&self.sql, 3) {
                        Ok(text) => text,
                        Err(r) => {
                            // What users meet is counted by what it is.
                            assert_ne!(r.reason, Reason::Other, "{}", self.sql);
                            refused(&self.sql, &r.message, &r.hint, r.location)
                        }
                    };
                }
            };
            for probe in probes {
                let answer = match &probe {
                    Probe::Columns { .. } => columns.next().map(probed),
                    Probe::Value { .. } => values
                        .next()
                        .map(|v| Fact::Value((v != "null").then(|| v.to_owned()))),
                };
                let Some(answer) = answer else {
                    return format!("unanswered: {probe:?}");
                };
                facts.insert(probe, answer);
            }
        }
        "the planner keeps asking".into()
    }
}

fn refused(sql: &str, message: &str, hint: &str, location: Option<usize>) -> String {
    let at = location
        .and_then(|l| sql.get(l..))
        .map_or_else(String::new, |rest| {
            format!(" at: {}", rest.split_whitespace().next().unwrap_or(""))
        });
    format!("refused: {message}{at}\nhint: {hint}")
}

/// `int4 text/C mood`: text is under the default collation unless it says otherwise.
fn probed(text: &str) -> Fact {
    let column = |word: &str| {
        let (name, collation) = match word.split_once('/') {
            Some((name, collation)) => (name, Some(collation.to_owned())),
            None => (
                word,
                ["text", "varchar", "bpchar", "name"]
                    .contains(&word)
                    .then(|| "default".to_owned()),
            ),
        };
        ProbedColumn {
            type_oid: catalog::type_oid(name),
            type_modifier: -1,
            collation,
        }
    };
    Fact::Columns(text.split_whitespace().map(column).collect())
}

fn cases(text: &str) -> Vec<Case> {
    let mut out = Vec::new();
    for block in text.split("\n\n").filter(|b| !b.trim().is_empty()) {
        let mut case = Case::default();
        let (input, expected) = block
            .split_once("\n----\n")
            .unwrap_or((block.trim_end_matches("\n----"), ""));
        for line in input.trim().lines() {
            match line.starts_with('#') {
                true => case.head.push(line.to_owned()),
                false => {
                    case.sql
                        .push_str(if case.sql.is_empty() { "" } else { "\n" });
                    case.sql.push_str(line);
                }
            }
        }
        case.expected = expected.trim_end().to_owned();
        out.push(case);
    }
    out
}

fn check(path: &Path, catalog: &Catalog, update: bool) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("a golden file");
    let mut wrong = Vec::new();
    let mut rewritten = String::new();
    for case in cases(&text) {
        let head: String = case.head.iter().map(|h| format!("{h}\n")).collect();
        if case.sql.is_empty() {
            let _ = writeln!(rewritten, "{head}");
            continue;
        }
        let planned = case.planned(catalog);
        if planned != case.expected {
            wrong.push(format!(
                "{}\n--- expected\n{}\n--- planned\n{planned}\n",
                case.sql, case.expected
            ));
        }
        let _ = writeln!(rewritten, "{head}{}\n----\n{planned}\n", case.sql);
    }
    if update {
        std::fs::write(path, rewritten.trim_end().to_owned() + "\n")
            .expect("a golden file to write");
        wrong.clear();
    }
    wrong
}

#[test]
fn plans_are_as_written() {
    let catalog = catalog::catalog();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the golden files") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|e| e == "txt") {
            wrong.extend(check(&path, &catalog, update));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} plans differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

const REFUSALS: [&str; 2] = [
    "<!-- refusals of tests/plans -->\n",
    "<!-- end of refusals -->\n",
];

/// A message with what it names left out; `None` for what PostgreSQL would not answer either.
fn kind_of_refusal(message: &str) -> Option<String> {
    if message.contains("cannot be resolved") || message.contains("is not known") {
        return None;
    }
    let words: Vec<&str> = message.split(' ').collect();
    let named = ["function", "view", "table", "column"].contains(&words[0]) && words.len() > 2;
    Some(match named {
        true => format!("{} … {}", words[0], words[2..].join(" ")),
        false => message.to_owned(),
    })
}

/// The section of README that the golden files' refusals make: one row a kind, with the first statement that has it.
fn refusals(folder: &Path) -> String {
    let mut kinds = std::collections::BTreeMap::new();
    let files = std::fs::read_dir(folder).expect("the golden files");
    let mut paths: Vec<_> = files.map(|e| e.expect("a file").path()).collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "txt"))
    {
        let text = std::fs::read_to_string(path).expect("a golden file");
        for case in cases(&text) {
            let Some(rest) = case.expected.strip_prefix("refused: ") else {
                continue;
            };
            let (message, hint) = rest.split_once("\nhint: ").unwrap_or((rest, ""));
            let message = message.split(" at: ").next().unwrap_or(message);
            if let Some(kind) = kind_of_refusal(message) {
                kinds
                    .entry(kind)
                    .or_insert((case.sql.clone(), hint.to_owned()));
            }
        }
    }
    let mut section = String::from("| refused | as in | instead |\n|---|---|---|\n");
    for (kind, (sql, hint)) in kinds {
        let sql = sql.replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(section, "| {kind} | `{sql}` | {hint} |");
    }
    section
}

/// `UPDATE_GOLDEN=1` writes the section anew.
#[test]
fn readme_lists_what_is_refused() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("README.md");
    let readme = std::fs::read_to_string(&path).expect("README.md");
    let (before, rest) = readme.split_once(REFUSALS[0]).expect("the section's begin");
    let (section, after) = rest.split_once(REFUSALS[1]).expect("the section's end");
    let wanted = refusals(&root.join("tests/plans"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = [before, REFUSALS[0], &wanted, REFUSALS[1], after].concat();
        std::fs::write(path, text).expect("README.md to write");
        return;
    }
    assert_eq!(
        section, wanted,
        "README.md: UPDATE_GOLDEN=1 make test ARGS=plans writes it"
    );
}

mod router {
    //! The router against a model: a shard the router leaves out must hold no row that passes the condition.

    use super::*;
    use pgbraid::plan::Targets;
    use proptest::prelude::*;

    /// A condition on the key `id` and another column `k`.
    #[derive(Debug, Clone)]
    enum Condition {
        Equal(i64),
        In(Vec<i64>),
        AnyOf(Vec<i64>),
        Null,
        Other(i64),
        Less(i64),
        And(Vec<Condition>),
        Or(Vec<Condition>),
        Not(Box<Condition>),
    }

    fn conditions() -> impl Strategy<Value = Condition> {
        let value = -4i64..12;
        let leaf = prop_oneof![
            value.clone().prop_map(Condition::Equal),
            prop::collection::vec(value.clone(), 1..4).prop_map(Condition::In),
            prop::collection::vec(value.clone(), 0..4).prop_map(Condition::AnyOf),
            Just(Condition::Null),
            value.clone().prop_map(Condition::Other),
            value.prop_map(Condition::Less),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::And),
                prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::Or),
                inner.prop_map(|c| Condition::Not(Box::new(c))),
            ]
        })
    }

    impl Condition {
        fn sql(&self) -> String {
            let list = |v: &[i64]| v.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
            let all = |v: &[Self], word: &str| {
                v.iter()
                    .map(|c| format!("({})", c.sql()))
                    .collect::<Vec<_>>()
                    .join(word)
            };
            match self {
                Self::Equal(v) => format!("id = {v}"),
                Self::In(v) => format!("id in ({})", list(v)),
                Self::AnyOf(v) => format!("id = any ('{{{}}}')", list(v)),
                Self::Null => "id = null".into(),
                Self::Other(v) => format!("k = {v}"),
                Self::Less(v) => format!("id < {v}"),
                Self::And(v) => all(v, " and "),
                Self::Or(v) => all(v, " or "),
                Self::Not(c) => format!("not ({})", c.sql()),
            }
        }

        /// Three-valued, as SQL has it.
        fn holds(&self, id: i64, k: i64) -> Option<bool> {
            match self {
                Self::Equal(v) => Some(id == *v),
                Self::In(v) | Self::AnyOf(v) => Some(v.contains(&id)),
                Self::Null => None,
                Self::Other(v) => Some(k == *v),
                Self::Less(v) => Some(id < *v),
                Self::And(v) => {
                    let parts: Vec<_> = v.iter().map(|c| c.holds(id, k)).collect();
                    decided_by(Some(false), &parts)
                }
                Self::Or(v) => {
                    let parts: Vec<_> = v.iter().map(|c| c.holds(id, k)).collect();
                    decided_by(Some(true), &parts)
                }
                Self::Not(c) => c.holds(id, k).map(|h| !h),
            }
        }
    }

    /// AND is false where a part is, OR true where a part is; else one that is unknown leaves it unknown.
    fn decided_by(value: Option<bool>, parts: &[Option<bool>]) -> Option<bool> {
        match parts.contains(&value) {
            true => value,
            false if parts.contains(&None) => None,
            false => value.map(|v| !v),
        }
    }

    fn route(catalog: &Catalog, condition: &Condition) -> Vec<u16> {
        let sql = format!("select id from dupes where {}", condition.sql());
        let facts = Facts::new();
        let request = Request {
            sql: &sql,
            parameter_types: &[],
            search_path: &catalog.search_path,
            facts: &facts,
        };
        match plan(&request, catalog).expect("no questions").route {
            Targets::Keyed(c) => c
                .constant_shards()
                .map_or(vec![0, 1, 2], |s| s.iter().map(|s| s.0).collect()),
            _ => vec![0, 1, 2],
        }
    }

    proptest! {
        #[test]
        fn never_leaves_out_a_shard_with_rows(condition in conditions()) {
            let catalog = catalog::catalog();
            let kept = route(&catalog, &condition);
            for id in -6i64..16 {
                for k in -4i64..12 {
                    if condition.holds(id, k) == Some(true) {
                        let shard = id.rem_euclid(3) as u16;
                        prop_assert!(kept.contains(&shard), "row {id} on shard {shard}: {}", condition.sql());
                    }
                }
            }
        }
    }

    #[test]
    fn equal_keys_leave_one_shard() {
        let catalog = catalog::catalog();
        let one = Condition::And(vec![
            Condition::Or(vec![Condition::Equal(4), Condition::Equal(7)]),
            Condition::Other(1),
        ]);
        assert_eq!(route(&catalog, &one), [1]);
    }
}
