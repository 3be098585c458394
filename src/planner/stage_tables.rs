//! Tables as stages: the columns that something names, the rows that pass the conditions on them. Tables that meet on their shard
//! are one stage.

use std::collections::HashSet;

use super::analyse::{Analysis, TableUse, node_id, refusal};
use super::condition::{Conj, and};
use super::flatten::{Flat, Unit};
use super::from_items::{alias_columns, alias_name};
use super::pushdown::{Stop, unprintable};
use super::rewrite::Rewrite;
use super::scope::{Resolved, Ty};
use super::semi_joins::Size;
use super::stage_conditions::{About, Base, strip_schema};
use super::stages::{Conditions, Stager, aliased, string};
use super::types::{is_of_server, static_stage_column};
use crate::catalog::Distribution;
use crate::metrics::Reason;
use crate::plan::{KeyCondition, Remote, StageColumn, Targets};
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, expression_text, quote_identifier, walk};

/// The name of the column that holds the table of each row, for `tableoid::regclass`.
pub(super) const TABLE_COLUMN: &str = "pgbraid_table";

const REGCLASS: u32 = 2205;

/// What the tables of one stage are read for.
pub(super) struct Reading<'s, 'a> {
    /// What the stage is called where the statement reads it.
    alias: String,
    pub(super) relations: Vec<(&'a ast::RangeVar, &'s TableUse)>,
    pub(super) columns: Vec<StageColumn>,
    /// As the columns are called where the statement reads the stage.
    names: Vec<String>,
    select_list: Vec<String>,
    /// What the columns are.
    pub(super) places: Vec<Base>,
}

impl<'a> Stager<'_, '_, 'a> {
    /// A table as a FROM item: a stage of the columns that something names.
    pub(super) fn table(
        &self,
        v: &'a ast::RangeVar,
        conditions: &Conditions<'a>,
    ) -> Result<ast::Node, Stop> {
        let alias = alias_name(v.alias.as_ref()).unwrap_or(&v.relname);
        self.read(alias, &[v], &[], conditions)
    }

    /// The tables of a unit as one FROM item.
    pub(super) fn unit(
        &self,
        unit: &Unit,
        flat: &Flat<'a>,
        conditions: &Conditions<'a>,
    ) -> Result<ast::Node, Stop> {
        let relation = |leaf: &usize| match &flat.leaves[*leaf].node {
            Some(Node::RangeVar(v)) => Some(v),
            _ => None,
        };
        let relations: Vec<&'a ast::RangeVar> = unit.leaves.iter().filter_map(relation).collect();
        match relations.as_slice() {
            [v] => self.table(v, conditions),
            _ => {
                let alias = self.references.borrow().alias(unit.leaves[0]);
                self.read(&alias, &relations, &unit.equal, conditions)
            }
        }
    }

