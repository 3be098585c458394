//! Changes of one table that concern one shard: where they go, and why one server would do just the same.
//!
//! The statement is read as a SELECT over all that it reads ([`Change::reads`]), to which an INSERT adds `key = value`. Where that SELECT
//! is pinned to one shard, so is the change, and the client's text goes there as it stands. What that shard cannot see
//! must not matter: unique keys hold the sharding key, foreign keys lead to rows of the same shard, no trigger writes elsewhere, and no
//! sequence of one server numbers rows of all.

use super::analyse::refusal;
use super::condition::family;
use super::proof::{self, Proof};
use super::scope::find_table;
use super::{Planner, refused};
use crate::catalog::writes::{DefaultKind, ForeignKey};
use crate::catalog::{Distribution, Table};
use crate::metrics::Reason;
use crate::plan::{Planned, Refusal, Targets, Write};
use crate::sql::ast::{self, a_const::Val, node::Node};
use crate::sql::{Change, ChangeKind, EXCLUDED};
use crate::types::oid;

/// Values of the sharding key that an INSERT names.
#[derive(Default)]
struct Keys {
    values: Vec<ast::Node>,
    parameters: Vec<usize>,
}

impl Planner<'_> {
    /// Plans a change; `Err` asks for facts first.
    pub(super) fn change(&self, change: &Change) -> Result<Planned, Vec<super::Probe>> {
        let at = change.table.location;
        let (schema, name) = (&change.table.schemaname, &change.table.relname);
        let table = find_table(self.catalog, self.request.search_path, schema, name);
        if hidden_by_cte(change) {
            let message = format!("a WITH query has the name of the table {name} that is written");
            return Ok(refused(
                refusal(
                    Reason::Write,
                    message,
                    "Give the WITH query another name.",
                    at,
                ),
                false,
            ));
        }
        let mut select = change.reads.clone();
        self.spell_out(&mut select);
        let mut write = Write::default();
        match table.map(|t| (t, &t.distribution)) {
            Some((table, Distribution::Sharded { key: Some(key), .. })) => {
                match self.prove(change, table, *key) {
                    Ok((keys, reads_clock)) => {
                        if let ChangeKind::Insert { on_conflict, .. } = &change.kind {
                            add_keys(&mut select, table, *key, &keys, *on_conflict);
                            write.inserts = true;
                        }
                        write.key_parameters = keys.parameters;
                        write.trims = table.columns[*key].type_modifier >= 0;
                        write.reads_clock = reads_clock;
                    }
                    Err(why) => return Ok(refused(why, false)),
                }
            }
            Some((_, Distribution::Sharded { key: None, .. })) => {
                let message =
                    format!("table {name} has no known sharding key: it cannot be written");
                let hint = "Declare its key in the configuration.";
                return Ok(refused(refusal(Reason::Write, message, hint, at), false));
            }
            Some((_, Distribution::Single(_))) => {}
            Some((_, Distribution::Reference)) => {
                let message = format!("writing the reference table {name} is not supported");
                let hint = "Run the change on every shard directly.";
                return Ok(refused(refusal(Reason::Write, message, hint, at), false));
            }
            Some((_, Distribution::View)) => {
                let message =
                    format!("writing through the view {name} is not supported over several shards");
                return Ok(refused(
                    refusal(Reason::Write, message, "Write its table.", at),
                    false,
                ));
            }
            // What is wrong with it is said as for a SELECT.
            Some((_, Distribution::Undeclared { .. } | Distribution::System)) | None => {}
        }
        let reads = Planner {
            routes_only: true,
            ..*self
        };
        let planned = reads.select(&select, false)?;
        Ok(Self::pinned(planned, write, at))
    }

    /// The plan of a change from the plan of what it reads.
    fn pinned(planned: Planned, mut write: Write, at: i32) -> Planned {
        write.reads_clock |= planned.uses_now;
        let why = match (&planned.route, planned.fan_out) {
            (Targets::Keyed(_) | Targets::Shard(_), _) => several(at),
            (_, Err(why)) => why,
            (Targets::Catalog | Targets::Any, Ok(_)) => refusal(
                Reason::Write,
                "writing catalogs is not supported over several shards",
                "Run the change on the shards directly.",
                at,
            ),
            (Targets::All, Ok(_)) => several(at),
        };
        let route = match planned.route {
            route @ (Targets::Keyed(_) | Targets::Shard(_)) => route,
            _ => Targets::All,
        };
        Planned {
            route,
            write: Some(write),
            frozen: planned.frozen,
            ..refused(why, false)
        }
    }

    /// What one shard cannot see does not matter; also the keys of an INSERT, and whether a default reads the clock.
    fn prove(&self, change: &Change, table: &Table, key: usize) -> Result<(Keys, bool), Refusal> {
        let at = change.table.location;
        if table.writes.triggers {
            let message = format!("table {} has triggers or rules", table.name);
            let hint = "What they do cannot be proved: run the change on the shard directly.";
            return Err(refusal(Reason::Write, message, hint, at));
        }
        let key_name = &table.columns[key].name;
        let mut clock = false;
        let mut keys = Keys::default();
        let (inserted, updated): (bool, &[String]) = match &change.kind {
            ChangeKind::Insert {
                columns,
                rows,
                updated,
                ..
            } => {
                keys = insert_keys(table, key, columns, rows.as_deref(), at)?;
                clock = insert_defaults(table, columns, rows.as_deref(), at)?;
                (true, updated)
            }
            ChangeKind::Update { columns, defaulted } => {
                for column in defaulted {
                    clock |= default_value(table, column, at)?;
                }
                (false, columns)
            }
            ChangeKind::Delete => (false, &[]),
        };
        if updated.contains(key_name) {
            let message = format!("changing the sharding key {key_name} is not supported");
            let hint = "Delete the row and insert it with its new key.";
            return Err(refusal(Reason::Write, message, hint, at));
        }
        unique_keys(table, key_name, inserted, updated, at)?;
        let deletes = matches!(change.kind, ChangeKind::Delete);
        if !deletes {
            self.checks_by_row(table, at)?;
        }
        for foreign in &table.writes.foreign_keys {
            let concerned = match foreign.referenced {
                false => inserted || touches(&foreign.columns, updated),
                true => deletes || touches(&foreign.columns, updated),
            };
            if concerned {
                self.stays_on_shard(foreign, table, key, at)?;
            }
        }
        Ok((keys, clock))
    }

    /// What checks new rows, or makes the values of their columns, must not read rows of one shard.
    fn checks_by_row(&self, table: &Table, at: i32) -> Result<(), Refusal> {
        let checks = table.writes.checks.iter();
        let mut proofs = checks.map(|f| proof::of_functions(self.catalog, f));
        let of_type = |oid: &u32| {
            let ty = self.catalog.types.get(oid);
            ty.map(|t| proof::of_operator(self.catalog, &format!("::{}", t.name)))
        };
        let mut types = table.columns.iter().filter_map(|c| of_type(&c.type_oid));
        if !proofs.any(|p| p == Proof::None) && !types.any(|p| p == Proof::None) {
            return Ok(());
        }
        let message = format!(
            "table {} has a check, domain or cast that may read tables, which cannot be proved right over several shards",
            table.name
        );
        let hint = "What they do cannot be proved: run the change on the shard directly.";
        Err(refusal(Reason::Check, message, hint, at))
    }

    /// A foreign key between rows of one shard, or to a reference table.
    fn stays_on_shard(
        &self,
        foreign: &ForeignKey,
        table: &Table,
        key: usize,
        at: i32,
    ) -> Result<(), Refusal> {
        let other = self.catalog.tables.get(&foreign.other);
        let is_local = match (other.map(|o| (o, &o.distribution)), &table.distribution) {
            (Some((_, Distribution::Reference)), _) => !foreign.referenced,
            (
                Some((
                    other,
                    Distribution::Sharded {
                        key: Some(other_key),
                        sharding: theirs,
                    },
                )),
                Distribution::Sharded { sharding: ours, .. },
            ) => {
                let names = (&table.columns[key].name, &other.columns[*other_key].name);
                let mut pairs = foreign.columns.iter().zip(&foreign.other_columns);
                theirs == ours && pairs.any(|pair| pair == names)
            }
            _ => false,
        };
        match is_local {
            true => Ok(()),
            false => {
                let (_, other) = &foreign.other;
                let message = format!(
                    "a foreign key between {} and {other} leads to rows of other shards",
                    table.name
                );
                let hint = "Only foreign keys that hold the sharding key, or lead to a reference table, can be kept by one shard.";
                Err(refusal(Reason::Write, message, hint, at))
            }
        }
    }
}

