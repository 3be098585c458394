//! The last resort: every relation of a statement becomes a stage, and the statement runs over the stages as it is.
//!
//! Subqueries and WITH queries that are distributive by themselves become one stage each; of a table come only the
//! columns that something names and the rows that pass the conditions on it alone.

use std::cell::RefCell;
use std::collections::HashSet;

use super::analyse::{Analysis, Block, Dist, alias_columns, alias_name, node_id, refusal};
use super::condition::{Conj, conjuncts};
use super::pushdown::{FanOut, Stop, extras, gather, print, unprintable};
use super::rewrite::{Rewrite, expanded_view, stage_relation, strip_reference};
use super::scope::{Resolved, Ty, find_table};
use super::types::static_stage_column;
use crate::catalog::{Distribution, Table, TableKind};
use crate::plan::{Extra, KeyCondition, Plan, Remote, SqlPart, Stage, StageColumn, Targets};
use crate::sql::ast::{self, node::Node};
use crate::sql::{
    Child, ChildMut, children, children_mut, expression_text, quote_identifier, select_children,
    select_children_mut, walk,
};

/// What stands for the n-th stage while the statement is still a tree.
const PLACEHOLDER: &str = "pgbraid_stage_";

/// Stages of one statement; more relations than this are refused.
const STAGES_MAX: usize = 64;

/// Rewrites a statement over stages.
struct Stager<'f, 'p, 'a> {
    fan_out: &'f FanOut<'p, 'a>,
    rewrite: Rewrite<'p, 'a>,
    stages: RefCell<Vec<Stage>>,
    /// Facts that are still missing, asked for all at once.
    asked: RefCell<Vec<super::Probe>>,
    /// Columns of tables that a subquery looks up by a column from further out, see [`StageColumn::joined`].
    looked_up: HashSet<(usize, usize)>,
}

/// Conditions that may move into the stage of the one relation they are about.
type Conditions<'a> = Vec<&'a ast::Node>;

impl FanOut<'_, '_> {
    /// The plan that pulls everything.
    pub(super) fn gather_all(&self) -> Result<Plan, Stop> {
        if !self.select.locking_clause.is_empty() {
            return Err(refusal(
                "FOR UPDATE is not supported for this statement over several shards",
                "Lock the rows of one shard by its sharding key.",
                -1,
            )
            .into());
        }
        let stager = Stager {
            fan_out: self,
            rewrite: self.rewrite(false),
            stages: RefCell::new(Vec::new()),
            asked: RefCell::new(Vec::new()),
            looked_up: looked_up(self.analysis, self.select),
        };
        let mut select = self.select.clone();
        stager.select(self.select, &mut select, true)?;
        let asked = stager.asked.into_inner();
        if !asked.is_empty() {
            return Err(Stop::Ask(asked));
        }
        let stages = stager.stages.into_inner();
        let extra = extras(stager.rewrite.used_now.get());
        let text = print(&select)?;
        Ok(Plan::Combine {
            sql: split(&text, stages.len())?,
            stages,
            extra,
        })
    }
}

