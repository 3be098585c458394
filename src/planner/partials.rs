//! The two halves of a grouped statement: partial rows that the shards compute, and the statement over a stage of them.

use super::aggregate::{Part, Pieces, Split, is_alike, is_expression, renamed};
use super::analyse::Dist;
use super::analyse::node_id;
use super::condition::Conj;
use super::functions::bare_name;
use super::outputs::column_name;
use super::pushdown::{FanOut, Stop, gather, print, target, unprintable};
use crate::plan::{Extra, Plan, Remote, Stage, StageColumn};
use crate::sql::ast::{self, node::Node};
use crate::sql::{ChildMut, any_node, children_mut};
use crate::types::oid;

/// A grouped query split in two.
pub(super) struct Halves {
    /// What the shards compute.
    pub(super) remote: Remote,
    /// Its columns.
    pub(super) names: Vec<String>,
    /// What is left over their rows, its FROM still to be set to a relation called `s`.
    pub(super) select: ast::SelectStmt,
}

impl<'a> FanOut<'_, 'a> {
    /// `SELECT columns FROM … WHERE … GROUP BY 1, …, groups`, for every shard and for the first; `distinct` is the position of one
    /// more column to group by.
    pub(super) fn partial_texts(
        &self,
        columns: &[ast::Node],
        groups: usize,
        distinct: Option<usize>,
    ) -> Result<(String, Option<String>, Vec<Extra>), Stop> {
        let text = |empty_arms| -> Result<(String, Vec<Extra>), Stop> {
            let rewrite = self.rewrite(empty_arms);
            let mut select = rewrite.copy(self.select);
            let now = |n: &ast::Node| {
                // The columns are copies: the edits go by shape, not by address.
                let mut copy = n.clone();
                rewrite.edit_copy(&mut copy);
                copy
            };
            select.target_list = columns
                .iter()
                .enumerate()
                .map(|(i, n)| target(now(n), &format!("c{}", i + 1)))
                .collect();
            select.group_clause = (1..=groups)
                .chain(distinct.map(|d| d + 1))
                .map(|i| super::rewrite::integer(i as i32))
                .collect();
            let kept = self.group_conditions();
            select.having_clause = all_of(kept.iter().map(|n| rewrite.copy_node(n)).collect());
            select.window_clause.clear();
            select.distinct_clause.clear();
            select.sort_clause.clear();
            select.limit_count = None;
            select.limit_offset = None;
            select.limit_option = ast::LimitOption::Default as i32;
            Ok((print(&select)?, rewrite.extras()))
        };
        let (sql, now) = text(true)?;
        let first = match self.analysis.first_arms.is_empty() {
            true => None,
            false => Some(text(false)?.0),
        };
        Ok((sql, first, now))
    }

    /// Conditions of HAVING on the groups alone. PostgreSQL tests them before it aggregates, so that what they exclude raises no
    /// error.
    fn group_conditions(&self) -> Vec<&'a ast::Node> {
        let mut conditions = Vec::new();
        super::condition::conjuncts(self.select.having_clause.as_deref(), &mut conditions);
        let of_groups = |n: &&'a ast::Node| {
            !any_node(n, &mut |n| match n {
                Node::SubLink(_) | Node::GroupingFunc(_) => true,
                Node::FuncCall(call) => self.is_aggregate(call),
                _ => false,
            })
        };
        let nodes = conditions.into_iter().filter_map(|c| match c {
            Conj::Expression(node) => Some(node),
            Conj::Equal(..) => None,
        });
        nodes.filter(of_groups).collect()
    }

    /// Partial rows in a stage, and the statement over them.
    pub(super) fn combined(&self, pieces: &Pieces<'a>) -> Result<Plan, Stop> {
        let halves = self.halves(pieces)?;
        let columns = self.probed_columns(&halves.remote, &halves.names)?;
        self.over_stage(halves, columns)
    }

    /// As [`FanOut::combined`], where the types of the partial rows are known.
    pub(super) fn combined_over(
        &self,
        pieces: &Pieces<'a>,
        columns: Vec<StageColumn>,
    ) -> Result<Plan, Stop> {
        self.over_stage(self.halves(pieces)?, columns)
    }

    fn over_stage(&self, halves: Halves, columns: Vec<StageColumn>) -> Result<Plan, Stop> {
        let mut select = halves.select;
        let stage = Stage {
            name: "stage_1".into(),
            columns,
            plan: gather(halves.remote),
            filters: Vec::new(),
        };
        let rewrite = self.rewrite(false);
        select.from_clause = vec![super::rewrite::stage_relation("pgbraid_stage_1", "s")];
        rewrite.edit_copy_select(&mut select);
        let text = print(&select)?;
        Ok(Plan::Combine {
            sql: super::stages::split(&text, 1)?,
            stages: vec![stage],
            extra: rewrite.extras(),
        })
    }

    /// A grouped subquery split in two, `None` when it cannot be.
    pub(super) fn split_aggregates(&self) -> Result<Option<Halves>, Stop> {
        if !self.block.grouped || self.block.open || !matches!(self.block.from, Dist::Sharded(_)) {
            return Ok(None);
        }
        let runs_ahead = |n: &ast::Node| self.analysis.node_runs_ahead(n);
        match self.pieces()? {
            Some(pieces)
                if self.analysis.source_runs_ahead(self.select)
                    && pieces.groups.iter().all(|(_, n)| runs_ahead(n))
                    && pieces.parts.iter().all(|p| runs_ahead(p.node)) =>
            {
                self.halves(&pieces).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn halves(&self, pieces: &Pieces<'a>) -> Result<Halves, Stop> {
        let mut columns: Vec<ast::Node> = pieces.groups.iter().map(|(_, n)| (*n).clone()).collect();
        let groups = columns.len();
        let mut finals = Vec::new();
        let distinct = pieces.parts.iter().find_map(Part::distinct).map(|arg| {
            columns.push(arg.clone());
            groups
        });
        for part in &pieces.parts {
            if part.split == Split::Distinct {
                let name = bare_name(part.call).unwrap_or("");
                finals.push(format!("pg_catalog.{name}(DISTINCT s.c{})", groups + 1));
                continue;
            }
            finals.push(final_text(part, columns.len() + 1));
            match part.split {
                Split::Average => {
                    columns.push(self.average_sum(part));
                    columns.push(renamed(part.call, "count"));
                }
                _ => columns.push(part.node.clone()),
            }
        }
        if columns.len() == groups {
            // Without an aggregate nothing would make the one row of HAVING alone.
            columns.push(parsed("count(*)")?);
        }
        let (sql, first_sql, now) = self.partial_texts(&columns, groups, distinct)?;
        let names: Vec<String> = (1..=columns.len()).map(|i| format!("c{i}")).collect();
        Ok(Halves {
            remote: self.remote(sql, first_sql, now, names.len(), 0),
            select: self.final_select(pieces, &finals)?,
            names,
        })
    }

    /// The statement with groups and aggregates replaced by the stage's columns.
    fn final_select(
        &self,
        pieces: &Pieces<'a>,
        finals: &[String],
    ) -> Result<ast::SelectStmt, Stop> {
        let mut select = self.select.clone();
        let over = Over {
            fan_out: self,
            pieces,
            finals,
        };
        for (old, new) in self.select.target_list.iter().zip(&mut select.target_list) {
            if let (Some(Node::ResTarget(o)), Some(Node::ResTarget(n))) = (&old.node, &mut new.node)
                && let (Some(o_value), Some(n_value)) = (o.val.as_deref(), n.val.as_deref_mut())
            {
                if n.name.is_empty() {
                    n.name = column_name(o_value).1;
                }
                over.node(o_value, n_value)?;
            }
        }
        let lists = [
            (&self.select.window_clause, &mut select.window_clause),
            (&self.select.sort_clause, &mut select.sort_clause),
            (&self.select.distinct_clause, &mut select.distinct_clause),
        ];
        for (old, new) in lists {
            for (o, n) in old.iter().zip(new) {
                over.node(o, n)?;
            }
        }
        if let (Some(o), Some(n)) = (
            self.select.having_clause.as_deref(),
            select.having_clause.as_deref_mut(),
        ) {
            over.node(o, n)?;
        }
        select.with_clause = None;
        select.where_clause = None;
        select.locking_clause.clear();
        let group = |i: usize| parsed(&format!("s.c{}", i + 1));
        select.group_clause = (0..pieces.groups.len())
            .map(group)
            .collect::<Result<_, _>>()?;
        Ok(select)
    }
}

/// Replaces groups and aggregates in copies of a statement's expressions.
struct Over<'o, 'p, 'a> {
    fan_out: &'o FanOut<'p, 'a>,
    pieces: &'o Pieces<'a>,
    finals: &'o [String],
}

impl Over<'_, '_, '_> {
    fn node(&self, original: &ast::Node, new: &mut ast::Node) -> Result<(), Stop> {
        if original.node.is_none() {
            return Ok(());
        }
        let is_output_name = matches!(&original.node, Some(Node::ColumnRef(c)) if !self.fan_out.analysis.colrefs.contains_key(&node_id(c)));
        if is_output_name {
            return Ok(());
        }
        let groups = self.pieces.groups.iter().map(|(_, n)| *n);
        let mut known = groups.chain(self.pieces.parts.iter().map(|p| p.node));
        let may_be = known.any(|n| is_alike(n, original));
        if may_be && is_expression(original) && !matches!(original.node, Some(Node::AConst(_))) {
            let canonical = self.fan_out.canonical(original)?;
            if let Some(n) = self.pieces.groups.iter().position(|(c, _)| *c == canonical) {
                *new = parsed(&format!("s.c{}", n + 1))?;
                return Ok(());
            }
            if let Some(n) = self
                .pieces
                .parts
                .iter()
                .position(|p| p.canonical == canonical)
            {
                *new = parsed(&self.finals[n])?;
                return Ok(());
            }
        }
        let parts = crate::sql::children(original).unwrap_or_default();
        let copies = children_mut(new).unwrap_or_default();
        for pair in parts.into_iter().zip(copies) {
            if let (crate::sql::Child::Node(o), ChildMut::Node(n)) = pair {
                self.node(o, n)?;
            }
        }
        Ok(())
    }
}

