//! What the session must do with a statement.

use pg_query::protobuf::{self as ast, node::Node};

use super::Statement;
use super::kind::{
    CursorKind, ExplainFormat, ExplainOptions, FetchDirection, Kind, TransactionOptions,
};

/// Says what a statement is.
pub fn classify(statement: &Statement) -> Kind {
    match &statement.node {
        Node::SelectStmt(s) => select_kind(s),
        Node::ExplainStmt(e) => explain_kind(e, &statement.text),
        Node::TransactionStmt(t) => transaction_kind(t),
        Node::VariableSetStmt(v) => set_kind(v),
        Node::VariableShowStmt(v) => Kind::Show {
            name: v.name.clone(),
        },
        Node::ConstraintsSetStmt(_) => Kind::SetConstraints,
        Node::DiscardStmt(d) => Kind::Discard {
            all: d.target == ast::DiscardMode::DiscardAll as i32,
        },
        Node::DeallocateStmt(d) => Kind::Deallocate {
            name: (!d.isall).then(|| d.name.clone()),
        },
        Node::PrepareStmt(p) => Kind::Prepare {
            name: p.name.clone(),
            inner: commented_text(&statement.text, p.query.as_deref())
                .unwrap_or_else(|| inner_text(p.query.as_deref())),
        },
        Node::ExecuteStmt(e) => Kind::Execute {
            name: e.name.clone(),
        },
        Node::DeclareCursorStmt(c) => Kind::DeclareCursor {
            name: c.portalname.clone(),
            cursor: cursor_kind(c.options),
            inner: commented_text(&statement.text, c.query.as_deref())
                .or_else(|| tail_text(&statement.text, c.query.as_deref(), &STARTS))
                .unwrap_or_else(|| inner_text(c.query.as_deref())),
        },
        Node::FetchStmt(f) => fetch_kind(f),
        Node::ClosePortalStmt(c) => Kind::CloseCursor {
            name: (!c.portalname.is_empty()).then(|| c.portalname.clone()),
        },
        Node::CopyStmt(c) if c.is_from => Kind::CopyIn,
        Node::CopyStmt(c) => Kind::CopyTo(Box::new(super::copy::copy_to(c, statement))),
        Node::ListenStmt(_) => Kind::Listen,
        Node::UnlistenStmt(_) => Kind::Unlisten,
        Node::NotifyStmt(_) => Kind::Notify,
        Node::LockStmt(l) => Kind::Lock(Box::new(super::lock::lock_tables(l))),
        Node::InsertStmt(_) => Kind::Insert,
        Node::UpdateStmt(_) => Kind::Update,
        Node::DeleteStmt(_) => Kind::Delete,
        Node::MergeStmt(_) => Kind::Merge,
        Node::DoStmt(_) => Kind::Do,
        Node::LoadStmt(_) => Kind::Load,
        Node::CallStmt(_) | Node::CheckPointStmt(_) => Kind::Other,
        _ => Kind::Ddl,
    }
}

fn inner_text(node: Option<&ast::Node>) -> String {
    node.and_then(|n| n.node.as_ref())
        .and_then(|n| super::statement_text(n).ok())
        .unwrap_or_default()
}

/// WITH … INSERT and its like, or SELECT INTO.
pub(super) fn writes(select: &ast::SelectStmt) -> bool {
    matches!(select_kind(select), Kind::Select { writes: true, .. })
}

fn select_kind(select: &ast::SelectStmt) -> Kind {
    let (mut writes, mut locks) = (false, false);
    // What the walk does not know may hide a lock; the planner does not know it either and refuses the statement.
    super::walk(super::Child::Select(select), &mut |c| {
        let select = match c {
            super::Child::Select(s) => Some(s),
            super::Child::Node(n) => match &n.node {
                Some(Node::SelectStmt(s)) => Some(&**s),
                Some(
                    Node::InsertStmt(_)
                    | Node::UpdateStmt(_)
                    | Node::DeleteStmt(_)
                    | Node::MergeStmt(_),
                ) => {
                    writes = true;
                    return false;
                }
                _ => None,
            },
        };
        if let Some(s) = select {
            writes |= s.into_clause.is_some();
            locks |= !s.locking_clause.is_empty();
        }
        true
    });
    Kind::Select { writes, locks }
}

