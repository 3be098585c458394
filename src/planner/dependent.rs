//! Columns that GROUP BY need not name, for they depend on a primary key that it names.

use super::analyse::node_id;
use super::grouping::group_items;
use super::outputs::targets;
use super::pushdown::{FanOut, Stop};
use super::scope::{AttrId, Resolved, name_parts};
use super::stage_conditions::Base;
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, children, walk};

/// A column with its table, where the text names that itself, and a reference to it.
type Found = (AttrId, Option<Base>, ast::Node);

/// What an item of GROUP BY has in each of its grouping sets; all that it names goes to `leaves`.
pub(super) fn grouped_by<'a>(
    item: &'a ast::Node,
    leaves: &mut Vec<&'a ast::Node>,
) -> Vec<&'a ast::Node> {
    match &item.node {
        Some(Node::GroupingSet(set)) => {
            let mut common: Option<Vec<&ast::Node>> = None;
            for one in &set.content {
                let mut own = grouped_by(one, leaves);
                if let Some(before) = common {
                    own.retain(|o| before.iter().any(|b| is_same(b, o)));
                }
                common = Some(own);
            }
            match set.kind == ast::GroupingSetKind::GroupingSetSets as i32 {
                true => common.unwrap_or_default(),
                // CUBE and ROLLUP have the empty set, too.
                false => Vec::new(),
            }
        }
        Some(Node::RowExpr(row))
            if row.row_format == ast::CoercionForm::CoerceImplicitCast as i32 =>
        {
            let args = row.args.iter();
            args.flat_map(|arg| grouped_by(arg, leaves)).collect()
        }
        _ => {
            leaves.push(item);
            vec![item]
        }
    }
}

/// True for two mentions of the same column.
fn is_same(a: &ast::Node, b: &ast::Node) -> bool {
    let name = |n: &ast::Node| match &n.node {
        Some(Node::ColumnRef(c)) => name_parts(c).map(|p| p.join(".")),
        _ => None,
    };
    std::ptr::eq(a, b) || name(a).is_some_and(|n| Some(n) == name(b))
}

impl<'a> FanOut<'_, 'a> {
    /// The columns outside of aggregates that GROUP BY does not name, each once. A stage has no primary key: there they must be
    /// named. With each the table it is of, where the text names that itself.
    pub(super) fn dependent_columns(&self) -> Result<Vec<(Option<Base>, ast::Node)>, Stop> {
        let s = self.select;
        let Some(outputs) = self.outputs() else {
            return Ok(Vec::new());
        };
        let (mut grouped, mut by, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for item in group_items(s) {
            let mut leaves = Vec::new();
            let common = grouped_by(item, &mut leaves);
            for leaf in leaves {
                let output = self.analysis.output_of(s, leaf, &outputs);
                let node = match output {
                    Some(output) => output.expression,
                    None => Some(leaf),
                };
                let attr = output.and_then(|o| o.attr);
                let attr = attr.or_else(|| self.analysis.plain_attr(node?));
                if let Some(node) = node {
                    grouped.push((self.canonical(node)?, node));
                }
                seen.extend(attr);
                // Of grouping sets, what all of them have.
                if common.iter().any(|c| is_same(c, leaf)) {
                    by.extend(attr);
                }
            }
        }
        let mut found: Vec<Found> = Vec::new();
        let nodes = targets(s).filter_map(|t| t.val.as_deref());
        let nodes = nodes.chain(s.having_clause.as_deref());
        for node in nodes
            .chain(&s.sort_clause)
            .chain(&s.window_clause)
            .chain(&s.distinct_clause)
        {
            self.ungrouped_in(node, &grouped, &mut found)?;
        }
        let stars = outputs.list.iter().filter(|o| o.expression.is_none());
        found.extend(stars.filter_map(|o| Some((o.attr?, None, self.reference_to(o.attr?)?))));
        found.retain(|(attr, ..)| {
            let new = !seen.contains(attr) && self.is_own(*attr) && self.depends_on(*attr, &by);
            seen.push(*attr);
            new
        });
        let columns = found.into_iter().map(|(_, base, column)| (base, column));
        Ok(columns.collect())
    }

    /// True for a column of this block's FROM: two uses of one WITH query have the same table underneath.
    fn is_own(&self, column: AttrId) -> bool {
        self.block.env.as_ref().is_some_and(|env| {
            let mut items = env.scope.items.iter();
            items.any(|item| item.columns.iter().any(|(_, attr)| *attr == column))
        })
    }

    /// True for a column of a table whose whole primary key is grouped by.
    fn depends_on(&self, column: AttrId, by: &[AttrId]) -> bool {
        let analysis = self.analysis;
        let base = |attr: AttrId| analysis.attrs[attr].base;
        let Some((id, _)) = base(column) else {
            return false;
        };
        let grouped: Vec<_> = by.iter().filter_map(|a| base(*a)).collect();
        analysis.tables.get(&id).is_some_and(|used| {
            let key = &used.table.primary_key;
            let is_grouped = |position: &usize| grouped.contains(&(id, *position));
            !key.is_empty() && key.iter().all(is_grouped)
        })
    }

    fn ungrouped_in(
        &self,
        node: &'a ast::Node,
        grouped: &[(String, &ast::Node)],
        found: &mut Vec<Found>,
    ) -> Result<(), Stop> {
        if let Some(Node::FuncCall(call)) = &node.node
            && call.over.is_none()
            && self.is_aggregate(call)
        {
            return Ok(());
        }
        if self.is_among(node, grouped)? {
            return Ok(());
        }
        match &node.node {
            Some(Node::ColumnRef(_)) => self.note_column(node, found),
            Some(Node::SubLink(link)) => {
                // Those of the subquery's own tables are sorted out later.
                walk(Child::Node(node), &mut |c| {
                    if let Child::Node(n) = c {
                        self.note_column(n, found);
                    }
                    true
                });
                if let Some(test) = link.testexpr.as_deref() {
                    self.ungrouped_in(test, grouped, found)?;
                }
            }
            _ => {
                for child in children(node).unwrap_or_default() {
                    if let Child::Node(n) = child {
                        self.ungrouped_in(n, grouped, found)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn note_column(&self, node: &ast::Node, found: &mut Vec<Found>) {
        if let Some(Node::ColumnRef(c)) = &node.node
            && let Some(Resolved::Column { attr, .. }) = self.analysis.colrefs.get(&node_id(c))
            && name_parts(c).is_some()
        {
            let owner = self.analysis.owners.get(&node_id(c));
            let base = owner.and(self.analysis.attrs[*attr].base);
            found.push((*attr, base, node.clone()));
        }
    }

    /// A name for a column that a star stands for.
    fn reference_to(&self, attr: AttrId) -> Option<ast::Node> {
        let scope = &self.block.env.as_ref()?.scope;
        let named = |i: &&super::scope::Item| !i.name.is_empty();
        let found = scope.items.iter().filter(named).find_map(|item| {
            let (name, _) = item.columns.iter().find(|(_, a)| *a == attr)?;
            Some([item.name.as_str(), name])
        })?;
        Some(ast::Node {
            node: Some(Node::ColumnRef(ast::ColumnRef {
                fields: found.iter().map(|n| super::stages::string(n)).collect(),
                location: -1,
            })),
        })
    }
}
