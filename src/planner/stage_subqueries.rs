//! Subqueries as stages: whole where they are distributive, in partial rows where their aggregates split.

use super::analyse::{Block, Dist, guarded_view, node_id, refusal};
use super::pushdown::{FanOut, Stop, print};
use super::rewrite::expanded_view;
use super::semi_joins::Size;
use super::stages::{Stager, aliased};
use super::types::static_stage_column;
use crate::catalog::Table;
use crate::metrics::Reason;
use crate::plan::{Extra, Remote, StageColumn};
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, walk};

impl<'a> Stager<'_, '_, 'a> {
    /// A view as its query, with the tables of that brought together.
    pub(super) fn view(
        &self,
        v: &'a ast::RangeVar,
        table: &Table,
        new: &mut ast::Node,
    ) -> Result<(), Stop> {
        if table.guarded {
            return Err(guarded_view(&table.name, v.location).into());
        }
        let key = (table.schema.clone(), table.name.clone());
        let Some(body) = self.fan_out.analysis.views.get(&key) else {
            return Err(refusal(
                Reason::View,
                "a view of this statement cannot be looked into",
                "Read its tables.",
                v.location,
            )
            .into());
        };
        let mut copy = body.clone();
        self.select(body, &mut copy, false)?;
        *new = expanded_view(v, table, copy);
        Ok(())
    }

    /// True for a subquery that is the union of itself over the shards and needs nothing from around it.
    pub(super) fn is_whole(&self, s: &ast::SelectStmt, block: &Block) -> bool {
        let literal = |t: &ast::ResTarget| {
            // A bare string or NULL has no type of its own yet.
            matches!(t.val.as_deref().and_then(|v| v.node.as_ref()), Some(Node::AConst(c))
                if c.isnull || matches!(c.val, Some(ast::a_const::Val::Sval(_))))
        };
        matches!(block.dist, Dist::Sharded(_))
            && !block.correlated
            && !block.open
            && s.larg.is_none()
            && !self.is_ordered(s)
            && !super::outputs::targets(s).any(literal)
            && !block.cols.is_empty()
            && !self.uses_outer_cte(s)
            && self.runs_ahead(s)
    }

    /// The merge session keeps an order that the shards' rows would lose on their way.
    fn is_ordered(&self, s: &ast::SelectStmt) -> bool {
        let analysis = self.fan_out.analysis;
        !s.sort_clause.is_empty()
            || super::inherited_order::is_ordered(
                analysis.catalog,
                self.fan_out.request.search_path,
                s,
            )
    }

    /// What EXISTS looks at gives rows, but its select list is never evaluated: that would fail for nothing.
    fn runs_ahead(&self, s: &ast::SelectStmt) -> bool {
        let analysis = self.fan_out.analysis;
        match analysis.unread.contains(&node_id(s)) {
            true => analysis.is_total_select(s),
            false => analysis.select_runs_ahead(s),
        }
    }

    /// True when the SELECT names a WITH query that is defined outside of it.
    fn uses_outer_cte(&self, s: &ast::SelectStmt) -> bool {
        let mut own: Vec<String> = Vec::new();
        let mut used: Vec<String> = Vec::new();
        walk(Child::Select(s), &mut |c| {
            if let Child::Node(n) = c {
                match &n.node {
                    Some(Node::CommonTableExpr(cte)) => own.push(cte.ctename.clone()),
                    Some(Node::RangeVar(v))
                        if self.fan_out.analysis.cte_uses.contains(&node_id(v)) =>
                    {
                        used.push(v.relname.clone());
                    }
                    _ => {}
                }
            }
            true
        });
        used.iter().any(|u| !own.contains(u))
    }

