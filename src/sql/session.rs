//! What a statement does to the session it runs in: settings changed by functions, PREPARE and EXECUTE in SQL.

use pg_query::protobuf::{self as ast, node::Node};

use super::classify::{is_on, string_of};
use super::{Child, Statement, expression_text, walk, walk_statement};

/// One `set_config('name', …, is_local)`. The value may be any expression: the shard is asked for it afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetConfig {
    /// The setting's name.
    pub name: String,
    /// Ends with the transaction.
    pub is_local: bool,
    /// As far as it is known before.
    pub value: SetValue,
}

/// What is known of a value before the statement runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetValue {
    /// It stands there.
    Literal(String),
    /// A parameter's, by its place (0-based).
    Parameter(usize),
    /// Only the shard knows.
    Computed,
}

fn set_value(node: &ast::Node) -> SetValue {
    match &node.node {
        Some(Node::ParamRef(p)) => match usize::try_from(p.number - 1) {
            Ok(place) => SetValue::Parameter(place),
            Err(_) => SetValue::Computed,
        },
        _ => match string_of(Some(node)) {
            Some(text) => SetValue::Literal(text),
            None => SetValue::Computed,
        },
    }
}

/// The statement with other literals for the values of set_config() that are columns of it: `new` is asked by name and value. `None`
/// where it has none to change.
pub fn with_set_values(
    statement: &Statement,
    new: impl Fn(&str, &str) -> Option<String>,
) -> Option<String> {
    let Node::SelectStmt(select) = &statement.node else {
        return None;
    };
    let mut select = select.clone();
    let mut changed = false;
    for target in &mut select.target_list {
        let Some(Node::ResTarget(target)) = &mut target.node else {
            continue;
        };
        let Some(Node::FuncCall(call)) = target.val.as_mut().and_then(|v| v.node.as_mut()) else {
            continue;
        };
        let name = call.funcname.last();
        if string_of(name).as_deref() != Some("set_config") {
            continue;
        }
        let [name, value, _] = call.args.as_mut_slice() else {
            continue;
        };
        let (Some(name), Some(Node::AConst(literal))) = (string_of(Some(name)), &mut value.node)
        else {
            continue;
        };
        if let Some(ast::a_const::Val::Sval(text)) = &mut literal.val
            && let Some(new) = new(&name, &text.sval)
        {
            text.sval = new;
            changed = true;
        }
    }
    changed.then_some(())?;
    super::statement_text(&Node::SelectStmt(select)).ok()
}

/// All set_config calls of a statement; `None` when one cannot be followed: its name is no literal, or it may run more or
/// less often than once.
pub fn set_config_calls(statement: &Statement) -> Option<Vec<SetConfig>> {
    let mut calls = Vec::new();
    let mut readable = true;
    walk_statement(&statement.node, &mut |child| {
        if let Child::Node(ast::Node {
            node: Some(Node::FuncCall(call)),
        }) = child
            && call
                .funcname
                .last()
                .and_then(|n| string_of(Some(n)))
                .as_deref()
                == Some("set_config")
        {
            match read_call(call) {
                Some(found) => calls.push(found),
                None => readable = false,
            }
        }
        true
    });
    if let (false, [], Some(call)) = (readable, calls.as_slice(), of_settings(&statement.node)) {
        return Some(vec![call]);
    }
    let once = matches!(&statement.node, Node::SelectStmt(s)
        if s.from_clause.is_empty() && s.where_clause.is_none() && s.with_clause.is_none());
    (readable && (calls.is_empty() || once)).then_some(calls)
}

