//! INSERT, UPDATE and DELETE: what they change, and all that they read, written as a SELECT.

use super::Statement;
use super::ast::{self, node::Node};

/// A statement that changes one table.
#[derive(Debug, Clone)]
pub struct Change {
    /// The table as it is named.
    pub table: ast::RangeVar,
    /// How it is changed.
    pub kind: ChangeKind,
    /// Names every relation, function and parameter that the statement names: the table and what else stands in FROM or USING, values,
    /// conditions, RETURNING. It is never run. Its WHERE is that of an UPDATE or DELETE.
    pub reads: ast::SelectStmt,
}

/// How a table is changed.
#[derive(Debug, Clone)]
pub enum ChangeKind {
    /// INSERT.
    Insert {
        /// As they are listed; all columns in their order where none is.
        columns: Vec<String>,
        /// Values of VALUES, row by row; the select list of a plain SELECT as one row. `None` where it cannot be told which value a column
        /// gets. A DEFAULT stands as it is.
        rows: Option<Vec<Vec<ast::Node>>>,
        /// What DO UPDATE sets.
        updated: Vec<String>,
        /// With ON CONFLICT: the list of `reads` begins with EXISTS over a table of its own, `excluded`.
        on_conflict: bool,
    },
    /// UPDATE.
    Update {
        /// What is set.
        columns: Vec<String>,
        /// What of it is set to DEFAULT.
        defaulted: Vec<String>,
    },
    /// DELETE.
    Delete,
}

/// The name under which ON CONFLICT knows the row that was not inserted.
pub const EXCLUDED: &str = "excluded";

/// What a statement changes; `None` for other statements.
pub fn change(statement: &Node) -> Option<Change> {
    match statement {
        Node::InsertStmt(insert) => of_insert(insert),
        Node::UpdateStmt(update) => of_update(update),
        Node::DeleteStmt(delete) => {
            let table = delete.relation.clone()?;
            let mut from = vec![range_var(table.clone())];
            from.extend(delete.using_clause.iter().cloned());
            let reads = ast::SelectStmt {
                target_list: returning(delete.returning_clause.as_ref()),
                from_clause: from,
                where_clause: delete.where_clause.clone(),
                with_clause: delete.with_clause.clone(),
                ..empty_select()
            };
            Some(Change {
                table,
                kind: ChangeKind::Delete,
                reads,
            })
        }
        _ => None,
    }
}

/// A change as the SELECT of what it reads, for what is asked of SELECTs only; `None` for other statements.
pub fn reading(statement: &Statement) -> Option<Statement> {
    let reads = change(&statement.node)?.reads;
    Some(Statement {
        text: statement.text.clone(),
        offset: statement.offset,
        node: Node::SelectStmt(Box::new(reads)),
    })
}

fn of_update(update: &ast::UpdateStmt) -> Option<Change> {
    let table = update.relation.clone()?;
    let mut from = vec![range_var(table.clone())];
    from.extend(update.from_clause.iter().cloned());
    let mut targets = assigned_values(&update.target_list);
    targets.extend(returning(update.returning_clause.as_ref()));
    let reads = ast::SelectStmt {
        target_list: targets,
        from_clause: from,
        where_clause: update.where_clause.clone(),
        with_clause: update.with_clause.clone(),
        ..empty_select()
    };
    let is_default = |node: &&ast::Node| match &node.node {
        Some(Node::ResTarget(t)) => {
            matches!(
                t.val.as_deref().map(|v| &v.node),
                Some(Some(Node::SetToDefault(_)))
            )
        }
        _ => false,
    };
    let defaulted: Vec<ast::Node> = update
        .target_list
        .iter()
        .filter(is_default)
        .cloned()
        .collect();
    let kind = ChangeKind::Update {
        columns: names(&update.target_list),
        defaulted: names(&defaulted),
    };
    Some(Change { table, kind, reads })
}

fn of_insert(insert: &ast::InsertStmt) -> Option<Change> {
    let table = insert.relation.clone()?;
    let mut from = vec![range_var(table.clone())];
    let mut targets = Vec::new();
    let rows;
    match insert.select_stmt.as_deref().map(|n| &n.node) {
        None => rows = Some(vec![Vec::new()]),
        Some(Some(Node::SelectStmt(select))) if is_values(select) => {
            let lists: Vec<Vec<ast::Node>> = select.values_lists.iter().map(list).collect();
            let values = lists.iter().flatten();
            let given = values.filter(|v| !matches!(v.node, Some(Node::SetToDefault(_))));
            targets.extend(given.map(|v| target(v.clone())));
            rows = Some(lists);
        }
        Some(Some(Node::SelectStmt(select))) => {
            rows = select_list(select).map(|row| vec![row]);
            from.push(subselect(select));
        }
        Some(_) => return None,
    }
    let mut updated = Vec::new();
    if let Some(conflict) = &insert.on_conflict_clause {
        updated = names(&conflict.target_list);
        targets.insert(0, target(on_conflict(conflict, &table)));
    }
    targets.extend(returning(insert.returning_clause.as_ref()));
    let reads = ast::SelectStmt {
        target_list: targets,
        from_clause: from,
        with_clause: insert.with_clause.clone(),
        ..empty_select()
    };
    let kind = ChangeKind::Insert {
        columns: names(&insert.cols),
        rows,
        updated,
        on_conflict: insert.on_conflict_clause.is_some(),
    };
    Some(Change { table, kind, reads })
}