/// PostgreSQL writes the table; what reads the name means the WITH query.
fn hidden_by_cte(change: &Change) -> bool {
    let mut ctes = change.reads.with_clause.iter().flat_map(|w| &w.ctes);
    let is_same = |n: &ast::Node| matches!(&n.node, Some(Node::CommonTableExpr(c)) if c.ctename == change.table.relname);
    change.table.schemaname.is_empty() && ctes.any(is_same)
}

fn several(at: i32) -> Refusal {
    refusal(
        Reason::Write,
        "writing over several shards is not supported",
        "Give the sharding key of the rows: in VALUES, or as key = value in WHERE.",
        at,
    )
}

fn touches(columns: &[String], updated: &[String]) -> bool {
    columns.is_empty() && !updated.is_empty() || columns.iter().any(|c| updated.contains(c))
}

/// Every unique key that the change concerns holds the sharding key: equal rows would be on the same shard.
fn unique_keys(
    table: &Table,
    key: &String,
    inserted: bool,
    updated: &[String],
    at: i32,
) -> Result<(), Refusal> {
    let mut keys = table.writes.unique.iter();
    let beyond = keys.find(|c| !c.contains(key) && (inserted || touches(c, updated)));
    match beyond {
        None => Ok(()),
        Some(columns) => {
            let what = match columns.is_empty() {
                true => "over an expression".to_owned(),
                false => format!("({})", columns.join(", ")),
            };
            let message = format!(
                "a unique key {what} of {} does not hold the sharding key {key}",
                table.name
            );
            let hint = "No shard can tell whether another one has such a row.";
            Err(refusal(Reason::Write, message, hint, at))
        }
    }
}