pub(super) fn string_of(node: Option<&ast::Node>) -> Option<String> {
    match node.and_then(|n| n.node.as_ref())? {
        Node::String(s) => Some(s.sval.clone()),
        Node::Integer(i) => Some(i.ival.to_string()),
        Node::Float(f) => Some(f.fval.clone()),
        Node::Boolean(b) => Some(b.boolval.to_string()),
        Node::TypeCast(t) => string_of(t.arg.as_deref()),
        Node::AConst(c) => match c.val.as_ref()? {
            ast::a_const::Val::Ival(i) => Some(i.ival.to_string()),
            ast::a_const::Val::Fval(f) => Some(f.fval.clone()),
            ast::a_const::Val::Boolval(b) => Some(b.boolval.to_string()),
            ast::a_const::Val::Sval(s) => Some(s.sval.clone()),
            ast::a_const::Val::Bsval(b) => Some(b.bsval.clone()),
        },
        _ => None,
    }
}

pub(super) fn options(list: &[ast::Node]) -> impl Iterator<Item = &ast::DefElem> {
    list.iter().filter_map(|n| match &n.node {
        Some(Node::DefElem(d)) => Some(&**d),
        _ => None,
    })
}

/// A boolean option without a value is on; PostgreSQL takes true/on/1 and false/off/0.
pub(super) fn is_on(value: Option<&str>) -> bool {
    value.is_none_or(|v| v == "1" || ["true", "on"].iter().any(|t| v.eq_ignore_ascii_case(t)))
}

fn explain_kind(explain: &ast::ExplainStmt, text: &str) -> Kind {
    let mut out = ExplainOptions::default();
    for option in options(&explain.options) {
        let value = string_of(option.arg.as_deref());
        match option.defname.as_str() {
            "analyze" => out.analyze = is_on(value.as_deref()),
            "verbose" => out.verbose = is_on(value.as_deref()),
            "format"
                if value
                    .as_deref()
                    .is_some_and(|v| !v.eq_ignore_ascii_case("text")) =>
            {
                out.format = ExplainFormat::Other;
            }
            _ => {}
        }
        out.all.push((option.defname.clone(), value));
    }
    let query = explain.query.as_deref();
    Kind::Explain {
        options: out,
        inner: commented_text(text, query)
            .or_else(|| tail_text(text, query, &STARTS))
            .unwrap_or_else(|| inner_text(query)),
    }
}

/// How what EXPLAIN and its like take begins.
const STARTS: [&str; 9] = [
    "select", "with", "values", "table", "(", "insert", "update", "delete", "merge",
];

/// The same with the comments before it, where one of them is for pgbraid.
fn commented_text(text: &str, statement: Option<&ast::Node>) -> Option<String> {
    // Nearly always that is all.
    if !text.contains("pgbraid") {
        return None;
    }
    let tail = tail_text(text, statement, &["/*", "--"])?;
    // What is wrong with it is said when the statement is looked at.
    let is_ours = !matches!(super::shard_by_comment(&tail), Ok(None));
    is_ours.then_some(tail)
}

/// The statement at the end of another one (EXPLAIN, DECLARE) as the client wrote it, where it can be cut from the text.
fn tail_text(text: &str, statement: Option<&ast::Node>, starts: &[&str]) -> Option<String> {
    let wanted = statement?.node.as_ref()?;
    let lower = text.to_ascii_lowercase();
    let mut places: Vec<usize> = starts
        .iter()
        .flat_map(|w| lower.match_indices(w).map(|(i, _)| i).take(4))
        .collect();
    places.sort_unstable();
    places.into_iter().find_map(|at| {
        let tail = text.get(at..)?;
        let parsed = super::parse(tail).ok()?;
        let [one] = parsed.as_slice() else {
            return None;
        };
        (super::statement_text(&one.node) == super::statement_text(wanted))
            .then(|| one.text.clone())
    })
}

