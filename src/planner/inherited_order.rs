//! The order of a query in FROM: PostgreSQL hands its rows on as they come, and LIMIT takes the first of them, although SQL promises
//! neither. Where the outer query has no order of its own, it gets that of the inner one.

use super::blocks::ordinal;
use super::from_items::{alias_columns, alias_name};
use super::functions;
use super::outputs::{column_name, targets};
use super::scope::{find_table, name_parts};
use super::stages::string;
use crate::catalog::Catalog;
use crate::sql::ast::{self, node::Node};
use crate::sql::{any_node, expression_text};

/// Views nest at most this deep here; more of them are left to the merge session.
const DEPTH_MAX: usize = 8;

/// The order in which a query's rows come.
enum Order {
    /// Any.
    None,
    /// By these of its columns.
    By(Vec<(String, ast::SortBy)>),
    /// By something that is none of its columns.
    Hidden,
}

/// Queries of WITH that a FROM may name, the nearest last.
type Ctes<'a> = Vec<(&'a str, &'a ast::CommonTableExpr)>;

struct Reader<'c> {
    catalog: &'c Catalog,
}

/// Gives a query without an order that of the only query in its FROM. True where that cannot be said in it: then one server must
/// run both.
pub(super) fn inherit(
    catalog: &Catalog,
    search_path: &[String],
    select: &mut ast::SelectStmt,
) -> bool {
    if !select.sort_clause.is_empty()
        || !select.locking_clause.is_empty()
        || select.into_clause.is_some()
    {
        return false;
    }
    let reader = Reader { catalog };
    if !reader.hands_on(select, search_path) {
        return false;
    }
    match reader.source(select, search_path, &Vec::new(), 0) {
        Some((_, Order::Hidden)) => true,
        Some((alias, Order::By(keys))) => {
            select.sort_clause = keys
                .into_iter()
                .map(|(column, key)| sort_by(&alias, &column, key))
                .collect();
            false
        }
        Some((_, Order::None)) | None => false,
    }
}

/// True for a query whose rows come in an order, its own or that of the only query in its FROM.
pub(super) fn is_ordered(
    catalog: &Catalog,
    search_path: &[String],
    select: &ast::SelectStmt,
) -> bool {
    let order = Reader { catalog }.order_of(select, search_path, &Vec::new(), 0);
    !matches!(order, Order::None)
}

fn sort_by(alias: &str, column: &str, key: ast::SortBy) -> ast::Node {
    let reference = ast::ColumnRef {
        fields: vec![string(alias), string(column)],
        location: -1,
    };
    ast::Node {
        node: Some(Node::SortBy(Box::new(ast::SortBy {
            node: Some(Box::new(ast::Node {
                node: Some(Node::ColumnRef(reference)),
            })),
            location: -1,
            ..key
        }))),
    }
}

