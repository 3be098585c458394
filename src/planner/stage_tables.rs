//! Tables as stages: the columns that something names, the rows that pass the conditions on one table alone.

use std::collections::HashSet;

use super::analyse::{Analysis, node_id, refusal};
use super::from_items::{alias_columns, alias_name};
use super::pushdown::{Stop, unprintable};
use super::rewrite::strip_reference;
use super::scope::{Resolved, Ty};
use super::stages::{Conditions, Stager, aliased, string};
use super::types::static_stage_column;
use crate::catalog::{Distribution, Table};
use crate::plan::{Extra, KeyCondition, Remote, StageColumn, Targets};
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, ChildMut, children_mut, expression_text, quote_identifier, walk};

impl<'a> Stager<'_, '_, 'a> {
    /// A table as a stage of the columns that something names.
    pub(super) fn table(
        &self,
        v: &'a ast::RangeVar,
        table: &Table,
        cond: &KeyCondition,
        new: &mut ast::Node,
        conditions: &Conditions<'a>,
    ) -> Result<(), Stop> {
        let analysis = self.fan_out.analysis;
        let id = node_id(v);
        if analysis.whole_rows.contains(&id) {
            return Err(refusal(
                format!("rows of {} as a whole, or its system columns, cannot be brought together from several shards", table.name),
                "Name the columns.",
                v.location,
            )
            .into());
        }
        let given = alias_columns(v.alias.as_ref());
        let mut names = Vec::new();
        let mut columns = Vec::new();
        let mut select_list = Vec::new();
        for (position, column) in table.columns.iter().enumerate() {
            if !analysis.used.contains(&(id, position)) {
                continue;
            }
            let visible = match given.get(position).and_then(|n| n.node.as_ref()) {
                Some(Node::String(s)) => s.sval.clone(),
                _ => column.name.clone(),
            };
            let stage_name = format!("c{}", columns.len() + 1);
            let mut stage_column = static_stage_column(analysis.catalog, stage_name, &Ty::of(column)).ok_or_else(|| {
                refusal(
                    format!("column {} cannot be brought together from several shards because of its type", column.name),
                    "Cast the column to text in a subquery.",
                    v.location,
                )
            })?;
            stage_column.joined = self.looked_up.contains(&(id, position));
            columns.push(stage_column);
            select_list.push(quote_identifier(&visible));
            names.push(visible);
        }
        if columns.is_empty() {
            columns.push(StageColumn {
                name: "c1".into(),
                type_name: "integer".into(),
                type_oid: crate::types::oid::INT4,
                collation: None,
                joined: false,
            });
            select_list.push("1".into());
            names.push("pgbraid_row".into());
        }
        let alias = alias_name(v.alias.as_ref()).unwrap_or(&v.relname);
        let (sql, extra) = self.table_text(v, table, alias, &select_list, conditions)?;
        let targets = match &table.distribution {
            Distribution::Reference => Targets::Any,
            Distribution::Single(shard) => Targets::Shard(*shard),
            _ => self.fan_out.targets(cond),
        };
        let remote = Remote {
            targets,
            sql,
            first_sql: None,
            visible: columns.len(),
            hidden: 0,
            extra,
        };
        let number = self.add(columns, remote)?;
        *new = aliased(number, alias, &names);
        Ok(())
    }

    fn table_text(
        &self,
        v: &'a ast::RangeVar,
        table: &Table,
        alias: &str,
        select_list: &[String],
        conditions: &Conditions<'a>,
    ) -> Result<(String, Vec<Extra>), Stop> {
        let rewrite = self.fan_out.rewrite(false);
        let mut filters = Vec::new();
        for condition in conditions {
            if self.is_about(condition, node_id(v)) {
                let mut copy = rewrite.copy_node(condition);
                strip_schema(&mut copy);
                filters.push(format!(
                    "({})",
                    expression_text(&copy).map_err(unprintable)?
                ));
            }
        }
        let only = if v.inh { "" } else { "ONLY " };
        let mut columns = String::new();
        let given: Vec<String> = alias_columns(v.alias.as_ref())
            .iter()
            .filter_map(|n| match &n.node {
                Some(Node::String(s)) => Some(quote_identifier(&s.sval)),
                _ => None,
            })
            .collect();
        if !given.is_empty() {
            columns = format!("({})", given.join(", "));
        }
        let mut sql = format!(
            "SELECT {} FROM {only}{}.{} AS {}{columns}",
            select_list.join(", "),
            quote_identifier(&table.schema),
            quote_identifier(&table.name),
            quote_identifier(alias),
        );
        if !filters.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&filters.join(" AND "));
        }
        Ok((sql, rewrite.extras()))
    }

    /// True for a condition on columns of one table only, without subqueries and volatile functions, that raises no error.
    fn is_about(&self, condition: &ast::Node, table: usize) -> bool {
        let analysis = self.fan_out.analysis;
        let mut columns = 0;
        let other = crate::sql::any_node(condition, &mut |n| match n {
            Node::ColumnRef(c) => {
                columns += 1;
                match analysis.colrefs.get(&node_id(c)) {
                    Some(Resolved::Column { attr, levels: 0 }) => {
                        analysis.attrs[*attr].base.is_none_or(|(t, _)| t != table)
                    }
                    _ => true,
                }
            }
            Node::SubLink(_) | Node::RangeVar(_) => true,
            Node::FuncCall(f) => {
                super::functions::find(analysis.catalog, self.fan_out.request.search_path, f)
                    .is_none_or(|c| {
                        c.aggregate
                            || c.returns_set
                            || c.volatility == crate::catalog::Volatility::Volatile
                    })
            }
            _ => false,
        });
        columns > 0 && !other && analysis.is_total(condition)
    }
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

fn strip_schema(node: &mut ast::Node) {
    if let Some(Node::ColumnRef(c)) = &mut node.node {
        strip_reference(c);
        return;
    }
    for part in children_mut(node).unwrap_or_default() {
        if let ChildMut::Node(n) = part {
            strip_schema(n);
        }
    }
}