fn transaction_options(list: &[ast::Node]) -> TransactionOptions {
    let mut out = TransactionOptions::default();
    for option in options(list) {
        let value = string_of(option.arg.as_deref());
        match option.defname.as_str() {
            "transaction_isolation" => out.isolation = value.map(|v| v.to_ascii_lowercase()),
            "transaction_read_only" => out.read_only = Some(is_on(value.as_deref())),
            "transaction_deferrable" => out.deferrable = Some(is_on(value.as_deref())),
            _ => {}
        }
    }
    out
}

fn transaction_kind(t: &ast::TransactionStmt) -> Kind {
    use ast::TransactionStmtKind as K;
    let name = || t.savepoint_name.clone();
    match K::try_from(t.kind) {
        Ok(K::TransStmtBegin | K::TransStmtStart) => Kind::Begin {
            options: transaction_options(&t.options),
        },
        Ok(K::TransStmtCommit) => Kind::Commit { chain: t.chain },
        Ok(K::TransStmtRollback) => Kind::Rollback { chain: t.chain },
        Ok(K::TransStmtSavepoint) => Kind::Savepoint { name: name() },
        Ok(K::TransStmtRelease) => Kind::Release { name: name() },
        Ok(K::TransStmtRollbackTo) => Kind::RollbackTo { name: name() },
        _ => Kind::TwoPhase,
    }
}

fn set_kind(v: &ast::VariableSetStmt) -> Kind {
    use ast::VariableSetKind as K;
    match K::try_from(v.kind) {
        Ok(K::VarResetAll) => Kind::Reset { name: None },
        Ok(K::VarReset) => Kind::Reset {
            name: Some(v.name.clone()),
        },
        Ok(K::VarSetMulti) => {
            let mut options = transaction_options(&v.args);
            match v.name.as_str() {
                "TRANSACTION" => Kind::SetTransaction { options },
                "SESSION CHARACTERISTICS" => Kind::SetSessionCharacteristics { options },
                _ => {
                    options.snapshot = string_of(v.args.first());
                    Kind::SetTransaction { options }
                }
            }
        }
        kind => Kind::Set {
            name: v.name.clone(),
            local: v.is_local,
            to_default: kind == Ok(K::VarSetDefault),
            value: match v.args.as_slice() {
                [one] => string_of(Some(one)),
                _ => None,
            },
        },
    }
}

/// Bits of `CURSOR_OPT_*` in PostgreSQL's parsenodes.h.
fn cursor_kind(options: i32) -> CursorKind {
    CursorKind {
        binary: options & 0x0001 != 0,
        scroll: options & 0x0002 != 0,
        no_scroll: options & 0x0004 != 0,
        hold: options & 0x0020 != 0,
    }
}

