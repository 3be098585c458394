//! What the session must do with a statement.

use pg_query::protobuf::{self as ast, node::Node};

use super::Statement;

/// A statement by who deals with it.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Nothing but white space and comments.
    Empty,
    /// SELECT, VALUES, TABLE. A data-modifying CTE does not make it another kind: see `writes`.
    Select {
        /// WITH … INSERT/UPDATE/DELETE/MERGE, or SELECT INTO.
        writes: bool,
        /// FOR UPDATE and its like at any level.
        locks: bool,
    },
    /// EXPLAIN.
    Explain {
        /// What was asked for.
        options: ExplainOptions,
        /// The statement explained.
        inner: String,
    },
    /// BEGIN, START TRANSACTION.
    Begin {
        /// What was asked for.
        options: TransactionOptions,
    },
    /// COMMIT, END.
    Commit {
        /// AND CHAIN: another transaction follows at once.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN: another transaction follows at once.
        chain: bool,
    },
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    /// SAVEPOINT.
    Savepoint {
        /// As SQL names it.
        name: String,
    },
    /// RELEASE SAVEPOINT.
    Release {
        /// As SQL names it.
        name: String,
    },
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo {
        /// As SQL names it.
        name: String,
    },
    /// SET name = …; `SET TIME ZONE` is `timezone`, `SET ROLE` `role`. `to_default` for `= DEFAULT`.
    Set {
        /// As SQL names it.
        name: String,
        /// Until the end of the transaction.
        local: bool,
        /// To the value the session began with.
        to_default: bool,
    },
    /// RESET name, or ALL where `None`.
    Reset {
        /// As SQL names it.
        name: Option<String>,
    },
    /// SHOW.
    Show {
        /// As SQL names it.
        name: String,
    },
    /// SET TRANSACTION.
    SetTransaction {
        /// What was asked for.
        options: TransactionOptions,
    },
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetSessionCharacteristics {
        /// What was asked for.
        options: TransactionOptions,
    },
    /// SET CONSTRAINTS.
    SetConstraints,
    /// DISCARD ALL, PLANS, SEQUENCES, TEMP.
    Discard {
        /// DISCARD ALL.
        all: bool,
    },
    /// DEALLOCATE name, or ALL where `None`.
    Deallocate {
        /// As SQL names it.
        name: Option<String>,
    },
    /// PREPARE name AS ….
    Prepare {
        /// As SQL names it.
        name: String,
        /// Type names as written, joined as SQL.
        inner: String,
    },
    /// EXECUTE name.
    Execute {
        /// As SQL names it.
        name: String,
    },
    /// DECLARE CURSOR.
    DeclareCursor {
        /// As SQL names it.
        name: String,
        /// Its properties.
        cursor: CursorKind,
        /// The cursor's query.
        inner: String,
    },
    /// FETCH, MOVE.
    Fetch {
        /// As SQL names it.
        name: String,
        /// Which way.
        direction: FetchDirection,
        /// i64::MAX for ALL.
        count: i64,
        /// MOVE: no rows are returned.
        is_move: bool,
    },
    /// CLOSE name, or ALL where `None`.
    CloseCursor {
        /// As SQL names it.
        name: Option<String>,
    },
    /// COPY TO.
    CopyOut {
        /// The query of COPY (query) TO.
        inner: Option<String>,
    },
    /// COPY FROM.
    CopyIn,
    /// LISTEN.
    Listen,
    /// UNLISTEN.
    Unlisten,
    /// NOTIFY.
    Notify,
    /// LOCK TABLE.
    Lock,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
    /// Anything that changes the catalog; also VACUUM, ANALYZE, REINDEX and their like.
    Ddl,
    /// Anything else.
    Other,
}

/// How EXPLAIN prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExplainFormat {
    /// As it is.
    #[default]
    Text,
    /// Anything else.
    Other,
}

/// EXPLAIN's options.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExplainOptions {
    /// Run it.
    pub analyze: bool,
    /// VERBOSE.
    pub verbose: bool,
    /// How it is printed.
    pub format: ExplainFormat,
    /// Name and value of every option, for passing on.
    pub all: Vec<(String, Option<String>)>,
}

/// Properties of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionOptions {
    /// `serializable`, `repeatable read`, `read committed`, `read uncommitted`.
    pub isolation: Option<String>,
    /// READ ONLY or READ WRITE, where said.
    pub read_only: Option<bool>,
    /// DEFERRABLE or not, where said.
    pub deferrable: Option<bool>,
    /// SET TRANSACTION SNAPSHOT.
    pub snapshot: Option<String>,
}

/// Properties of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CursorKind {
    /// Rows in binary form.
    pub binary: bool,
    /// SCROLL.
    pub scroll: bool,
    /// NO SCROLL.
    pub no_scroll: bool,
    /// WITH HOLD: outlives its transaction.
    pub hold: bool,
}

