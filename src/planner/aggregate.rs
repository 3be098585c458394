//! Aggregates over several shards: each shard's part, and what puts the parts together.
//!
//! A statement whose columns are nothing but groups and simple aggregates ends in the proxy (`FinalAggregate`). Any other is
//! rewritten over a stage of the partial rows, so that PostgreSQL itself evaluates what stands around the aggregates.

use super::analyse::node_id;
use super::functions::{bare_name, find};
use super::outputs::{column_name, targets};
use super::pushdown::{FanOut, Stop, extras, gather, print, target, unprintable};
use super::scope::{Resolved, Ty};
use super::types::{
    base_type, collation, collation_named, is_collatable, is_comparable, is_orderable,
};
use super::{ProbedColumn, analyse::Dist};
use crate::catalog::Catalog;
use crate::plan::{Collation, Final, FinalFunction, OutputColumn, Plan, Remote};
use crate::sql::ast::{self, node::Node};
use crate::sql::{ChildMut, children_mut, expression_text};
use crate::types::oid;

/// What a type is by, before or after asking.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) oid: u32,
    pub(super) collation: Option<Collation>,
    /// It has a collation, but which is not certain.
    pub(super) doubtful: bool,
}

/// How an aggregate is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    Count,
    Sum,
    Average,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    /// The aggregate of its own parts, on the merge session only.
    Same,
}

/// One aggregate call of the statement.
pub(super) struct Part<'a> {
    call: &'a ast::FuncCall,
    node: &'a ast::Node,
    canonical: String,
    split: Split,
    /// Type of its argument; of no meaning for counts.
    arg: Option<Known>,
}

/// A grouped query split in two.
pub(super) struct Halves {
    /// What the shards compute.
    pub(super) remote: Remote,
    /// Its columns.
    pub(super) names: Vec<String>,
    /// What is left over their rows, its FROM still to be set to a relation called `s`.
    pub(super) select: ast::SelectStmt,
}

/// The pieces of a grouped statement.
#[derive(Default)]
pub(super) struct Pieces<'a> {
    /// Group expressions by their canonical text.
    pub(super) groups: Vec<(String, &'a ast::Node)>,
    pub(super) parts: Vec<Part<'a>>,
}