    fn read(
        &self,
        alias: &str,
        relations: &[&'a ast::RangeVar],
        equal: &[[Base; 2]],
        conditions: &Conditions<'a>,
    ) -> Result<ast::Node, Stop> {
        let tables = &self.fan_out.analysis.tables;
        let mut relations = relations.iter();
        let mut reading = Reading {
            alias: alias.into(),
            relations: relations
                .clone()
                .filter_map(|v| Some((*v, tables.get(&node_id(*v))?)))
                .collect(),
            columns: Vec::new(),
            names: Vec::new(),
            select_list: Vec::new(),
            places: Vec::new(),
        };
        for (v, used) in reading.relations.clone() {
            self.read_columns(v, used, &mut reading)?;
        }
        if reading.columns.is_empty() {
            reading.columns.push(StageColumn {
                name: "c1".into(),
                type_name: "integer".into(),
                type_oid: crate::types::oid::INT4,
                collation: None,
                joined: false,
            });
            reading.select_list.push("1".into());
            reading.names.push("pgbraid_row".into());
        }
        let rewrite = self.fan_out.rewrite(false);
        let (sql, size) = self.text(&reading, equal, conditions, &rewrite)?;
        let remote = Remote {
            targets: self.targets_of(&reading),
            sql,
            first_sql: None,
            visible: reading.columns.len(),
            hidden: 0,
            extra: rewrite.extras(),
        };
        let samples = &self.fan_out.analysis.samples;
        let anew = relations.any(|v| samples.contains_key(&node_id(*v)));
        let number = self.add(reading.columns.clone(), remote, anew)?;
        let mut semi_joins = self.semi_joins.borrow_mut();
        semi_joins.size(number - 1, size);
        for (column, base) in reading.places.iter().enumerate() {
            semi_joins.place(*base, (number - 1, column));
        }
        drop(semi_joins);
        self.note_semi_joins(conditions, &reading, number - 1);
        Ok(aliased(number, alias, &reading.names))
    }

    /// The columns of one table that are still needed where the stage is read.
    fn read_columns(
        &self,
        v: &'a ast::RangeVar,
        used: &TableUse,
        reading: &mut Reading<'_, 'a>,
    ) -> Result<(), Stop> {
        let analysis = self.fan_out.analysis;
        let (id, table) = (node_id(v), &used.table);
        let has_system = analysis.system_rows.contains(&id);
        if has_system && analysis.whole_rows.contains(&id) {
            return Err(refusal(
                Reason::Catalog,
                format!(
                    "system columns of {} cannot be brought together from several shards",
                    table.name
                ),
                "Name the columns.",
                v.location,
            )
            .into());
        }
        let alone = reading.relations.len() == 1;
        let is_catalog = |u: &TableUse| matches!(u.table.distribution, Distribution::System);
        let with_catalogs = analysis.tables.values().any(is_catalog);
        for (position, column) in table.columns.iter().enumerate() {
            let base = (id, position);
            if !analysis.used.contains(&base) || !self.references.borrow().is_named(base) {
                continue;
            }
            let stage_name = format!("c{}", reading.columns.len() + 1);
            let ty = Ty::of(column);
            let mut stage_column =
                static_stage_column(analysis.catalog, stage_name.clone(), &ty)
                    .filter(|_| !with_catalogs || !is_of_server(ty.oid))
                    .ok_or_else(|| {
                        refusal(
                            Reason::Form,
                            format!("column {} cannot be brought together from several shards because of its type", column.name),
                            "Cast the column to text in a subquery.",
                            v.location,
                        )
                    })?;
            stage_column.joined = self.looked_up.contains(&base);
            reading.places.push(base);
            reading.columns.push(stage_column);
            if alone {
                let visible = visible_name(v, used, position);
                reading.select_list.push(quote_identifier(&visible));
                reading.names.push(visible);
            } else {
                let mut references = self.references.borrow_mut();
                references.moved(base, &reading.alias, &stage_name);
                reading.select_list.push(column_text(v, used, position));
                reading.names.push(stage_name);
            }
        }
        if has_system {
            // Last, where no position means it, and no star.
            reading.columns.push(StageColumn {
                name: format!("c{}", reading.columns.len() + 1),
                type_name: "pg_catalog.regclass".into(),
                type_oid: REGCLASS,
                collation: None,
                joined: false,
            });
            reading
                .select_list
                .push("tableoid::pg_catalog.regclass".into());
            reading.names.push(TABLE_COLUMN.into());
        }
        Ok(())
    }

    fn targets_of(&self, reading: &Reading<'_, 'a>) -> Targets {
        let mut cond = None;
        for (_, used) in &reading.relations {
            match &used.table.distribution {
                Distribution::Reference => {}
                Distribution::Single(shard) => return Targets::Shard(*shard),
                Distribution::System => return Targets::Catalog,
                _ => {
                    let before = cond.take().unwrap_or(KeyCondition::Any);
                    cond = Some(and(before, used.cond.clone()));
                }
            }
        }
        cond.map_or(Targets::Any, |c| self.fan_out.targets(&c))
    }

    /// What the shards run, and about how much comes of it.
    fn text(
        &self,
        reading: &Reading<'_, 'a>,
        equal: &[[Base; 2]],
        conditions: &Conditions<'a>,
        rewrite: &Rewrite<'_, 'a>,
    ) -> Result<(String, Size), Stop> {
        let ids: Vec<usize> = reading.relations.iter().map(|(v, _)| node_id(*v)).collect();
        let mut size = Size::of(reading.relations.iter().map(|(_, used)| &*used.table));
        let mut filters = Vec::new();
        for condition in conditions {
            let Conj::Expression(node) = condition else {
                continue;
            };
            let mut copy = match self.part_about(node, &ids) {
                Some(About::Whole) => rewrite.copy_node(node),
                Some(About::Part(mut part)) => {
                    rewrite.edit_copy(&mut part);
                    *part
                }
                None => continue,
            };
            strip_schema(&mut copy);
            size.restrict(&copy);
            let text = expression_text(&copy).map_err(unprintable)?;
            filters.push(format!("({text})"));
        }
        let column = |base: Base| {
            let relation = reading
                .relations
                .iter()
                .find(|(v, _)| node_id(*v) == base.0);
            relation.map(|(v, used)| column_text(v, used, base.1))
        };
        for [a, b] in equal {
            if let (Some(a), Some(b)) = (column(*a), column(*b)) {
                filters.push(format!("({a} = {b})"));
            }
        }
        let mut from = Vec::new();
        for (v, used) in &reading.relations {
            let sample = self.fan_out.analysis.sample_text(v)?;
            from.push(relation_text(v, used) + &sample);
        }
        let once = match self.brings_each_once(reading) {
            true => "DISTINCT ",
            false => "",
        };
        let mut sql = format!(
            "SELECT {once}{} FROM {}",
            reading.select_list.join(", "),
            from.join(", "),
        );
        if !filters.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&filters.join(" AND "));
        }
        size.has_where = !filters.is_empty();
        Ok((sql, size))
    }

    /// An equality with a column of another stage, or with what IN looks in, may leave out rows that meet nothing there. Not where
    /// a condition on the rows by themselves may raise an error: it must see them all.
    fn note_semi_joins(
        &self,
        conditions: &Conditions<'a>,
        reading: &Reading<'_, 'a>,
        stage: usize,
    ) {
        for (v, _) in &reading.relations {
            if self.may_fail(conditions, node_id(*v)) {
                return;
            }
        }
        let analysis = self.fan_out.analysis;
        let own = |attr: usize| {
            let (id, position) = analysis.attrs[attr].base?;
            let (v, used) = reading.relations.iter().find(|(v, _)| node_id(*v) == id)?;
            Some(column_text(v, used, position))
        };
        for (a, b) in conditions.iter().flat_map(|c| self.equal_columns(c)) {
            let (expression, source) = match (own(a), own(b)) {
                (Some(a), None) => (a, b),
                (None, Some(b)) => (b, a),
                _ => continue,
            };
            let base = analysis.attrs[source].base;
            let mut semi_joins = self.semi_joins.borrow_mut();
            semi_joins.may_restrict(stage, expression, (source, base));
        }
    }

    /// Columns that are equal where a condition holds.
    fn equal_columns(&self, condition: &Conj<'a>) -> Vec<(usize, usize)> {
        let analysis = self.fan_out.analysis;
        if let Conj::Expression(node) = condition
            && let Some((test, query)) = self.test_of(node)
            && let Some(block) = analysis.blocks.get(&node_id(query))
            && let ([(_, column)], false) = (block.cols.as_slice(), block.open)
            && analysis.comparable(test, *column)
        {
            return vec![(test, *column)];
        }
        analysis.equalities(condition)
    }
}