/// What DO UPDATE reads, where `excluded` is in scope, as a subquery.
fn on_conflict(conflict: &ast::OnConflictClause, table: &ast::RangeVar) -> ast::Node {
    let excluded = ast::RangeVar {
        alias: Some(ast::Alias {
            aliasname: EXCLUDED.into(),
            colnames: Vec::new(),
        }),
        ..table.clone()
    };
    let mut values = assigned_values(&conflict.target_list);
    values.extend(conflict.where_clause.as_deref().cloned().map(target));
    let select = ast::SelectStmt {
        target_list: values,
        from_clause: vec![range_var(excluded)],
        ..empty_select()
    };
    node(Node::SubLink(Box::new(ast::SubLink {
        sub_link_type: ast::SubLinkType::ExistsSublink as i32,
        subselect: Some(Box::new(node(Node::SelectStmt(Box::new(select))))),
        location: -1,
        ..Default::default()
    })))
}

/// A plain VALUES list.
fn is_values(select: &ast::SelectStmt) -> bool {
    !select.values_lists.is_empty()
        && select.with_clause.is_none()
        && select.sort_clause.is_empty()
        && select.limit_count.is_none()
        && select.limit_offset.is_none()
}

/// The values of a plain SELECT, where each stands at its column's place.
fn select_list(select: &ast::SelectStmt) -> Option<Vec<ast::Node>> {
    if select.larg.is_some() || !select.values_lists.is_empty() {
        return None;
    }
    let value = |node: &ast::Node| match &node.node {
        Some(Node::ResTarget(t)) => t.val.as_deref().cloned(),
        _ => None,
    };
    let row: Vec<ast::Node> = select
        .target_list
        .iter()
        .map(value)
        .collect::<Option<_>>()?;
    let is_star = |node: &ast::Node| match &node.node {
        Some(Node::ColumnRef(c)) => c
            .fields
            .iter()
            .any(|f| matches!(f.node, Some(Node::AStar(_)))),
        Some(Node::AIndirection(_)) => true,
        _ => false,
    };
    (!row.iter().any(is_star)).then_some(row)
}

/// The right sides of SET, and what stands in subscripts on the left.
fn assigned_values(set: &[ast::Node]) -> Vec<ast::Node> {
    let mut values = Vec::new();
    for node in set {
        let Some(Node::ResTarget(t)) = &node.node else {
            continue;
        };
        for index in &t.indirection {
            if let Some(Node::AIndices(i)) = &index.node {
                values.extend(i.lidx.as_deref().cloned().map(target));
                values.extend(i.uidx.as_deref().cloned().map(target));
            }
        }
        let Some(value) = t.val.as_deref() else {
            continue;
        };
        match &value.node {
            Some(Node::SetToDefault(_)) => {}
            Some(Node::MultiAssignRef(m)) if m.colno > 1 => {}
            Some(Node::MultiAssignRef(m)) => {
                values.extend(m.source.as_deref().cloned().map(of_row).map(target));
            }
            _ => values.push(target(value.clone())),
        }
    }
    values
}

/// The source of `(a, b) = …` as one value: of a subquery only that it is read counts.
fn of_row(mut source: ast::Node) -> ast::Node {
    if let Some(Node::SubLink(s)) = &mut source.node {
        s.sub_link_type = ast::SubLinkType::ExistsSublink as i32;
    }
    source
}

fn returning(clause: Option<&ast::ReturningClause>) -> Vec<ast::Node> {
    clause.map_or_else(Vec::new, |c| c.exprs.clone())
}

fn names(targets: &[ast::Node]) -> Vec<String> {
    let name = |node: &ast::Node| match &node.node {
        Some(Node::ResTarget(t)) => Some(t.name.clone()),
        _ => None,
    };
    targets.iter().filter_map(name).collect()
}

fn list(node: &ast::Node) -> Vec<ast::Node> {
    match &node.node {
        Some(Node::List(l)) => l.items.clone(),
        _ => Vec::new(),
    }
}

fn target(value: ast::Node) -> ast::Node {
    node(Node::ResTarget(Box::new(ast::ResTarget {
        val: Some(Box::new(value)),
        ..Default::default()
    })))
}

fn range_var(table: ast::RangeVar) -> ast::Node {
    node(Node::RangeVar(table))
}

fn subselect(select: &ast::SelectStmt) -> ast::Node {
    node(Node::RangeSubselect(Box::new(ast::RangeSubselect {
        lateral: false,
        subquery: Some(Box::new(node(Node::SelectStmt(Box::new(select.clone()))))),
        alias: Some(ast::Alias {
            aliasname: "pgbraid_rows".into(),
            colnames: Vec::new(),
        }),
    })))
}

fn node(node: Node) -> ast::Node {
    ast::Node { node: Some(node) }
}

/// As the parser makes one.
fn empty_select() -> ast::SelectStmt {
    ast::SelectStmt {
        limit_option: ast::LimitOption::Default as i32,
        op: ast::SetOperation::SetopNone as i32,
        ..Default::default()
    }
}