impl<'a> FanOut<'_, 'a> {
    /// The text of an expression in which columns are what they mean, not how they are written.
    pub(super) fn canonical(&self, node: &ast::Node) -> Result<String, Stop> {
        let mut copy = node.clone();
        self.name_columns(node, &mut copy);
        expression_text(&copy).map_err(unprintable)
    }

    fn name_columns(&self, original: &ast::Node, new: &mut ast::Node) {
        if let Some(Node::ColumnRef(c)) = &original.node {
            if let Some(Resolved::Column { attr, .. }) = self.analysis.colrefs.get(&node_id(c)) {
                let name = format!("attr {attr}");
                new.node = Some(Node::ColumnRef(ast::ColumnRef {
                    fields: vec![ast::Node {
                        node: Some(Node::String(ast::String { sval: name })),
                    }],
                    location: 0,
                }));
            }
            return;
        }
        if let (Some(o), Some(n)) = (crate::sql::children(original), children_mut(new)) {
            for pair in o.into_iter().zip(n) {
                if let (crate::sql::Child::Node(o), ChildMut::Node(n)) = pair {
                    self.name_columns(o, n);
                }
            }
        }
    }

    /// The plan of a grouped block over distributive rows; `None` when some aggregate cannot be split.
    pub(super) fn aggregate(&self) -> Result<Option<Plan>, Stop> {
        if !self.block.grouped || self.block.open || !matches!(self.block.from, Dist::Sharded(_)) {
            return Ok(None);
        }
        let Some(pieces) = self.pieces()? else {
            return Ok(None);
        };
        if let Some(plan) = self.in_proxy(&pieces)? {
            return Ok(Some(plan));
        }
        self.combined(pieces).map(Some)
    }

    /// Groups and aggregates of the statement; `None` when it cannot be split.
    fn pieces(&self) -> Result<Option<Pieces<'a>>, Stop> {
        let s = self.select;
        let Some(outputs) = self.outputs() else {
            return Ok(None);
        };
        let mut pieces = Pieces::default();
        for item in &s.group_clause {
            if matches!(item.node, Some(Node::GroupingSet(_))) {
                return Ok(None);
            }
            let node = match self.analysis.output_of(s, item, &outputs) {
                Some(output) => match output.expression {
                    Some(node) => node,
                    None => return Ok(None),
                },
                None => item,
            };
            self.add_group(&mut pieces, node)?;
        }
        let mut nodes: Vec<&'a ast::Node> = targets(s).filter_map(|t| t.val.as_deref()).collect();
        nodes.extend(s.having_clause.as_deref());
        nodes.extend(&s.window_clause);
        nodes.extend(s.distinct_clause.iter().filter(|n| n.node.is_some()));
        nodes.extend(&s.sort_clause);
        for node in nodes {
            if !self.collect(node, &mut pieces)? {
                return Ok(None);
            }
        }
        Ok(self.type_parts(&mut pieces)?.then_some(pieces))
    }

    fn add_group(&self, pieces: &mut Pieces<'a>, node: &'a ast::Node) -> Result<(), Stop> {
        let canonical = self.canonical(node)?;
        if !pieces.groups.iter().any(|(c, _)| *c == canonical) {
            pieces.groups.push((canonical, node));
        }
        Ok(())
    }

    /// Finds aggregates, and columns that depend on the groups, in an expression over groups. False when it cannot be.
    fn collect(&self, node: &'a ast::Node, pieces: &mut Pieces<'a>) -> Result<bool, Stop> {
        match &node.node {
            Some(Node::SubLink(_) | Node::GroupingFunc(_)) => return Ok(false),
            Some(Node::ColumnRef(c)) => {
                return match self.analysis.colrefs.get(&node_id(c)) {
                    // An output's name in ORDER BY or GROUP BY.
                    None => Ok(super::scope::name_parts(c).is_some()),
                    Some(Resolved::Column { levels: 0, .. }) => {
                        // Grouped, or dependent on a primary key that is: then it is constant within the group too.
                        self.add_group(pieces, node)?;
                        Ok(true)
                    }
                    Some(_) => Ok(false),
                };
            }
            Some(Node::FuncCall(call)) if call.over.is_none() && self.is_aggregate(call) => {
                return self.add_part(node, call, pieces);
            }
            _ => {}
        }
        if is_expression(node) && !pieces.groups.is_empty() {
            let canonical = self.canonical(node)?;
            if pieces.groups.iter().any(|(c, _)| *c == canonical) {
                return Ok(true);
            }
        }
        for child in crate::sql::children(node).unwrap_or_default() {
            if let crate::sql::Child::Node(n) = child
                && !self.collect(n, pieces)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_aggregate(&self, call: &ast::FuncCall) -> bool {
        call.agg_star
            || call.agg_distinct
            || call.agg_within_group
            || call.agg_filter.is_some()
            || !call.agg_order.is_empty()
            || find(self.analysis.catalog, self.request.search_path, call)
                .is_none_or(|c| c.aggregate)
    }

    fn add_part(
        &self,
        node: &'a ast::Node,
        call: &'a ast::FuncCall,
        pieces: &mut Pieces<'a>,
    ) -> Result<bool, Stop> {
        let Some(split) = self.split(call) else {
            return Ok(false);
        };
        let canonical = self.canonical(node)?;
        if !pieces.parts.iter().any(|p| p.canonical == canonical) {
            pieces.parts.push(Part {
                call,
                node,
                canonical,
                split,
                arg: None,
            });
        }
        Ok(true)
    }

    fn split(&self, call: &ast::FuncCall) -> Option<Split> {
        let found = find(self.analysis.catalog, self.request.search_path, call)?;
        if !found.builtin || call.agg_within_group || call.func_variadic {
            return None;
        }
        let name = bare_name(call)?;
        let keyed = || {
            let attr = call.args.first().and_then(|a| self.analysis.plain_attr(a));
            let Dist::Sharded(d) = &self.block.from else {
                return false;
            };
            call.args.len() == 1 && d.keys.iter().any(|(k, _)| Some(*k) == attr)
        };
        let distinct = call.agg_distinct;
        match name {
            "count" if call.args.len() <= 1 && (!distinct || keyed()) => Some(Split::Count),
            "sum" if !distinct || keyed() => Some(Split::Sum),
            "avg" if !distinct || keyed() => Some(Split::Average),
            "min" => Some(Split::Min),
            "max" => Some(Split::Max),
            "bool_and" | "every" => Some(Split::BoolAnd),
            "bool_or" => Some(Split::BoolOr),
            "bit_and" | "bit_or" => Some(Split::Same),
            "bit_xor" if !distinct => Some(Split::Same),
            _ => None,
        }
    }

    /// Finds the types of all arguments, asking for those that are not plain to see. False when one cannot be split.
    fn type_parts(&self, pieces: &mut Pieces<'a>) -> Result<bool, Stop> {
        let typed = |p: &Part<'_>| !matches!(p.split, Split::Count);
        let args: Vec<&ast::Node> = pieces
            .parts
            .iter()
            .filter(|p| typed(p))
            .filter_map(|p| p.call.args.first())
            .collect();
        let mut types = self.types_of(&args)?.into_iter();
        for part in pieces.parts.iter_mut().filter(|p| typed(p)) {
            let Some(known) = types.next() else {
                return Ok(false);
            };
            let number = matches!(
                known.oid,
                oid::INT2
                    | oid::INT4
                    | oid::INT8
                    | oid::NUMERIC
                    | oid::FLOAT4
                    | oid::FLOAT8
                    | oid::INTERVAL
            );
            let fits = match part.split {
                Split::Sum => number || known.oid == oid::MONEY,
                Split::Average => number,
                _ => true,
            };
            if !fits {
                return Ok(false);
            }
            part.arg = Some(known);
        }
        Ok(true)
    }

    /// Types and collations of expressions over the statement's FROM.
    pub(super) fn types_of(&self, nodes: &[&ast::Node]) -> Result<Vec<Known>, Stop> {
        let catalog = self.analysis.catalog;
        let known: Vec<Option<Known>> = nodes
            .iter()
            .map(|n| {
                self.analysis
                    .static_type(n)
                    .and_then(|t| of_type(catalog, &t))
            })
            .collect();
        if let Some(all) = known.iter().cloned().collect::<Option<Vec<Known>>>() {
            return Ok(all);
        }
        let mut select = self.select.clone();
        select.target_list = nodes
            .iter()
            .enumerate()
            .map(|(i, n)| target((*n).clone(), &format!("a{}", i + 1)))
            .collect();
        select.group_clause.clear();
        select.having_clause = None;
        select.window_clause.clear();
        select.distinct_clause.clear();
        select.sort_clause.clear();
        select.limit_count = None;
        select.limit_offset = None;
        select.limit_option = ast::LimitOption::Default as i32;
        select.locking_clause.clear();
        let probed = self.probe_columns(&print(&select)?)?;
        if probed.len() != nodes.len() {
            return Err(
                super::refusal("the statement's types are not known", "Try again.", -1).into(),
            );
        }
        Ok(probed.iter().map(|p| of_probe(catalog, p)).collect())
    }

    /// A plan that ends in the proxy: nothing but groups and simple aggregates.
    fn in_proxy(&self, pieces: &Pieces<'a>) -> Result<Option<Plan>, Stop> {
        let s = self.select;
        let bare = s.having_clause.is_none()
            && s.distinct_clause.is_empty()
            && s.sort_clause.is_empty()
            && s.limit_count.is_none()
            && s.limit_offset.is_none()
            && !self.block.windows
            && !s.target_list.is_empty();
        if !bare {
            return Ok(None);
        }
        let mut output = Vec::new();
        for t in targets(s) {
            let Some(value) = t.val.as_deref() else {
                return Ok(None);
            };
            let canonical = self.canonical(value)?;
            let group = pieces.groups.iter().position(|(c, _)| *c == canonical);
            let part = pieces.parts.iter().position(|p| p.canonical == canonical);
            output.push(match (group, part) {
                (Some(n), _) => OutputColumn::Group(n),
                (None, Some(n)) => OutputColumn::Aggregate(n),
                (None, None) => return Ok(None),
            });
        }
        let group_nodes: Vec<&ast::Node> = pieces.groups.iter().map(|(_, n)| *n).collect();
        let groups = self.types_of(&group_nodes)?;
        let by_bytes = |k: &Known| {
            self.analysis.prints_apart(k.oid)
                && !k.doubtful
                && k.collation.as_ref().is_none_or(|c| c.deterministic)
        };
        if !groups.iter().all(by_bytes) || !pieces.parts.iter().all(|p| self.finishes_here(p)) {
            return Ok(None);
        }
        self.final_aggregate(pieces, output).map(Some)
    }

    fn finishes_here(&self, part: &Part<'_>) -> bool {
        let Some(arg) = &part.arg else {
            return part.split == Split::Count;
        };
        match part.split {
            Split::Count | Split::BoolAnd | Split::BoolOr => true,
            Split::Sum | Split::Average => !matches!(arg.oid, oid::INTERVAL | oid::MONEY),
            Split::Min | Split::Max => {
                is_comparable(self.analysis.catalog, arg.oid)
                    && !arg.doubtful
                    && arg.collation.as_ref().is_none_or(is_orderable)
            }
            Split::Same => false,
        }
    }

    /// Groups and the values of min/max are visible, in the client's formats; all that is computed with trails, in binary.
    fn final_aggregate(
        &self,
        pieces: &Pieces<'a>,
        output: Vec<OutputColumn>,
    ) -> Result<Plan, Stop> {
        let groups = pieces.groups.len();
        let mut visible: Vec<ast::Node> = pieces.groups.iter().map(|(_, n)| (*n).clone()).collect();
        let is_extreme = |p: &&Part<'_>| matches!(p.split, Split::Min | Split::Max);
        visible.extend(
            pieces
                .parts
                .iter()
                .filter(is_extreme)
                .map(|p| p.node.clone()),
        );
        let width = visible.len();
        let mut hidden: Vec<ast::Node> = Vec::new();
        let mut value = groups;
        let mut aggregates = Vec::new();
        for part in &pieces.parts {
            let mut next = |node: ast::Node| {
                hidden.push(node);
                width + hidden.len() - 1
            };
            let collation = || part.arg.as_ref().and_then(|a| a.collation.clone());
            let function = match part.split {
                Split::Count => FinalFunction::Count {
                    column: next(part.node.clone()),
                },
                Split::Sum => FinalFunction::Sum {
                    column: next(part.node.clone()),
                },
                Split::Average => FinalFunction::Average {
                    sum: next(self.average_sum(part)),
                    count: next(renamed(part.call, "count")),
                },
                Split::BoolAnd | Split::Same => FinalFunction::BoolAnd {
                    column: next(part.node.clone()),
                },
                Split::BoolOr => FinalFunction::BoolOr {
                    column: next(part.node.clone()),
                },
                Split::Min | Split::Max => {
                    let key = next(part.node.clone());
                    value += 1;
                    let (value, collation) = (value - 1, collation());
                    match part.split {
                        Split::Min => FinalFunction::Min {
                            value,
                            key,
                            collation,
                        },
                        _ => FinalFunction::Max {
                            value,
                            key,
                            collation,
                        },
                    }
                }
            };
            aggregates.push(Final {
                function,
                text: expression_text(part.node).map_err(unprintable)?,
            });
        }
        let hidden_count = hidden.len();
        visible.extend(hidden);
        let (sql, first_sql, now) = self.partial_texts(&visible, groups)?;
        let remote = self.remote(sql, first_sql, extras(now), width, hidden_count);
        Ok(Plan::FinalAggregate {
            input: Box::new(Plan::Remote(remote)),
            groups,
            aggregates,
            output,
        })
    }

    /// The sum an average needs: of float4 in double precision, as avg itself adds.
    fn average_sum(&self, part: &Part<'_>) -> ast::Node {
        let mut node = renamed(part.call, "sum");
        if part.arg.as_ref().is_some_and(|a| a.oid == oid::FLOAT4)
            && let Some(Node::FuncCall(call)) = &mut node.node
            && let Some(arg) = call.args.pop()
        {
            call.args.push(super::rewrite::cast(arg, "float8", -1));
        }
        node
    }

    /// `SELECT columns FROM … WHERE … GROUP BY 1, …, groups`, for every shard and for the first.
    fn partial_texts(
        &self,
        columns: &[ast::Node],
        groups: usize,
    ) -> Result<(String, Option<String>, bool), Stop> {
        let text = |empty_arms| -> Result<(String, bool), Stop> {
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
                .map(|i| super::rewrite::integer(i as i32))
                .collect();
            select.having_clause = None;
            select.window_clause.clear();
            select.distinct_clause.clear();
            select.sort_clause.clear();
            select.limit_count = None;
            select.limit_offset = None;
            select.limit_option = ast::LimitOption::Default as i32;
            Ok((print(&select)?, rewrite.used_now.get()))
        };
        let (sql, now) = text(true)?;
        let first = match self.analysis.first_arms.is_empty() {
            true => None,
            false => Some(text(false)?.0),
        };
        Ok((sql, first, now))
    }

    /// Partial rows in a stage, and the statement over them.
    fn combined(&self, pieces: Pieces<'a>) -> Result<Plan, Stop> {
        let Halves {
            mut remote,
            names,
            mut select,
        } = self.halves(pieces)?;
        let stage = self.probed_stage(1, &mut remote, &names)?;
        let rewrite = self.rewrite(false);
        select.from_clause = vec![super::rewrite::stage_relation("pgbraid_stage_1", "s")];
        rewrite.edit_copy_select(&mut select);
        let text = print(&select)?;
        Ok(Plan::Combine {
            sql: super::stages::split(&text, 1)?,
            stages: vec![crate::plan::Stage {
                plan: gather(remote),
                ..stage
            }],
            extra: extras(rewrite.used_now.get()),
        })
    }

    /// A grouped query split in two, `None` when it cannot be.
    pub(super) fn split_aggregates(&self) -> Result<Option<Halves>, Stop> {
        if !self.block.grouped || self.block.open || !matches!(self.block.from, Dist::Sharded(_)) {
            return Ok(None);
        }
        match self.pieces()? {
            Some(pieces) => self.halves(pieces).map(Some),
            None => Ok(None),
        }
    }

    fn halves(&self, pieces: Pieces<'a>) -> Result<Halves, Stop> {
        let mut columns: Vec<ast::Node> = pieces.groups.iter().map(|(_, n)| (*n).clone()).collect();
        let groups = columns.len();
        let mut finals = Vec::new();
        for part in &pieces.parts {
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
        let (sql, first_sql, now) = self.partial_texts(&columns, groups)?;
        let names: Vec<String> = (1..=columns.len()).map(|i| format!("c{i}")).collect();
        Ok(Halves {
            remote: self.remote(sql, first_sql, extras(now), names.len(), 0),
            select: self.final_select(&pieces, &finals)?,
            names,
        })
    }

    /// Columns outside of aggregates that GROUP BY does not name: they depend on a primary key that it names.
    pub(super) fn ungrouped_columns(&self) -> Result<Vec<&'a ast::Node>, Stop> {
        let s = self.select;
        let Some(outputs) = self.outputs() else {
            return Ok(Vec::new());
        };
        let mut grouped = Vec::new();
        for item in &s.group_clause {
            let node = match self.analysis.output_of(s, item, &outputs) {
                Some(output) => output.expression,
                None => Some(item),
            };
            if let Some(node) = node {
                grouped.push(self.canonical(node)?);
            }
        }
        let mut found = Vec::new();
        let nodes = targets(s).filter_map(|t| t.val.as_deref());
        for node in nodes
            .chain(s.having_clause.as_deref())
            .chain(&s.sort_clause)
        {
            self.ungrouped_in(node, &mut grouped, &mut found)?;
        }
        Ok(found)
    }

    fn ungrouped_in(
        &self,
        node: &'a ast::Node,
        grouped: &mut Vec<String>,
        found: &mut Vec<&'a ast::Node>,
    ) -> Result<(), Stop> {
        match &node.node {
            Some(Node::FuncCall(call)) if call.over.is_none() && self.is_aggregate(call) => {
                return Ok(());
            }
            Some(Node::SubLink(_)) => return Ok(()),
            _ => {}
        }
        if is_expression(node) {
            let canonical = self.canonical(node)?;
            if grouped.contains(&canonical) {
                return Ok(());
            }
            if let Some(Node::ColumnRef(c)) = &node.node {
                if matches!(
                    self.analysis.colrefs.get(&node_id(c)),
                    Some(Resolved::Column { levels: 0, .. })
                ) {
                    grouped.push(canonical);
                    found.push(node);
                }
                return Ok(());
            }
        }
        for child in crate::sql::children(node).unwrap_or_default() {
            if let crate::sql::Child::Node(n) = child {
                self.ungrouped_in(n, grouped, found)?;
            }
        }
        Ok(())
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
        if is_expression(original) && !matches!(original.node, Some(Node::AConst(_))) {
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

/// False for nodes that are parts of expressions but none themselves.
fn is_expression(node: &ast::Node) -> bool {
    !matches!(
        &node.node,
        None | Some(
            Node::SortBy(_)
                | Node::WindowDef(_)
                | Node::List(_)
                | Node::AIndices(_)
                | Node::CaseWhen(_)
                | Node::NamedArgExpr(_)
                | Node::ResTarget(_)
                | Node::String(_)
                | Node::AStar(_)
                | Node::GroupingSet(_)
        )
    )
}

/// The same call of another function; what DISTINCT and FILTER say stays.
fn renamed(call: &ast::FuncCall, name: &str) -> ast::Node {
    let string = |s: &str| ast::Node {
        node: Some(Node::String(ast::String { sval: s.into() })),
    };
    ast::Node {
        node: Some(Node::FuncCall(Box::new(ast::FuncCall {
            funcname: vec![string("pg_catalog"), string(name)],
            ..call.clone()
        }))),
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

fn of_type(catalog: &Catalog, ty: &Ty) -> Option<Known> {
    let collatable = is_collatable(catalog, base_type(catalog, ty.oid));
    if collatable && ty.collation == 0 {
        return None;
    }
    let found = if collatable {
        collation(catalog, ty.collation)
    } else {
        None
    };
    Some(Known {
        oid: base_type(catalog, ty.oid),
        doubtful: collatable && found.is_none(),
        collation: found,
    })
}

fn of_probe(catalog: &Catalog, probed: &ProbedColumn) -> Known {
    let base = base_type(catalog, probed.type_oid);
    let collatable = is_collatable(catalog, base);
    let found = probed
        .collation
        .as_deref()
        .and_then(|c| collation_named(catalog, c));
    Known {
        oid: base,
        doubtful: collatable && found.is_none(),
        collation: found.filter(|_| collatable),
    }
}