/// The expression over stage columns, from the one at `at` on, that gives an aggregate's value.
fn final_text(part: &Part<'_>, at: usize) -> String {
    let column = format!("s.c{at}");
    let arg = part.arg.as_ref().map_or(0, |a| a.oid);
    let name = bare_name(part.call).unwrap_or("");
    match part.split {
        Split::Count => format!("coalesce(pg_catalog.sum({column}), 0)::pg_catalog.int8"),
        Split::Sum if matches!(arg, oid::INT2 | oid::INT4) => {
            format!("pg_catalog.sum({column})::pg_catalog.int8")
        }
        Split::Average => {
            let count = format!("nullif(pg_catalog.sum(s.c{}), 0)", at + 1);
            match arg {
                oid::FLOAT4 | oid::FLOAT8 | oid::INTERVAL => {
                    format!("(pg_catalog.sum({column}) / {count}::pg_catalog.float8)")
                }
                _ => format!("(pg_catalog.sum({column}) / {count})"),
            }
        }
        _ => format!("pg_catalog.{name}({column})"),
    }
}

/// The conditions as one.
fn all_of(mut conditions: Vec<ast::Node>) -> Option<Box<ast::Node>> {
    if conditions.len() < 2 {
        return conditions.pop().map(Box::new);
    }
    let all = ast::BoolExpr {
        xpr: None,
        boolop: ast::BoolExprType::AndExpr as i32,
        args: conditions,
        location: -1,
    };
    Some(Box::new(ast::Node {
        node: Some(Node::BoolExpr(Box::new(all))),
    }))
}

/// An expression from its text.
pub(super) fn parsed(text: &str) -> Result<ast::Node, Stop> {
    let mut all =
        crate::sql::parse(&format!("SELECT {text}")).map_err(|e| unprintable(e.message))?;
    if let Some(Node::SelectStmt(s)) = all.pop().map(|s| s.node)
        && let Some(Node::ResTarget(t)) = s.target_list.into_iter().next().and_then(|t| t.node)
        && let Some(value) = t.val
    {
        return Ok(*value);
    }
    Err(unprintable(text.to_owned()))
}