/// `SELECT set_config(name, …, is_local) FROM pg_settings WHERE name = '…'`, which runs once or, where there is no such setting, never.
fn of_settings(node: &Node) -> Option<SetConfig> {
    let Node::SelectStmt(select) = node else {
        return None;
    };
    let ([target], [from], Some(condition)) = (
        select.target_list.as_slice(),
        select.from_clause.as_slice(),
        select.where_clause.as_deref(),
    ) else {
        return None;
    };
    // Nothing else is in it.
    let bare = ast::SelectStmt {
        target_list: select.target_list.clone(),
        from_clause: select.from_clause.clone(),
        where_clause: select.where_clause.clone(),
        limit_option: select.limit_option,
        op: select.op,
        ..ast::SelectStmt::default()
    };
    let (Some(Node::ResTarget(target)), Some(Node::RangeVar(from)), Some(Node::AExpr(equals))) =
        (&target.node, &from.node, &condition.node)
    else {
        return None;
    };
    let of_catalog = matches!(from.schemaname.as_str(), "" | "pg_catalog");
    let Some(Node::FuncCall(call)) = target.val.as_deref().and_then(|v| v.node.as_ref()) else {
        return None;
    };
    let [name, value, is_local] = call.args.as_slice() else {
        return None;
    };
    let is_equal = matches!(equals.name.as_slice(), [op] if string_of(Some(op))? == "=");
    let compared = equals.lexpr.as_deref().is_some_and(is_name_column);
    if bare != **select
        || !of_catalog
        || from.relname != "pg_settings"
        || !is_equal
        || !compared
        || !is_name_column(name)
    {
        return None;
    }
    Some(SetConfig {
        name: string_of(equals.rexpr.as_deref())?,
        is_local: is_on(Some(&string_of(Some(is_local))?)),
        value: set_value(value),
    })
}

/// The column `name`, without a table.
fn is_name_column(node: &ast::Node) -> bool {
    match &node.node {
        Some(Node::ColumnRef(column)) => {
            let [name] = column.fields.as_slice() else {
                return false;
            };
            string_of(Some(name)).as_deref() == Some("name")
        }
        _ => false,
    }
}

fn read_call(call: &ast::FuncCall) -> Option<SetConfig> {
    let [name, value, is_local] = call.args.as_slice() else {
        return None;
    };
    Some(SetConfig {
        name: string_of(Some(name))?,
        is_local: is_on(Some(&string_of(Some(is_local))?)),
        value: set_value(value),
    })
}

/// True when a FROM names a relation of the system catalogs.
pub fn reads_catalog(statement: &Statement) -> bool {
    let mut found = false;
    walk_statement(&statement.node, &mut |child| {
        if let Child::Node(ast::Node {
            node: Some(Node::RangeVar(relation)),
        }) = child
        {
            found |= relation.relname.starts_with("pg_")
                || matches!(
                    relation.schemaname.as_str(),
                    "pg_catalog" | "information_schema"
                );
        }
        true
    });
    found
}

/// True when a FROM names such a relation of the system catalogs.
pub fn names_relation(statement: &Statement, name: &str) -> bool {
    let mut found = false;
    walk_statement(&statement.node, &mut |child| {
        if let Child::Node(ast::Node {
            node: Some(Node::RangeVar(relation)),
        }) = child
        {
            let in_catalog = matches!(relation.schemaname.as_str(), "" | "pg_catalog");
            found |= relation.relname == name && in_catalog;
        }
        true
    });
    found
}

/// The parameter that stands first in the text: its number and 1-based character position.
pub fn first_parameter(statement: &Statement) -> Option<(i32, usize)> {
    let mut first: Option<(i32, i32)> = None;
    walk_statement(&statement.node, &mut |child| {
        if let Child::Node(ast::Node {
            node: Some(Node::ParamRef(p)),
        }) = child
            && first.is_none_or(|(_, at)| p.location < at)
        {
            first = Some((p.number, p.location));
        }
        true
    });
    let (number, at) = first?;
    let before = statement.text.get(..usize::try_from(at).ok()?)?;
    Some((number, before.chars().count() + 1))
}

/// Parameter types of `PREPARE name (types) AS …` as written; the rest are left to PostgreSQL.
pub fn prepare_types(statement: &Statement) -> Vec<String> {
    let Node::PrepareStmt(prepare) = &statement.node else {
        return Vec::new();
    };
    let name = |node: &ast::Node| match &node.node {
        Some(Node::TypeName(t)) => type_text(t),
        _ => None,
    };
    prepare.argtypes.iter().filter_map(name).collect()
}