    /// The whole subquery as a stage; false where a column of it cannot be in one.
    pub(super) fn whole(
        &self,
        original: &'a ast::SelectStmt,
        new: &mut ast::SelectStmt,
        block: &Block,
    ) -> Result<bool, Stop> {
        let text = |empty_arms| -> Result<(String, Vec<Extra>), Stop> {
            let rewrite = self.fan_out.rewrite(empty_arms);
            let select = rewrite.copy(original);
            Ok((print(&select)?, rewrite.extras()))
        };
        let (sql, now) = text(true)?;
        let with_first = text(false)?.0;
        let first_sql = (with_first != sql).then_some(with_first);
        let names: Vec<String> = block.cols.iter().map(|(n, _)| n.clone()).collect();
        let remote = Remote {
            targets: self.fan_out.targets(&block.cond),
            sql,
            first_sql,
            visible: names.len(),
            hidden: 0,
            extra: now,
        };
        let number = match self.typed_columns(block) {
            Some(columns) => self.add(columns, remote, false)?,
            None => match self.probed(remote, names.len()) {
                Err(Stop::Refuse(_)) => return Ok(false),
                number => number?,
            },
        };
        let relation = aliased(number, "s", &names);
        let stage = number - 1;
        let mut semi_joins = self.semi_joins.borrow_mut();
        for (column, (_, attr)) in block.cols.iter().enumerate() {
            semi_joins.output(*attr, (stage, column));
        }
        let mut tables = Vec::new();
        walk(Child::Select(original), &mut |c| {
            if let Child::Node(n) = c
                && let Some(Node::RangeVar(v)) = &n.node
            {
                tables.extend(self.fan_out.analysis.tables.get(&node_id(v)));
            }
            true
        });
        let mut size = Size::of(tables.iter().map(|t| &*t.table));
        if let Some(condition) = original.where_clause.as_deref() {
            size.restrict(condition);
        }
        if let Some(condition) = original.having_clause.as_deref() {
            size.restrict(condition);
        }
        semi_joins.size(stage, size);
        *new = star_of(relation);
        Ok(true)
    }

    /// A grouped subquery whose aggregates split: partial rows from the shards, the rest here.
    pub(super) fn partial(
        &self,
        original: &'a ast::SelectStmt,
        new: &mut ast::SelectStmt,
        block: &Block,
    ) -> Result<bool, Stop> {
        if block.correlated || !block.grouped || self.uses_outer_cte(original) {
            return Ok(false);
        }
        let inner = FanOut {
            request: self.fan_out.request,
            analysis: self.fan_out.analysis,
            select: original,
            block,
            parameters: self.fan_out.parameters,
            volatile: false,
            merge_only: false,
        };
        let Some(split) = inner.split_aggregates()? else {
            return Ok(false);
        };
        let number = match self.probed(split.remote, split.names.len()) {
            // A row, say, that no stage can hold: its columns can be.
            Err(Stop::Refuse(_)) => return Ok(false),
            number => number?,
        };
        let relation = aliased(number, "s", &split.names);
        let mut select = split.select;
        self.rewrite.edit_copy_select(&mut select);
        select.from_clause = vec![renamed_relation(relation, "s")];
        *new = select;
        Ok(true)
    }

    /// The columns of a subquery, when all their types are plain to see.
    fn typed_columns(&self, block: &Block) -> Option<Vec<StageColumn>> {
        let analysis = self.fan_out.analysis;
        let column = |(i, (_, attr)): (usize, &(String, super::scope::AttrId))| {
            let ty = analysis.attrs[*attr].ty.as_ref()?;
            static_stage_column(analysis.catalog, format!("c{}", i + 1), ty)
        };
        block.cols.iter().enumerate().map(column).collect()
    }

    /// Makes a stage whose columns' types are asked for, and gives its number.
    fn probed(&self, remote: Remote, width: usize) -> Result<usize, Stop> {
        let columns: Vec<String> = (1..=width).map(|i| format!("c{i}")).collect();
        let columns = match self.fan_out.probed_columns(&remote, &columns) {
            Ok(columns) => columns,
            Err(Stop::Ask(probes)) => {
                // Go on with the others: one round trip asks for all of them.
                let mut asked = self.asked.borrow_mut();
                let new = probes
                    .into_iter()
                    .filter(|p| !asked.contains(p))
                    .collect::<Vec<_>>();
                asked.extend(new);
                Vec::new()
            }
            Err(stop) => return Err(stop),
        };
        self.add(columns, remote, false)
    }
}

fn renamed_relation(mut relation: ast::Node, alias: &str) -> ast::Node {
    if let Some(Node::RangeVar(v)) = &mut relation.node
        && let Some(a) = &mut v.alias
    {
        a.aliasname = alias.into();
    }
    relation
}

/// `SELECT * FROM relation`.
fn star_of(relation: ast::Node) -> ast::SelectStmt {
    let star = ast::Node {
        node: Some(Node::ColumnRef(ast::ColumnRef {
            fields: vec![ast::Node {
                node: Some(Node::AStar(ast::AStar {})),
            }],
            location: -1,
        })),
    };
    let target = ast::ResTarget {
        val: Some(Box::new(star)),
        ..Default::default()
    };
    ast::SelectStmt {
        target_list: vec![ast::Node {
            node: Some(Node::ResTarget(Box::new(target))),
        }],
        from_clause: vec![relation],
        limit_option: ast::LimitOption::Default as i32,
        op: ast::SetOperation::SetopNone as i32,
        ..Default::default()
    }
}