impl Reader<'_> {
    /// True for a query that makes a row of each row it reads, one after the other.
    fn hands_on(&self, s: &ast::SelectStmt, search_path: &[String]) -> bool {
        let gathers = |n: &Node| match n {
            Node::FuncCall(call) => {
                call.over.is_some()
                    || functions::find(self.catalog, search_path, call)
                        .is_none_or(|f| f.aggregate || f.window)
            }
            _ => false,
        };
        s.larg.is_none()
            && s.values_lists.is_empty()
            && s.group_clause.is_empty()
            && s.having_clause.is_none()
            && s.distinct_clause.is_empty()
            && s.from_clause.len() == 1
            && !targets(s)
                .filter_map(|t| t.val.as_deref())
                .any(|value| any_node(value, &mut |n| gathers(n)))
    }

    /// Name and order of the only item of FROM, where that is a query, a view or one of WITH.
    fn source<'a>(
        &self,
        s: &'a ast::SelectStmt,
        search_path: &[String],
        ctes: &Ctes<'a>,
        depth: usize,
    ) -> Option<(String, Order)> {
        if depth > DEPTH_MAX {
            return Some((String::new(), Order::Hidden));
        }
        let mut ctes = ctes.clone();
        for node in s.with_clause.iter().flat_map(|w| &w.ctes) {
            if let Some(Node::CommonTableExpr(cte)) = &node.node {
                ctes.push((&cte.ctename, cte));
            }
        }
        let (alias, order) = match &s.from_clause.first()?.node {
            Some(Node::RangeSubselect(sub)) => {
                let Some(Node::SelectStmt(query)) = &sub.subquery.as_deref()?.node else {
                    return None;
                };
                let order = self.order_of(query, search_path, &ctes, depth + 1);
                (sub.alias.as_ref()?, order)
            }
            Some(Node::RangeVar(v)) => {
                let order = self.order_of_named(v, search_path, &ctes, depth + 1)?;
                match &v.alias {
                    Some(alias) => (alias, order),
                    None => return Some((v.relname.clone(), order)),
                }
            }
            _ => return None,
        };
        let name = alias_name(Some(alias)).unwrap_or_default().to_owned();
        match (order, alias_columns(Some(alias)).is_empty()) {
            // Under other names.
            (Order::By(_), false) => Some((name, Order::Hidden)),
            (order, _) => Some((name, order)),
        }
    }

    fn order_of_named<'a>(
        &self,
        v: &ast::RangeVar,
        search_path: &[String],
        ctes: &Ctes<'a>,
        depth: usize,
    ) -> Option<Order> {
        let is_cte = |(name, _): &(&str, _)| v.schemaname.is_empty() && *name == v.relname;
        if let Some(place) = ctes.iter().rposition(is_cte) {
            let cte = ctes[place].1;
            let Some(Node::SelectStmt(query)) = &cte.ctequery.as_deref()?.node else {
                return None;
            };
            let order = self.order_of(query, search_path, &ctes[..place].to_vec(), depth);
            return Some(match (order, cte.aliascolnames.is_empty()) {
                (Order::By(_), false) => Order::Hidden,
                (order, _) => order,
            });
        }
        let table = find_table(self.catalog, search_path, &v.schemaname, &v.relname)?;
        let text = table.view_definition.as_deref()?;
        let Some(Node::SelectStmt(body)) = crate::sql::parse(text).ok()?.pop().map(|s| s.node)
        else {
            return None;
        };
        let order = self.order_of(&body, &[], &Vec::new(), depth);
        // A view's columns have names of their own, which may be others than its query's.
        Some(match order {
            Order::By(keys) => {
                let names = self.outputs(&body, &[], &Vec::new());
                let same = names.is_some_and(|names| {
                    let columns = table.columns.iter().map(|c| &c.name);
                    names.len() == table.columns.len() && names.iter().map(|(n, _)| n).eq(columns)
                });
                match same {
                    true => Order::By(keys),
                    false => Order::Hidden,
                }
            }
            order => order,
        })
    }

    fn order_of<'a>(
        &self,
        s: &'a ast::SelectStmt,
        search_path: &[String],
        ctes: &Ctes<'a>,
        depth: usize,
    ) -> Order {
        // With a LIMIT only one server can run it anyway.
        if s.limit_count.is_some() || s.limit_offset.is_some() {
            return Order::None;
        }
        if !s.sort_clause.is_empty() {
            return self.own_order(s, search_path, ctes);
        }
        if !self.hands_on(s, search_path) {
            return Order::None;
        }
        match self.source(s, search_path, ctes, depth) {
            Some((alias, Order::By(keys))) => match renamed(s, &alias, keys) {
                Some(keys) => Order::By(keys),
                None => Order::Hidden,
            },
            Some((_, order)) => order,
            None => Order::None,
        }
    }

    /// A query's own ORDER BY, by the names of its columns.
    fn own_order(&self, s: &ast::SelectStmt, search_path: &[String], ctes: &Ctes<'_>) -> Order {
        let Some(outputs) = self.outputs(s, search_path, ctes) else {
            return Order::Hidden;
        };
        let mut keys = Vec::new();
        for node in &s.sort_clause {
            let Some(Node::SortBy(item)) = &node.node else {
                return Order::Hidden;
            };
            let found = item
                .node
                .as_deref()
                .and_then(|key| named(key, only_table(s), &outputs));
            match found {
                Some(name) => keys.push((name, (**item).clone())),
                None => return Order::Hidden,
            }
        }
        Order::By(keys)
    }

    /// Names and expressions of a query's columns, a star over one table written out; `None` where they are not known.
    fn outputs<'a>(
        &self,
        s: &'a ast::SelectStmt,
        search_path: &[String],
        ctes: &Ctes<'_>,
    ) -> Option<Vec<(String, Option<&'a ast::Node>)>> {
        if s.larg.is_some() || !s.values_lists.is_empty() {
            return None;
        }
        let mut outputs = Vec::new();
        for target in targets(s) {
            let value = target.val.as_deref()?;
            if !is_star(value) {
                let name = match target.name.is_empty() {
                    true => column_name(value).1,
                    false => target.name.clone(),
                };
                outputs.push((name, Some(value)));
                continue;
            }
            let [
                ast::Node {
                    node: Some(Node::RangeVar(v)),
                },
            ] = &s.from_clause[..]
            else {
                return None;
            };
            let is_cte = ctes.iter().any(|(name, _)| *name == v.relname);
            if is_cte || s.with_clause.is_some() || !alias_columns(v.alias.as_ref()).is_empty() {
                return None;
            }
            let table = find_table(self.catalog, search_path, &v.schemaname, &v.relname)?;
            outputs.extend(table.columns.iter().map(|c| (c.name.clone(), None)));
        }
        Some(outputs)
    }
}