/// The values that an INSERT gives the sharding key: constants and parameters, none of them NULL.
fn insert_keys(
    table: &Table,
    key: usize,
    columns: &[String],
    rows: Option<&[Vec<ast::Node>]>,
    at: i32,
) -> Result<Keys, Refusal> {
    let column = &table.columns[key];
    let missing = || {
        refusal(
            Reason::Write,
            format!("the sharding key {} needs a value", column.name),
            "Give it as a constant or a parameter: a default is not the same on every shard.",
            at,
        )
    };
    let place = match columns {
        [] => Some(key),
        columns => columns.iter().position(|c| *c == column.name),
    };
    let trims = column.type_modifier >= 0 && family(column.type_oid) == family(oid::TEXT);
    let mut keys = Keys::default();
    for row in rows.ok_or_else(missing)? {
        let value = place.and_then(|place| row.get(place)).ok_or_else(missing)?;
        if !is_known(value, trims, &mut keys.parameters) {
            return Err(missing());
        }
        keys.values.push(value.clone());
    }
    Ok(keys)
}

/// A value that is never NULL, but for parameters, which it adds. `trims`: blanks at its end would be cut.
fn is_known(value: &ast::Node, trims: bool, parameters: &mut Vec<usize>) -> bool {
    match &value.node {
        Some(Node::TypeCast(t)) => t
            .arg
            .as_deref()
            .is_some_and(|arg| is_known(arg, trims, parameters)),
        Some(Node::AConst(c)) => match &c.val {
            Some(Val::Sval(s)) => !(trims && s.sval.ends_with(' ')),
            Some(_) => !c.isnull,
            None => false,
        },
        Some(Node::ParamRef(p)) => {
            let index = usize::try_from(p.number)
                .ok()
                .and_then(|n| n.checked_sub(1));
            parameters.extend(index);
            index.is_some()
        }
        _ => false,
    }
}

