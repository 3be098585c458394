//! Names: the columns a SELECT's FROM makes visible, and which column a reference means.

use std::rc::Rc;

use super::analyse::Distributed;
use crate::catalog::{Catalog, Column, Table};
use crate::metrics::Reason;
use crate::plan::Refusal;
use crate::sql::ast::{self, node::Node};

/// A column value that flows through a statement unchanged, from the FROM item that makes it to wherever it is named.
pub(super) type AttrId = usize;

/// A type as far as it is known without asking PostgreSQL.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ty {
    pub(super) oid: u32,
    pub(super) modifier: i32,
    /// As `format_type` prints it.
    pub(super) name: String,
    /// OID of the collation, 0 for none.
    pub(super) collation: u32,
}

impl Ty {
    pub(super) fn of(column: &Column) -> Self {
        Self {
            oid: column.type_oid,
            modifier: column.type_modifier,
            name: column.type_name.clone(),
            collation: column.collation,
        }
    }

    /// A built-in type without modifier or collation.
    pub(super) fn plain(oid: u32, name: &str) -> Self {
        Self {
            oid,
            modifier: -1,
            name: name.into(),
            collation: 0,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Attr {
    pub(super) ty: Option<Ty>,
    /// The occurrence of a table in the text (address of its tree node) and the column's position in it.
    pub(super) base: Option<(usize, usize)>,
}

/// A FROM item by which columns can be qualified.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) schema: Option<String>,
    pub(super) columns: Vec<(String, AttrId)>,
    /// Its columns are not all known (a function that returns records).
    pub(super) open: bool,
    /// A table: it has system columns.
    pub(super) table: Option<usize>,
    /// Schema and name of the table or view whose row type its rows have.
    pub(super) row_type: Option<(String, String)>,
}

/// What one FROM makes visible.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    pub(super) items: Vec<Item>,
    /// Columns that unqualified names and `*` mean, in order, joined USING columns once.
    pub(super) visible: Vec<(String, AttrId)>,
}

impl Scope {
    pub(super) fn is_open(&self) -> bool {
        self.items.iter().any(|i| i.open)
    }

    /// `USING (…) AS alias`: a name for the merged columns, which come first, that hides nothing.
    pub(super) fn name_merged(&mut self, j: &ast::JoinExpr, alias: &ast::Alias) {
        self.items.push(Item {
            name: alias.aliasname.clone(),
            schema: None,
            columns: self.visible[..j.using_clause.len()].to_vec(),
            open: false,
            table: None,
            row_type: None,
        });
    }
}

/// The scopes a name is looked up in, innermost first, and what is known of the distribution of each.
#[derive(Debug)]
pub(super) struct Env {
    pub(super) scope: Scope,
    /// Key columns of the rows this scope stands for: a subquery tied to one of them is local.
    pub(super) keys: Option<Distributed>,
    /// Number of blocks that stand around what this scope is for, its own included.
    pub(super) depth: usize,
    pub(super) parent: Option<Rc<Env>>,
}

/// What a column reference means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Resolved {
    /// `levels` scopes further out than where it stands.
    Column { attr: AttrId, levels: usize },
    /// A row of a FROM item.
    WholeRow { levels: usize },
    /// ctid, tableoid and their like, of the table at this tree address.
    System { name: String, table: usize },
    /// A column of an item whose columns are not known.
    Unknown { levels: usize },
}

const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];

/// The parts of a column reference without a trailing `*`; `None` where it ends in one.
pub(super) fn name_parts(reference: &ast::ColumnRef) -> Option<Vec<&str>> {
    reference
        .fields
        .iter()
        .map(|f| match &f.node {
            Some(Node::String(s)) => Some(s.sval.as_str()),
            _ => None,
        })
        .collect()
}

/// The FROM items that the star of `relation.*` or `*` stands for, in the innermost scope that has any.
pub(super) fn starred<'s>(
    parts: &[&'s str],
    scope: &'s Scope,
    parent: Option<&'s Rc<Env>>,
) -> (Vec<&'s Item>, usize) {
    let [.., name] = parts else {
        return (scope.items.iter().collect(), 0);
    };
    let mut current = scope;
    let mut outer = parent;
    for level in 0.. {
        if let Some((_, item)) = items(current, None, name).next() {
            return (vec![item], level);
        }
        let Some(env) = outer else { break };
        current = &env.scope;
        outer = env.parent.as_ref();
    }
    (Vec::new(), 0)
}

