//! Aggregates over several shards: each shard's part, and what puts the parts together.
//!
//! A statement whose columns are nothing but groups and simple aggregates ends in the proxy (`FinalAggregate`). Any other is
//! rewritten over a stage of the partial rows, so that PostgreSQL itself evaluates what stands around the aggregates.

use super::analyse::node_id;
use super::functions::{bare_name, find};
use super::grouping::group_items;
use super::outputs::targets;
use super::pushdown::{FanOut, Stop, print, target, unprintable};
use super::scope::{AttrId, Resolved, Ty};
use super::types::is_stageable;
use super::types::{base_type, collation, collation_named, is_collatable};
use super::{ProbedColumn, analyse::Dist};
use crate::catalog::Catalog;
use crate::metrics::Reason;
use crate::plan::{Collation, Plan};
use crate::sql::ast::{self, node::Node};
use crate::sql::{
    Child, ChildMut, children, children_mut, expression_text, select_children, select_children_mut,
};
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
pub(super) enum Split {
    Count,
    Sum,
    Average,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    /// The aggregate of its own parts, on the merge session only.
    Same,
    /// An aggregate with DISTINCT: the shards group by its argument too, and the values they have in common count once.
    Distinct,
}

/// One aggregate call of the statement.
pub(super) struct Part<'a> {
    pub(super) call: &'a ast::FuncCall,
    pub(super) node: &'a ast::Node,
    pub(super) canonical: String,
    pub(super) split: Split,
    /// Type of its argument; of no meaning for counts.
    pub(super) arg: Option<Known>,
}

impl<'a> Part<'a> {
    /// The argument whose values count once.
    pub(super) fn distinct(&self) -> Option<&'a ast::Node> {
        let args = (self.split == Split::Distinct).then_some(&self.call.args);
        args.and_then(|a| a.first())
    }
}

/// The pieces of a grouped statement.
#[derive(Default)]
pub(super) struct Pieces<'a> {
    /// Group expressions by their canonical text.
    pub(super) groups: Vec<(String, &'a ast::Node)>,
    pub(super) parts: Vec<Part<'a>>,
}