fn fetch_kind(f: &ast::FetchStmt) -> Kind {
    use ast::FetchDirection as D;
    Kind::Fetch {
        name: f.portalname.clone(),
        direction: match D::try_from(f.direction) {
            Ok(D::FetchBackward) => FetchDirection::Backward,
            Ok(D::FetchAbsolute) => FetchDirection::Absolute,
            Ok(D::FetchRelative) => FetchDirection::Relative,
            _ => FetchDirection::Forward,
        },
        count: f.how_many,
        is_move: f.ismove,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(sql: &str) -> Kind {
        classify(&super::super::parse(sql).expect("valid")[0])
    }

    #[test]
    fn selects_that_write_or_lock_are_told_apart() {
        let (write, lock) = ((true, false), (false, true));
        for (sql, (writes, locks)) in [
            ("select 1", (false, false)),
            ("values (1)", (false, false)),
            ("table t", (false, false)),
            ("(select 1) union select 2", (false, false)),
            ("select * into x from t", write),
            (
                "with x as (delete from t returning *) select * from x",
                write,
            ),
            ("select * from (select 1 from t for update) q", lock),
        ] {
            assert_eq!(kind(sql), Kind::Select { writes, locks }, "{sql}");
        }
    }

    #[test]
    fn transactions_keep_their_modes() {
        let options = TransactionOptions {
            isolation: Some("repeatable read".into()),
            read_only: Some(true),
            ..Default::default()
        };
        let begin = "begin isolation level repeatable read, read only";
        assert_eq!(kind(begin), Kind::Begin { options });
        assert_eq!(kind("commit and chain"), Kind::Commit { chain: true });
        assert_eq!(kind("abort"), Kind::Rollback { chain: false });
        let name = "A b".into();
        assert_eq!(
            kind("rollback to savepoint \"A b\""),
            Kind::RollbackTo { name }
        );
    }

    #[test]
    fn session_statements_are_told_apart() {
        let time_zone = Kind::Set {
            name: "timezone".into(),
            local: true,
            to_default: false,
            value: Some("UTC".into()),
        };
        assert_eq!(kind("set local time zone 'UTC'"), time_zone);
        assert_eq!(kind("reset all"), Kind::Reset { name: None });
        let name = "transaction_isolation".into();
        assert_eq!(
            kind("show transaction isolation level"),
            Kind::Show { name }
        );
        assert_eq!(kind("discard all"), Kind::Discard { all: true });
        assert_eq!(kind("deallocate all"), Kind::Deallocate { name: None });
        assert_eq!(kind("close all"), Kind::CloseCursor { name: None });
        assert_eq!(kind("copy t from stdin"), Kind::CopyIn);
        assert_eq!(kind("create table t (a int)"), Kind::Ddl);
        assert_eq!(kind("insert into t values (1)"), Kind::Insert);
    }

    #[test]
    fn explain_keeps_the_explained_text() {
        let Kind::Explain { options, inner } =
            kind("explain (analyze, verbose off) select  1 from t")
        else {
            panic!("not an EXPLAIN");
        };
        assert!(options.analyze && !options.verbose);
        assert_eq!(inner, "select  1 from t");
    }

    #[test]
    fn a_comment_for_pgbraid_stays_before_the_statement_within() {
        let ours = "/* pgbraid shard=s1 */ select  1";
        for head in [
            "explain",
            "explain (analyze)",
            "prepare p as",
            "declare c cursor for",
        ] {
            let inner = |comment: &str| match kind(&format!("{head} {comment} select  1")) {
                Kind::Explain { inner, .. }
                | Kind::Prepare { inner, .. }
                | Kind::DeclareCursor { inner, .. } => inner,
                other => panic!("{other:?}"),
            };
            assert_eq!(inner("/* pgbraid shard=s1 */"), ours, "{head}");
            let behind = inner("/* app */ -- pgbraid shard=s1\n");
            assert_eq!(
                super::super::shard_by_comment(&behind),
                Ok(Some("s1")),
                "{head}"
            );
            for other in ["/* pgbraid */", "/* app */", ""] {
                let inner = inner(other);
                assert!(
                    inner.to_lowercase().starts_with("select"),
                    "{head} {other}: {inner}"
                );
            }
        }
    }

    #[test]
    fn cursors_and_fetches() {
        let Kind::DeclareCursor {
            name,
            cursor,
            inner,
        } = kind("declare c scroll cursor with hold for select 1")
        else {
            panic!("not a cursor");
        };
        assert_eq!((name.as_str(), inner.as_str()), ("c", "select 1"));
        assert!(cursor.scroll && cursor.hold && !cursor.binary && !cursor.no_scroll);
        let fetch = |count, direction, is_move| Kind::Fetch {
            name: "c".into(),
            direction,
            count,
            is_move,
        };
        assert_eq!(
            kind("fetch 5 from c"),
            fetch(5, FetchDirection::Forward, false)
        );
        assert_eq!(
            kind("move backward all in c"),
            fetch(i64::MAX, FetchDirection::Backward, true)
        );
    }

    #[test]
    fn functions_are_named_once() {
        let s = &super::super::parse(
            "select f(1), pg_catalog.nextval('s'), f(2) from g() where exists (select h())",
        )
        .expect("valid")[0];
        assert_eq!(
            super::super::functions_called(&s.node),
            ["g", "h", "f", "nextval"]
        );
    }
}