/// True when a column left out, or given as DEFAULT, takes the time of the transaction.
fn insert_defaults(
    table: &Table,
    columns: &[String],
    rows: Option<&[Vec<ast::Node>]>,
    at: i32,
) -> Result<bool, Refusal> {
    let mut clock = false;
    for (position, column) in table.columns.iter().enumerate() {
        let place = match columns {
            [] => Some(position),
            columns => columns.iter().position(|c| *c == column.name),
        };
        let is_given = |row: &Vec<ast::Node>| {
            let value = place.and_then(|place| row.get(place));
            value.is_some_and(|v| !matches!(v.node, Some(Node::SetToDefault(_))))
        };
        if !rows.unwrap_or_default().iter().all(is_given) {
            clock |= default_value(table, &column.name, at)?;
        }
    }
    Ok(clock)
}

/// True when a column's default is the time.
fn default_value(table: &Table, column: &str, at: i32) -> Result<bool, Refusal> {
    match table.writes.default_of(column) {
        Some(DefaultKind::Server) => Err(refusal(
            Reason::Write,
            format!(
                "column {column} of {} gets its default from a sequence or function of one shard",
                table.name
            ),
            "Give it a value: the shards' sequences do not know of each other.",
            at,
        )),
        kind => Ok(kind == Some(DefaultKind::Clock)),
    }
}

/// `key IN (values)`, of the table and of `excluded`.
fn add_keys(
    select: &mut ast::SelectStmt,
    table: &Table,
    key: usize,
    keys: &Keys,
    on_conflict: bool,
) {
    let name = match select.from_clause.first().map(|n| &n.node) {
        Some(Some(Node::RangeVar(v))) => match &v.alias {
            Some(alias) => alias.aliasname.clone(),
            None => v.relname.clone(),
        },
        _ => table.name.clone(),
    };
    let is_one = |name: &String| is_one_of(&[name, &table.columns[key].name], &keys.values);
    if let Some(inner) = excluded(select).filter(|_| on_conflict) {
        inner.where_clause = Some(Box::new(is_one(&EXCLUDED.into())));
    }
    select.where_clause = Some(Box::new(is_one(&name)));
}

/// The subquery over `excluded`, which stands first.
fn excluded(select: &mut ast::SelectStmt) -> Option<&mut ast::SelectStmt> {
    let Some(Node::ResTarget(first)) = &mut select.target_list.first_mut()?.node else {
        return None;
    };
    let Some(Node::SubLink(link)) = &mut first.val.as_mut()?.node else {
        return None;
    };
    match &mut link.subselect.as_mut()?.node {
        Some(Node::SelectStmt(inner)) => Some(inner),
        _ => None,
    }
}

fn is_one_of(column: &[&String], values: &[ast::Node]) -> ast::Node {
    let string = |s: &str| node(Node::String(ast::String { sval: s.into() }));
    let fields = column.iter().map(|part| string(part)).collect();
    let column = node(Node::ColumnRef(ast::ColumnRef {
        fields,
        location: -1,
    }));
    let list = node(Node::List(ast::List {
        items: values.to_vec(),
    }));
    node(Node::AExpr(Box::new(ast::AExpr {
        kind: ast::AExprKind::AexprIn as i32,
        name: vec![string("=")],
        lexpr: Some(Box::new(column)),
        rexpr: Some(Box::new(list)),
        location: -1,
        ..Default::default()
    })))
}

fn node(node: Node) -> ast::Node {
    ast::Node { node: Some(node) }
}