/// Looks a reference up in `scope`, then in the scopes around it.
///
/// # Errors
/// A refusal for names that are not there or not unique: PostgreSQL itself has the right message for those.
pub(super) fn resolve(
    reference: &ast::ColumnRef,
    scope: &Scope,
    parent: Option<&Rc<Env>>,
) -> Result<Resolved, Refusal> {
    let unresolved = |what: &str| Refusal {
        reason: Reason::Form,
        message: format!("column reference \"{what}\" cannot be resolved"),
        hint: "Qualify the column with the name or alias of its table.".into(),
        location: usize::try_from(reference.location).ok(),
    };
    let Some(parts) = name_parts(reference) else {
        return Err(unresolved("*"));
    };
    let mut level = 0;
    let mut current = scope;
    let mut outer = parent;
    loop {
        match resolve_in(&parts, current, level) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(()) => return Err(unresolved(&parts.join("."))),
        }
        let Some(env) = outer else {
            return Err(unresolved(&parts.join(".")));
        };
        level += 1;
        current = &env.scope;
        outer = env.parent.as_ref();
    }
}

/// `Err` for a name that is not unique.
fn resolve_in(parts: &[&str], scope: &Scope, levels: usize) -> Result<Option<Resolved>, ()> {
    match parts {
        [name] => resolve_bare(name, scope, levels),
        [relation, name] => {
            let mut found = items(scope, None, relation);
            match (found.next(), found.next()) {
                (Some((_, item)), None) => item_column(item, name, levels).map(Some),
                (None, _) => Ok(None),
                _ => Err(()),
            }
        }
        [schema, relation, name] => match items(scope, Some(schema), relation).next() {
            Some((_, item)) => item_column(item, name, levels).map(Some),
            None => Ok(None),
        },
        _ => Err(()),
    }
}

fn items<'a>(
    scope: &'a Scope,
    schema: Option<&'a str>,
    name: &'a str,
) -> impl Iterator<Item = (usize, &'a Item)> {
    scope.items.iter().enumerate().filter(move |(_, i)| {
        i.name == name && schema.is_none_or(|s| i.schema.as_deref() == Some(s))
    })
}

fn resolve_bare(name: &str, scope: &Scope, levels: usize) -> Result<Option<Resolved>, ()> {
    let mut found = scope.visible.iter().filter(|(n, _)| n == name);
    match (found.next(), found.next()) {
        (Some((_, attr)), None) => {
            return Ok(Some(Resolved::Column {
                attr: *attr,
                levels,
            }));
        }
        (Some(_), Some(_)) => return Err(()),
        (None, _) => {}
    }
    if SYSTEM_COLUMNS.contains(&name) {
        let mut tables = scope.items.iter().filter_map(|i| i.table);
        match (tables.next(), tables.next()) {
            (Some(table), None) => {
                return Ok(Some(Resolved::System {
                    name: name.into(),
                    table,
                }));
            }
            (Some(_), Some(_)) => return Err(()),
            _ => {}
        }
    }
    if items(scope, None, name).next().is_some() {
        return Ok(Some(Resolved::WholeRow { levels }));
    }
    Ok(scope.is_open().then_some(Resolved::Unknown { levels }))
}

fn item_column(item: &Item, name: &str, levels: usize) -> Result<Resolved, ()> {
    let mut found = item.columns.iter().filter(|(n, _)| n == name);
    match (found.next(), found.next(), item.table) {
        (Some((_, attr)), None, _) => Ok(Resolved::Column {
            attr: *attr,
            levels,
        }),
        (None, _, Some(table)) if SYSTEM_COLUMNS.contains(&name) => Ok(Resolved::System {
            name: name.into(),
            table,
        }),
        (None, _, _) if item.open => Ok(Resolved::Unknown { levels }),
        _ => Err(()),
    }
}

/// Looks a relation up as PostgreSQL does: by its schema, or along the search path with pg_catalog first unless the path
/// says where.
pub fn find_table<'c>(
    catalog: &'c Catalog,
    search_path: &[String],
    schema: &str,
    name: &str,
) -> Option<&'c std::sync::Arc<Table>> {
    let lookup = |schema: &str| catalog.tables.get(&(schema.to_owned(), name.to_owned()));
    if !schema.is_empty() {
        return lookup(schema);
    }
    let implicit = (!search_path.iter().any(|s| s == "pg_catalog")).then_some("pg_catalog");
    implicit
        .into_iter()
        .chain(search_path.iter().map(String::as_str))
        .find_map(lookup)
}