/// Cuts a text at the names that stand for stages.
pub(super) fn split(text: &str, stages: usize) -> Result<Vec<SqlPart>, Stop> {
    let mut out = Vec::new();
    let mut seen = 0;
    let mut rest = text;
    while let Some(at) = rest.find(PLACEHOLDER) {
        let digits: String = rest[at + PLACEHOLDER.len()..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let number: usize = digits.parse().unwrap_or(0);
        if number == 0 || number > stages {
            return Err(unprintable("a name of pgbraid's own appears in it".into()));
        }
        out.push(SqlPart::Text(rest[..at].to_owned()));
        out.push(SqlPart::Stage(number - 1));
        seen += 1;
        rest = &rest[at + PLACEHOLDER.len() + digits.len()..];
    }
    out.push(SqlPart::Text(rest.to_owned()));
    if seen != stages {
        return Err(unprintable("a name of pgbraid's own appears in it".into()));
    }
    Ok(out)
}

impl<'a> Stager<'_, '_, 'a> {
    fn select(
        &self,
        original: &'a ast::SelectStmt,
        new: &mut ast::SelectStmt,
        top: bool,
    ) -> Result<(), Stop> {
        let block = self.fan_out.analysis.blocks.get(&node_id(original));
        if !original.locking_clause.is_empty() {
            return Err(refusal(
                "FOR UPDATE in a subquery is not supported over several shards",
                "Lock in a statement of its own.",
                -1,
            )
            .into());
        }
        if let Some(block) = block {
            if !top && self.is_whole(original, block) {
                return self.whole(original, new, block);
            }
            if !top && self.partial(original, new, block)? {
                return Ok(());
            }
        }
        let mut conditions = Vec::new();
        collect_conditions(original.where_clause.as_deref(), &mut conditions);
        let grouped = block.is_some_and(|b| b.grouped);
        for pair in select_children(original)
            .into_iter()
            .zip(select_children_mut(new))
        {
            match pair {
                (Child::Select(o), ChildMut::Select(n)) => self.select(o, n, false)?,
                (Child::Node(o), ChildMut::Node(n)) => match &o.node {
                    Some(
                        Node::RangeVar(_)
                        | Node::JoinExpr(_)
                        | Node::RangeSubselect(_)
                        | Node::RangeFunction(_),
                    ) => {
                        self.table_expression(o, n, &conditions)?;
                    }
                    _ => self.expression(o, n)?,
                },
                _ => {}
            }
        }
        if grouped && let Some(block) = block {
            self.group_dependent_columns(original, new, block)?;
        }
        Ok(())
    }

    /// True for a subquery that is the union of itself over the shards and needs nothing from around it.
    fn is_whole(&self, s: &ast::SelectStmt, block: &Block) -> bool {
        let literal = |t: &ast::ResTarget| {
            // A bare string or NULL has no type of its own yet.
            matches!(t.val.as_deref().and_then(|v| v.node.as_ref()), Some(Node::AConst(c))
                if c.isnull || matches!(c.val, Some(ast::a_const::Val::Sval(_))))
        };
        matches!(block.dist, Dist::Sharded(_))
            && !block.correlated
            && !block.open
            && s.sort_clause.is_empty()
            && s.larg.is_none()
            && !super::outputs::targets(s).any(literal)
            && !block.cols.is_empty()
            && !self.uses_outer_cte(s)
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

    fn whole(
        &self,
        original: &'a ast::SelectStmt,
        new: &mut ast::SelectStmt,
        block: &Block,
    ) -> Result<(), Stop> {
        let text = |empty_arms| -> Result<(String, bool), Stop> {
            let rewrite = self.fan_out.rewrite(empty_arms);
            let select = rewrite.copy(original);
            Ok((print(&select)?, rewrite.used_now.get()))
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
            extra: extras(now),
        };
        let relation = match self.typed_columns(block) {
            Some(columns) => self.typed(remote, columns, &names)?,
            None => self.probed(remote, &names)?,
        };
        *new = star_of(relation);
        Ok(())
    }

    /// A grouped subquery whose aggregates split: partial rows from the shards, the rest here.
    fn partial(
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
        };
        let Some(split) = inner.split_aggregates()? else {
            return Ok(false);
        };
        let relation = self.probed(split.remote, &split.names)?;
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

    fn typed(
        &self,
        remote: Remote,
        columns: Vec<StageColumn>,
        names: &[String],
    ) -> Result<ast::Node, Stop> {
        let number = self.next_number()?;
        self.stages.borrow_mut().push(Stage {
            name: format!("stage_{number}"),
            columns,
            plan: gather(remote),
        });
        Ok(aliased(number, "s", names))
    }

    /// Makes a stage whose columns' types are asked for; its FROM item has the alias `s` and the given column names.
    fn probed(&self, mut remote: Remote, names: &[String]) -> Result<ast::Node, Stop> {
        let columns: Vec<String> = (1..=names.len()).map(|i| format!("c{i}")).collect();
        let number = self.next_number()?;
        match self.fan_out.probed_stage(number, &mut remote, &columns) {
            Ok(stage) => self.stages.borrow_mut().push(stage),
            Err(Stop::Ask(mut probes)) => {
                // Go on with the others: one round trip asks for all of them.
                self.asked.borrow_mut().append(&mut probes);
                self.stages.borrow_mut().push(Stage {
                    name: format!("stage_{number}"),
                    columns: Vec::new(),
                    plan: gather(remote),
                });
            }
            Err(stop) => return Err(stop),
        }
        Ok(aliased(number, "s", names))
    }

    fn next_number(&self) -> Result<usize, Stop> {
        let number = self.stages.borrow().len() + 1;
        match number <= STAGES_MAX {
            true => Ok(number),
            false => Err(refusal(
                "the statement reads too many relations",
                "Split it into several statements.",
                -1,
            )
            .into()),
        }
    }

    fn table_expression(
        &self,
        original: &'a ast::Node,
        new: &mut ast::Node,
        conditions: &Conditions<'a>,
    ) -> Result<(), Stop> {
        match (&original.node, &mut new.node) {
            (Some(Node::RangeVar(v)), _) => self.range_var(v, new, conditions),
            (Some(Node::JoinExpr(o)), Some(Node::JoinExpr(n))) => self.join(o, n, conditions),
            (Some(Node::RangeSubselect(o)), Some(Node::RangeSubselect(n))) => {
                let (Some(o), Some(n)) = (o.subquery.as_deref(), n.subquery.as_deref_mut()) else {
                    return Ok(());
                };
                if let (Some(Node::SelectStmt(o)), Some(Node::SelectStmt(n))) =
                    (&o.node, &mut n.node)
                {
                    self.select(o, n, false)?;
                }
                Ok(())
            }
            _ => self.expression(original, new),
        }
    }

    /// Conditions of WHERE reach a side of a join only where its rows are not kept without a match.
    fn join(
        &self,
        o: &'a ast::JoinExpr,
        n: &mut ast::JoinExpr,
        conditions: &Conditions<'a>,
    ) -> Result<(), Stop> {
        let mut on = Vec::new();
        collect_conditions(o.quals.as_deref(), &mut on);
        let both: Conditions<'a> = conditions.iter().chain(&on).copied().collect();
        let none = Vec::new();
        let (left, right) = match ast::JoinType::try_from(o.jointype) {
            Ok(ast::JoinType::JoinInner) => (&both, &both),
            Ok(ast::JoinType::JoinLeft) => (conditions, &on),
            Ok(ast::JoinType::JoinRight) => (&on, conditions),
            _ => (&none, &none),
        };
        // An alias over the whole join hides the names its conditions above use.
        let (left, right) = match &o.alias {
            Some(_) => (&none, &none),
            None => (left, right),
        };
        if let (Some(o), Some(n)) = (o.larg.as_deref(), n.larg.as_deref_mut()) {
            self.table_expression(o, n, left)?;
        }
        if let (Some(o), Some(n)) = (o.rarg.as_deref(), n.rarg.as_deref_mut()) {
            self.table_expression(o, n, right)?;
        }
        if let (Some(o), Some(n)) = (o.quals.as_deref(), n.quals.as_deref_mut()) {
            self.expression(o, n)?;
        }
        Ok(())
    }

    fn range_var(
        &self,
        v: &'a ast::RangeVar,
        new: &mut ast::Node,
        conditions: &Conditions<'a>,
    ) -> Result<(), Stop> {
        let analysis = self.fan_out.analysis;
        if analysis.cte_uses.contains(&node_id(v)) {
            return Ok(());
        }
        if let Some(used) = analysis.tables.get(&node_id(v)) {
            return self.table(v, &used.table, &used.cond, new, conditions);
        }
        let found = find_table(
            analysis.catalog,
            self.fan_out.request.search_path,
            &v.schemaname,
            &v.relname,
        );
        match found {
            Some(table) if table.kind == TableKind::View => self.view(v, table, new),
            _ => Err(refusal(
                "a relation of this statement is not known",
                "Name its schema.",
                v.location,
            )
            .into()),
        }
    }

    fn view(&self, v: &'a ast::RangeVar, table: &Table, new: &mut ast::Node) -> Result<(), Stop> {
        if table.guarded {
            return Err(refusal(
                format!(
                    "view {} protects its rows and cannot be taken apart over several shards",
                    table.name
                ),
                "Read it by the sharding key, or read its tables.",
                v.location,
            )
            .into());
        }
        let key = (table.schema.clone(), table.name.clone());
        let Some(body) = self.fan_out.analysis.views.get(&key) else {
            return Err(refusal(
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

    /// A table as a stage of the columns that something names.
    fn table(
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
        let number = self.next_number()?;
        let remote = Remote {
            targets,
            sql,
            first_sql: None,
            visible: columns.len(),
            hidden: 0,
            extra,
        };
        self.stages.borrow_mut().push(Stage {
            name: format!("stage_{number}"),
            columns,
            plan: gather(remote),
        });
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
        Ok((sql, extras(rewrite.used_now.get())))
    }

    /// True for a condition on columns of one table only, without subqueries and volatile functions.
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
        columns > 0 && !other
    }

    /// Edits below FROM: now(), subqueries, names qualified by a schema.
    fn expression(&self, original: &'a ast::Node, new: &mut ast::Node) -> Result<(), Stop> {
        if self.rewrite.replace_now(original, new) {
            return Ok(());
        }
        match (&original.node, &mut new.node) {
            (Some(Node::SelectStmt(o)), Some(Node::SelectStmt(n))) => {
                return self.select(o, n, false);
            }
            (Some(Node::ColumnRef(_)), Some(Node::ColumnRef(c))) => {
                strip_reference(c);
                return Ok(());
            }
            _ => {}
        }
        let (Some(parts), Some(copies)) = (children(original), children_mut(new)) else {
            return Err(unprintable("it contains something not known".into()));
        };
        for pair in parts.into_iter().zip(copies) {
            match pair {
                (Child::Node(o), ChildMut::Node(n)) => self.expression(o, n)?,
                (Child::Select(o), ChildMut::Select(n)) => self.select(o, n, false)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A primary key in GROUP BY makes the table's other columns usable; a stage has none, so they are grouped by too.
    fn group_dependent_columns(
        &self,
        original: &'a ast::SelectStmt,
        new: &mut ast::SelectStmt,
        block: &Block,
    ) -> Result<(), Stop> {
        let simple = original
            .group_clause
            .iter()
            .all(|g| !matches!(g.node, Some(Node::GroupingSet(_))));
        if original.group_clause.is_empty() || !simple {
            return Ok(());
        }
        let inner = FanOut {
            request: self.fan_out.request,
            analysis: self.fan_out.analysis,
            select: original,
            block,
            parameters: self.fan_out.parameters,
            volatile: false,
        };
        for column in inner.ungrouped_columns()? {
            let mut copy = column.clone();
            if let Some(Node::ColumnRef(c)) = &mut copy.node {
                strip_reference(c);
            }
            new.group_clause.push(copy);
        }
        Ok(())
    }
}

fn collect_conditions<'a>(condition: Option<&'a ast::Node>, out: &mut Conditions<'a>) {
    let mut conjs = Vec::new();
    conjuncts(condition, &mut conjs);
    out.extend(conjs.into_iter().filter_map(|c| match c {
        Conj::Expression(node) => Some(node),
        Conj::Equal(..) => None,
    }));
}

/// Columns, as table and position, that `=` compares with a column from further out. Flat joins hash what they read once; a
/// subquery that runs for every row outside reads its tables again and again.
fn looked_up(analysis: &Analysis, select: &ast::SelectStmt) -> HashSet<(usize, usize)> {
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

fn string(text: &str) -> ast::Node {
    ast::Node {
        node: Some(Node::String(ast::String { sval: text.into() })),
    }
}

/// The FROM item of a stage, with an alias and names for its columns.
fn aliased(number: usize, alias: &str, names: &[String]) -> ast::Node {
    let mut node = stage_relation(&format!("{PLACEHOLDER}{number}"), alias);
    if let Some(Node::RangeVar(v)) = &mut node.node
        && let Some(a) = &mut v.alias
    {
        a.colnames = names.iter().map(|n| string(n)).collect();
    }
    node
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