/// FETCH's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchDirection {
    /// NEXT, FORWARD, FIRST.
    Forward,
    /// PRIOR, BACKWARD, LAST.
    Backward,
    /// ABSOLUTE n.
    Absolute,
    /// RELATIVE n.
    Relative,
}

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
            inner: inner_text(p.query.as_deref()),
        },
        Node::ExecuteStmt(e) => Kind::Execute {
            name: e.name.clone(),
        },
        Node::DeclareCursorStmt(c) => Kind::DeclareCursor {
            name: c.portalname.clone(),
            cursor: cursor_kind(c.options),
            inner: inner_text(c.query.as_deref()),
        },
        Node::FetchStmt(f) => fetch_kind(f),
        Node::ClosePortalStmt(c) => Kind::CloseCursor {
            name: (!c.portalname.is_empty()).then(|| c.portalname.clone()),
        },
        Node::CopyStmt(c) if c.is_from => Kind::CopyIn,
        Node::CopyStmt(c) => Kind::CopyOut {
            inner: c.query.as_deref().map(|q| inner_text(Some(q))),
        },
        Node::ListenStmt(_) => Kind::Listen,
        Node::UnlistenStmt(_) => Kind::Unlisten,
        Node::NotifyStmt(_) => Kind::Notify,
        Node::LockStmt(_) => Kind::Lock,
        Node::InsertStmt(_) => Kind::Insert,
        Node::UpdateStmt(_) => Kind::Update,
        Node::DeleteStmt(_) => Kind::Delete,
        Node::MergeStmt(_) => Kind::Merge,
        Node::DoStmt(_) | Node::CallStmt(_) | Node::LoadStmt(_) | Node::CheckPointStmt(_) => {
            Kind::Other
        }
        _ => Kind::Ddl,
    }
}

fn inner_text(node: Option<&ast::Node>) -> String {
    node.and_then(|n| n.node.as_ref())
        .and_then(|n| super::statement_text(n).ok())
        .unwrap_or_default()
}

fn select_kind(select: &ast::SelectStmt) -> Kind {
    let (mut writes, mut locks) = (false, false);
    let known = super::walk(super::Child::Select(select), &mut |c| {
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
    let _ = known;
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

fn options(list: &[ast::Node]) -> impl Iterator<Item = &ast::DefElem> {
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
    let deparsed = inner_text(explain.query.as_deref());
    Kind::Explain {
        options: out,
        inner: explained_text(text, explain).unwrap_or(deparsed),
    }
}

/// The explained statement as the client wrote it, where it can be cut from the text: behind the options.
fn explained_text(text: &str, explain: &ast::ExplainStmt) -> Option<String> {
    let wanted = explain.query.as_deref()?.node.as_ref()?;
    let lower = text.to_ascii_lowercase();
    let starts = [
        "select", "with", "values", "table", "(", "insert", "update", "delete", "merge",
    ];
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
    fn session_statements_are_told_apart() {
        let read = |sql| {
            kind(sql)
                == Kind::Select {
                    writes: false,
                    locks: false,
                }
        };
        assert!(
            read("select 1")
                && read("values (1)")
                && read("table t")
                && read("(select 1) union select 2")
        );
        assert_eq!(
            kind("select * into x from t"),
            Kind::Select {
                writes: true,
                locks: false
            }
        );
        assert_eq!(
            kind("with x as (delete from t returning *) select * from x"),
            Kind::Select {
                writes: true,
                locks: false
            }
        );
        assert_eq!(
            kind("select * from (select 1 from t for update) q"),
            Kind::Select {
                writes: false,
                locks: true
            }
        );
        assert_eq!(
            kind("begin isolation level repeatable read, read only"),
            Kind::Begin {
                options: TransactionOptions {
                    isolation: Some("repeatable read".into()),
                    read_only: Some(true),
                    ..Default::default()
                }
            }
        );
        assert_eq!(kind("commit and chain"), Kind::Commit { chain: true });
        assert_eq!(kind("abort"), Kind::Rollback { chain: false });
        assert_eq!(
            kind("rollback to savepoint \"A b\""),
            Kind::RollbackTo { name: "A b".into() }
        );
        assert_eq!(
            kind("set local time zone 'UTC'"),
            Kind::Set {
                name: "timezone".into(),
                local: true,
                to_default: false
            }
        );
        assert_eq!(kind("reset all"), Kind::Reset { name: None });
        assert_eq!(
            kind("show transaction isolation level"),
            Kind::Show {
                name: "transaction_isolation".into()
            }
        );
        assert_eq!(kind("discard all"), Kind::Discard { all: true });
        assert_eq!(kind("deallocate all"), Kind::Deallocate { name: None });
        assert_eq!(kind("close all"), Kind::CloseCursor { name: None });
        assert_eq!(
            kind("copy (select 1) to stdout"),
            Kind::CopyOut {
                inner: Some("SELECT 1".into())
            }
        );
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
    fn cursors_and_fetches() {
        let Kind::DeclareCursor {
            name,
            cursor,
            inner,
        } = kind("declare c scroll cursor with hold for select 1")
        else {
            panic!("not a cursor");
        };
        assert_eq!((name.as_str(), inner.as_str()), ("c", "SELECT 1"));
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