/// A column's name where it is read.
fn visible_name(v: &ast::RangeVar, used: &TableUse, position: usize) -> String {
    match alias_columns(v.alias.as_ref())
        .get(position)
        .and_then(|n| n.node.as_ref())
    {
        Some(Node::String(s)) => s.sval.clone(),
        _ => used.table.columns[position].name.clone(),
    }
}

fn column_text(v: &ast::RangeVar, used: &TableUse, position: usize) -> String {
    let alias = alias_name(v.alias.as_ref()).unwrap_or(&v.relname);
    let column = visible_name(v, used, position);
    format!("{}.{}", quote_identifier(alias), quote_identifier(&column))
}

/// A table as it stands in FROM, with its alias.
fn relation_text(v: &ast::RangeVar, used: &TableUse) -> String {
    let table = &used.table;
    let alias = alias_name(v.alias.as_ref()).unwrap_or(&v.relname);
    let only = if v.inh { "" } else { "ONLY " };
    let given: Vec<String> = alias_columns(v.alias.as_ref())
        .iter()
        .filter_map(|n| match &n.node {
            Some(Node::String(s)) => Some(quote_identifier(&s.sval)),
            _ => None,
        })
        .collect();
    let columns = match given.is_empty() {
        true => String::new(),
        false => format!("({})", given.join(", ")),
    };
    format!(
        "{only}{}.{} AS {}{columns}",
        quote_identifier(&table.schema),
        quote_identifier(&table.name),
        quote_identifier(alias),
    )
}

/// Columns, as table and position, that `=` compares with a column from further out. Flat joins hash what they read once; a
/// subquery that runs for every row outside reads its tables again and again.
pub(super) fn looked_up(analysis: &Analysis, select: &ast::SelectStmt) -> HashSet<(usize, usize)> {
    let column = |side: Option<&ast::Node>| match side?.node.as_ref()? {
        Node::ColumnRef(c) => match analysis.colrefs.get(&node_id(c))? {
            Resolved::Column { attr, levels } => Some((*attr, *levels)),
            _ => None,
        },
        _ => None,
    };
    let mut found = HashSet::new();
    for select in analysis.views.values().chain([select]) {
        walk(Child::Select(select), &mut |c| {
            if let Child::Node(n) = c
                && let Some(Node::AExpr(e)) = &n.node
                && matches!(e.name.as_slice(), [name] if *name == string("="))
                && let (Some((left, l)), Some((right, r))) =
                    (column(e.lexpr.as_deref()), column(e.rexpr.as_deref()))
                && l != r
            {
                let inner = if l < r { left } else { right };
                found.extend(analysis.attrs[inner].base);
            }
            true
        });
    }
    found
}