/// The name by which the only table of FROM goes.
fn only_table(s: &ast::SelectStmt) -> Option<&str> {
    match &s.from_clause[..] {
        [
            ast::Node {
                node: Some(Node::RangeVar(v)),
            },
        ] => Some(alias_name(v.alias.as_ref()).unwrap_or(&v.relname)),
        _ => None,
    }
}

fn is_star(value: &ast::Node) -> bool {
    matches!(&value.node, Some(Node::ColumnRef(c)) if name_parts(c).is_none())
}

/// The column that an ORDER BY item stands for, where no other has its name.
fn named(
    key: &ast::Node,
    table: Option<&str>,
    outputs: &[(String, Option<&ast::Node>)],
) -> Option<String> {
    let column = |node: &ast::Node| {
        let Some(Node::ColumnRef(c)) = &node.node else {
            return None;
        };
        let parts: Vec<String> = name_parts(c)?.into_iter().map(str::to_owned).collect();
        match &parts[..] {
            [qualifier, name] if table == Some(qualifier) => Some(vec![name.clone()]),
            _ => Some(parts),
        }
    };
    let by = column(key);
    let text = expression_text(key).ok()?;
    let is_key = |(name, value): &(String, Option<&ast::Node>)| match value {
        None => by
            .as_ref()
            .is_some_and(|parts| parts[..] == [name.as_str()]),
        Some(value) => {
            let same_column = by.is_some() && column(value) == by;
            same_column || expression_text(value).is_ok_and(|t| t == text)
        }
    };
    // A name alone means an output first, then a column.
    let output = match &key.node {
        Some(Node::ColumnRef(c)) if c.fields.len() == 1 => by.as_ref().and_then(|parts| {
            let named = |o: &&(String, Option<&ast::Node>)| Some(&o.0) == parts.first();
            outputs.iter().find(named)
        }),
        _ => None,
    };
    let name = match ordinal(key) {
        Some(n) => outputs.get(n.checked_sub(1)?)?.0.clone(),
        None => output
            .or_else(|| outputs.iter().find(|o| is_key(o)))?
            .0
            .clone(),
    };
    let alone = outputs.iter().filter(|(n, _)| *n == name).count() == 1;
    alone.then_some(name)
}

/// The keys of an item of FROM by the names that a select list gives them.
fn renamed(
    s: &ast::SelectStmt,
    alias: &str,
    keys: Vec<(String, ast::SortBy)>,
) -> Option<Vec<(String, ast::SortBy)>> {
    let mut out = Vec::new();
    for (column, key) in keys {
        let mut names = Vec::new();
        for target in targets(s) {
            let value = target.val.as_deref()?;
            let (parts, shown) = match &value.node {
                Some(Node::ColumnRef(c)) => (name_parts(c), column_name(value).1),
                _ => (None, column_name(value).1),
            };
            let name = match target.name.is_empty() {
                true => shown,
                false => target.name.clone(),
            };
            let is_key = match &parts {
                _ if is_star(value) => {
                    names.push((column.clone(), true));
                    continue;
                }
                Some(parts) => {
                    parts[..] == [column.as_str()] || parts[..] == [alias, column.as_str()]
                }
                None => false,
            };
            names.push((name, is_key));
        }
        let (name, _) = names.iter().find(|(_, is_key)| *is_key)?.clone();
        if names.iter().filter(|(n, _)| *n == name).count() != 1 {
            return None;
        }
        out.push((name, key));
    }
    Some(out)
}