impl<'a> FanOut<'_, 'a> {
    /// The text of an expression in which columns are what they mean, not how they are written. Columns of a subquery's own
    /// FROM keep their names: two equal subqueries read two occurrences of their tables.
    pub(super) fn canonical(&self, node: &ast::Node) -> Result<String, Stop> {
        let mut copy = node.clone();
        self.name_columns(Child::Node(node), ChildMut::Node(&mut copy), None);
        expression_text(&copy).map_err(unprintable)
    }

    fn name_columns(&self, original: Child<'_>, new: ChildMut<'_>, own: Option<(AttrId, AttrId)>) {
        let (parts, copies, own) = match (original, new) {
            (Child::Node(o), ChildMut::Node(n)) => {
                if let Some(Node::ColumnRef(c)) = &o.node {
                    if let Some(name) = self.meaning_of(c, own) {
                        *n = name;
                    }
                    return;
                }
                let own = match &o.node {
                    Some(Node::SelectStmt(s)) => own.or(self.attrs_of(s)),
                    _ => own,
                };
                (
                    children(o).unwrap_or_default(),
                    children_mut(n).unwrap_or_default(),
                    own,
                )
            }
            (Child::Select(o), ChildMut::Select(n)) => (
                select_children(o),
                select_children_mut(n),
                own.or(self.attrs_of(o)),
            ),
            _ => return,
        };
        for (o, n) in parts.into_iter().zip(copies) {
            self.name_columns(o, n, own);
        }
    }

    fn attrs_of(&self, s: &ast::SelectStmt) -> Option<(AttrId, AttrId)> {
        self.analysis.blocks.get(&node_id(s)).map(|b| b.attrs)
    }

    /// What stands for a column, unless it is one of those made in a subquery of the expression.
    fn meaning_of(&self, c: &ast::ColumnRef, own: Option<(AttrId, AttrId)>) -> Option<ast::Node> {
        let Resolved::Column { attr, .. } = self.analysis.colrefs.get(&node_id(c))? else {
            return None;
        };
        if own.is_some_and(|(from, to)| (from..to).contains(attr)) {
            return None;
        }
        let name = format!("attr {attr}");
        let field = ast::Node {
            node: Some(Node::String(ast::String { sval: name })),
        };
        Some(ast::Node {
            node: Some(Node::ColumnRef(ast::ColumnRef {
                fields: vec![field],
                location: 0,
            })),
        })
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
        self.combined(&pieces).map(Some)
    }

    /// Groups and aggregates of the statement; `None` when it cannot be split.
    pub(super) fn pieces(&self) -> Result<Option<Pieces<'a>>, Stop> {
        let s = self.select;
        let Some(outputs) = self.outputs() else {
            return Ok(None);
        };
        let mut pieces = Pieces::default();
        for item in group_items(s) {
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
        if !self.share_distinct(&pieces)? {
            return Ok(None);
        }
        Ok(self.type_parts(&mut pieces)?.then_some(pieces))
    }

    /// True when all aggregates with DISTINCT have one argument: the shards' rows are few only while they group by one more, and
    /// then not even what depends on the sharding key counts once.
    fn share_distinct(&self, pieces: &Pieces<'a>) -> Result<bool, Stop> {
        let mut first = None;
        let adds_up = |p: &Part<'_>| matches!(p.split, Split::Count | Split::Sum | Split::Average);
        let keyed = |p: &Part<'_>| p.call.agg_distinct && adds_up(p);
        if pieces.parts.iter().any(|p| p.distinct().is_some()) && pieces.parts.iter().any(keyed) {
            return Ok(false);
        }
        for arg in pieces.parts.iter().filter_map(Part::distinct) {
            let canonical = self.canonical(arg)?;
            if *first.get_or_insert_with(|| canonical.clone()) != canonical {
                return Ok(false);
            }
        }
        Ok(true)
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
            Some(Node::GroupingFunc(_)) => return Ok(false),
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
        if self.is_among(node, &pieces.groups)? {
            return Ok(true);
        }
        if matches!(node.node, Some(Node::SubLink(_))) {
            return Ok(false);
        }
        for child in children(node).unwrap_or_default() {
            if let Child::Node(n) = child
                && !self.collect(n, pieces)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True for one of these expressions, however its columns are written.
    pub(super) fn is_among(
        &self,
        node: &ast::Node,
        known: &[(String, &ast::Node)],
    ) -> Result<bool, Stop> {
        if !is_expression(node) || !known.iter().any(|(_, k)| is_alike(k, node)) {
            return Ok(false);
        }
        let canonical = self.canonical(node)?;
        Ok(known.iter().any(|(c, _)| *c == canonical))
    }

    pub(super) fn is_aggregate(&self, call: &ast::FuncCall) -> bool {
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
        let found = self.analysis.called(call)?;
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
            "count" | "sum" | "avg" if call.args.len() == 1 && call.agg_filter.is_none() => {
                Some(Split::Distinct)
            }
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
                // Of equal numerics any may be the one that is added, and they print differently.
                Split::Distinct if bare_name(part.call) != Some("count") => {
                    matches!(known.oid, oid::INT2 | oid::INT4 | oid::INT8)
                }
                Split::Distinct => is_stageable(self.analysis.catalog, known.oid),
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
            return Err(super::refusal(
                Reason::Other,
                "the statement's types are not known",
                "Try again.",
                -1,
            )
            .into());
        }
        Ok(probed.iter().map(|p| of_probe(catalog, p)).collect())
    }

    /// The sum an average needs: of float4 in double precision, as avg itself adds.
    pub(super) fn average_sum(&self, part: &Part<'_>) -> ast::Node {
        let mut node = renamed(part.call, "sum");
        if part.arg.as_ref().is_some_and(|a| a.oid == oid::FLOAT4)
            && let Some(Node::FuncCall(call)) = &mut node.node
            && let Some(arg) = call.args.pop()
        {
            call.args.push(super::rewrite::cast(arg, "float8", -1));
        }
        node
    }
}

/// False for nodes that are surely different: it takes long to write out every part of a long expression.
pub(super) fn is_alike(a: &ast::Node, b: &ast::Node) -> bool {
    let kind = |n: &ast::Node| n.node.as_ref().map(std::mem::discriminant);
    kind(a) == kind(b)
}

/// False for nodes that are parts of expressions but none themselves.
pub(super) fn is_expression(node: &ast::Node) -> bool {
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
pub(super) fn renamed(call: &ast::FuncCall, name: &str) -> ast::Node {
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