/// Prints a type by way of a cast to it, the only expression that names one.
fn type_text(name: &ast::TypeName) -> Option<String> {
    let null = ast::Node {
        node: Some(Node::AConst(ast::AConst {
            isnull: true,
            val: None,
            location: 0,
        })),
    };
    let cast = ast::TypeCast {
        arg: Some(Box::new(null)),
        type_name: Some(name.clone()),
        location: 0,
    };
    let text = expression_text(&ast::Node {
        node: Some(Node::TypeCast(Box::new(cast))),
    })
    .ok()?;
    text.strip_prefix("NULL::").map(str::to_owned)
}

/// The arguments of `EXECUTE name (…)` as SQL.
pub fn execute_arguments(statement: &Statement) -> Vec<String> {
    let Node::ExecuteStmt(execute) = &statement.node else {
        return Vec::new();
    };
    execute
        .params
        .iter()
        .filter_map(|p| expression_text(p).ok())
        .collect()
}

/// True for an EXECUTE with an argument that is more than a constant.
pub fn execute_computes(statement: &Statement) -> bool {
    match &statement.node {
        Node::ExecuteStmt(execute) => execute
            .params
            .iter()
            .any(|p| !matches!(p.node, Some(Node::AConst(_)))),
        _ => false,
    }
}

/// Where an argument of an EXECUTE has a subquery, which PostgreSQL does not take: its byte position.
pub fn execute_subquery(statement: &Statement) -> Option<usize> {
    let Node::ExecuteStmt(execute) = &statement.node else {
        return None;
    };
    let mut found = None;
    for argument in &execute.params {
        walk(Child::Node(argument), &mut |child| {
            if let Child::Node(ast::Node {
                node: Some(Node::SubLink(link)),
            }) = child
            {
                found = found.or(usize::try_from(link.location).ok());
            }
            true
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> Statement {
        crate::sql::parse(sql).expect("valid").remove(0)
    }

    #[test]
    fn set_config_calls_are_followed_where_they_run_once() {
        let calls = set_config_calls(&parsed(
            "select current_setting('jit') as cur, set_config('jit', $1, false)",
        ));
        assert_eq!(
            calls,
            Some(vec![SetConfig {
                name: "jit".into(),
                is_local: false,
                value: SetValue::Parameter(0),
            }])
        );
        assert_eq!(
            set_config_calls(&parsed("select set_config('a', x, true) from t")),
            None
        );
        assert_eq!(
            set_config_calls(&parsed("select set_config(n, 'x', true)")),
            None
        );
        assert_eq!(set_config_calls(&parsed("select 1 from t")), Some(vec![]));
        let of_settings = |tail: &str| {
            let sql = format!("select set_config(name, 'view', false) from pg_settings {tail}");
            set_config_calls(&parsed(&sql)).map(|calls| calls.len())
        };
        assert_eq!(of_settings("where name = 'jit'"), Some(1));
        for tail in [
            "",
            "where name <> 'jit'",
            "where name = 'jit' limit 0",
            "where name = $1",
        ] {
            assert_eq!(of_settings(tail), None, "{tail}");
        }
    }

    #[test]
    fn literals_of_set_config_are_replaced_where_they_are_columns() {
        let on = |name: &str, value: &str| (name == "a" && value == "true").then(|| "on".into());
        let replaced = |sql: &str| with_set_values(&parsed(sql), on);
        assert_eq!(
            replaced("select 1, set_config('a', 'true', false) as x").as_deref(),
            Some("SELECT 1, set_config('a', 'on', false) AS x")
        );
        for sql in [
            "select set_config('b', 'true', false)",
            "select set_config('a', 'on', false)",
            "select set_config('a', $1, false)",
            "select 1",
        ] {
            assert_eq!(replaced(sql), None, "{sql}");
        }
    }

    #[test]
    fn prepare_and_execute_are_taken_apart() {
        assert_eq!(
            prepare_types(&parsed(
                "prepare p (int, numeric(10,2), text[]) as select 1"
            )),
            ["int", "numeric(10, 2)", "text[]"]
        );
        assert_eq!(
            execute_arguments(&parsed("execute p (1 + 2, 'x')")),
            ["1 + 2", "'x'"]
        );
    }
}
