//! What each block of a statement is over the shards, by the rules of the algebra: see [`Dist`].
//!
//! A block gets its distribution from its FROM and WHERE (`joins`), then from its subqueries, grouping, windows, DISTINCT
//! and LIMIT (`blocks`). Nothing is rewritten here.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use super::ahead::Ahead;
use super::condition::Conj;
use super::scope::{Attr, AttrId, Env, Item, Resolved, Scope, Ty, resolve};
use crate::catalog::sharding::Sharding;
use crate::catalog::{Catalog, Table};
use crate::metrics::Reason;
use crate::plan::{KeyCondition, Refusal, ShardId};
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, children};

/// Rows spread over the shards, each on one.
#[derive(Debug, Clone, Default)]
pub(super) struct Distributed {
    /// `None` when the key is unknown, or arms of a union are spread differently.
    pub(super) sharding: Option<Arc<Sharding>>,
    /// Columns that decide a row's shard; false for those that an outer join may have made NULL.
    pub(super) keys: Vec<(AttrId, bool)>,
}

/// A relation over the shards.
#[derive(Debug, Clone)]
pub(super) enum Dist {
    /// Every shard computes the same rows; inside a subquery also: the rows for one outer row are computed where that row is.
    Local,
    /// As `Local`, but two shards may compute different rows: to be computed once. Says what makes it so.
    Once(Refusal),
    Sharded(Distributed),
    Single(ShardId),
    /// No shard alone, and not the union of all either. Says why.
    Global(Refusal),
}

/// A relation expression.
#[derive(Debug, Clone)]
pub(super) struct Rel {
    pub(super) dist: Dist,
    pub(super) cols: Vec<(String, AttrId)>,
    /// More columns than are known.
    pub(super) open: bool,
    /// Shards that may hold sharded rows that matter to it.
    pub(super) cond: KeyCondition,
    /// The table it is, where it is nothing else.
    pub(super) table: Option<usize>,
}

/// What was found out about one SELECT.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// All of it.
    pub(super) dist: Dist,
    /// FROM and WHERE only, subqueries of every clause included.
    pub(super) from: Dist,
    pub(super) cond: KeyCondition,
    pub(super) cols: Vec<(String, AttrId)>,
    pub(super) open: bool,
    pub(super) grouped: bool,
    pub(super) windows: bool,
    /// Names something of a query around it.
    pub(super) correlated: bool,
    /// The columns made in it: from the first up to, not including, the second.
    pub(super) attrs: (AttrId, AttrId),
    pub(super) env: Option<Rc<Env>>,
    /// What grouping, windows and DISTINCT make of `from`, LIMIT and ORDER BY left aside.
    pub(super) unlimited: Dist,
    /// The same with DISTINCT left aside too.
    pub(super) plain: Dist,
}

/// A table where it is named.
#[derive(Debug, Clone)]
pub(super) struct TableUse {
    pub(super) table: Arc<Table>,
    /// What restricts the shards of its rows here.
    pub(super) cond: KeyCondition,
}

/// Bodies of the views a statement reads, by schema and name.
pub(super) type Views = HashMap<(String, String), ast::SelectStmt>;

/// The state of analysing one statement. Tree nodes are known by their addresses, which stay put meanwhile.
pub(super) struct Analysis<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) views: &'a Views,
    pub(super) search_path: &'a [String],
    pub(super) parameter_types: &'a [u32],
    pub(super) attrs: Vec<Attr>,
    pub(super) colrefs: HashMap<usize, Resolved>,
    pub(super) blocks: HashMap<usize, Block>,
    pub(super) tables: HashMap<usize, TableUse>,
    /// Columns that something names, by the table's place in the text and their position.
    pub(super) used: HashSet<(usize, usize)>,
    /// Tables of which a row is named as a whole: all columns are needed, under their names.
    pub(super) whole_rows: HashSet<usize>,
    /// Tables named with system columns: what is pulled of them would not do.
    pub(super) system_rows: HashSet<usize>,
    /// Tables of which a sample is read.
    pub(super) samples: HashMap<usize, &'a ast::RangeTableSample>,
    /// Rows as a whole: schema and name of the table or view whose row type they have.
    pub(super) row_types: HashMap<usize, (String, String)>,
    /// Set once a join may make rows NULL.
    pub(super) outer_joins: bool,
    pub(super) system_columns: Option<Refusal>,
    /// The same for those that the outermost select list shows: they may be as the shard of the row has them.
    pub(super) shown_columns: Option<Refusal>,
    /// The outermost select list is being looked at.
    pub(super) in_targets: bool,
    /// UNION ALL arms that only one shard may answer.
    pub(super) first_arms: HashSet<usize>,
    /// Views with such arms, by schema and name.
    pub(super) split_views: HashSet<(String, String)>,
    /// Views that read the clock: named they would read the shard's.
    pub(super) clock_views: HashSet<(String, String)>,
    /// Columns that USING makes of two.
    pub(super) merged: Vec<(AttrId, AttrId, AttrId)>,
    /// Equalities that USING and NATURAL write, by join.
    pub(super) using: HashMap<usize, Vec<(AttrId, AttrId)>>,
    /// Column references that name a table of FROM itself, not what is made of it, with that table.
    pub(super) owners: HashMap<usize, usize>,
    /// Queries of EXISTS whose columns nobody reads.
    pub(super) unread: HashSet<usize>,
    /// FROM names that mean a WITH query.
    pub(super) cte_uses: HashSet<usize>,
    /// FROM names that mean a view.
    pub(super) view_uses: HashSet<usize>,
    /// Recursive queries being analysed: the columns of their working tables.
    pub(super) working: Vec<(usize, Vec<(String, AttrId)>)>,
    /// Blocks being analysed, outermost first; true where something inside names a column further out.
    pub(super) stack: Vec<(usize, bool)>,
    pub(super) ahead: Ahead,
}

/// Identifies a tree node while the tree is borrowed.
pub(super) fn node_id<T>(node: &T) -> usize {
    std::ptr::from_ref(node) as usize
}

/// The FROM items left of a place, not yet joined with what follows.
#[derive(Debug, Clone, Default)]
pub(super) struct Part<'a> {
    pub(super) leaves: Vec<Rel>,
    pub(super) conjs: Vec<Conj<'a>>,
    pub(super) scope: Scope,
}

impl<'a> Part<'a> {
    pub(super) fn leaf(rel: Rel, item: Item) -> Self {
        let visible = item.columns.clone();
        Self {
            leaves: vec![rel],
            conjs: Vec::new(),
            scope: Scope {
                items: vec![item],
                visible,
            },
        }
    }

    pub(super) fn append(&mut self, other: Part<'a>) {
        self.leaves.extend(other.leaves);
        self.conjs.extend(other.conjs);
        self.scope.items.extend(other.scope.items);
        self.scope.visible.extend(other.scope.visible);
    }
}

/// What expressions of a block contain.
#[derive(Debug, Default)]
pub(super) struct Uses<'a> {
    /// Subqueries, with true for those that are a whole condition which rows must pass.
    pub(super) sublinks: Vec<(&'a ast::SubLink, bool)>,
    pub(super) aggregates: Vec<&'a ast::FuncCall>,
    pub(super) windows: Vec<&'a ast::FuncCall>,
    pub(super) grouping: bool,
}

pub(super) fn refusal(
    reason: Reason,
    message: impl Into<String>,
    hint: &str,
    location: i32,
) -> Refusal {
    Refusal {
        reason,
        message: message.into(),
        hint: hint.into(),
        location: usize::try_from(location).ok(),
    }
}

/// Of a view that shows only some rows and would show others if its query stood in its place.
pub(super) fn guarded_view(view: &str, location: i32) -> Refusal {
    refusal(
        Reason::View,
        format!("view {view} protects its rows and cannot be taken apart over several shards"),
        "Read it by the sharding key, or read its tables.",
        location,
    )
}

impl<'a> Analysis<'a> {
    pub(super) fn new(
        catalog: &'a Catalog,
        views: &'a Views,
        search_path: &'a [String],
        parameter_types: &'a [u32],
    ) -> Self {
        Self {
            catalog,
            views,
            search_path,
            parameter_types,
            ahead: Ahead::default(),
            attrs: Vec::new(),
            colrefs: HashMap::new(),
            blocks: HashMap::new(),
            tables: HashMap::new(),
            used: HashSet::new(),
            whole_rows: HashSet::new(),
            system_rows: HashSet::new(),
            samples: HashMap::new(),
            row_types: HashMap::new(),
            outer_joins: false,
            system_columns: None,
            shown_columns: None,
            in_targets: false,
            first_arms: HashSet::new(),
            split_views: HashSet::new(),
            clock_views: super::clock::views(catalog, views),
            merged: Vec::new(),
            using: HashMap::new(),
            owners: HashMap::new(),
            unread: HashSet::new(),
            cte_uses: HashSet::new(),
            view_uses: HashSet::new(),
            working: Vec::new(),
            stack: Vec::new(),
        }
    }

    pub(super) fn fresh(&mut self, ty: Option<Ty>) -> AttrId {
        self.attrs.push(Attr { ty, base: None });
        self.attrs.len() - 1
    }

    pub(super) fn attr_of(&self, reference: &ast::ColumnRef) -> Option<AttrId> {
        match self.colrefs.get(&node_id(reference))? {
            Resolved::Column { attr, .. } => Some(*attr),
            _ => None,
        }
    }

    pub(super) fn mark_used(&mut self, attr: AttrId) {
        if let Some(base) = self.attrs[attr].base {
            self.used.insert(base);
        }
    }

    /// Notes that something needs all columns of a scope, as they stand there.
    pub(super) fn use_all(&mut self, scope: &Scope) {
        for (_, attr) in &scope.visible {
            self.mark_used(*attr);
        }
        self.whole_rows
            .extend(scope.items.iter().filter_map(|i| i.table));
    }

    pub(super) fn enter(&mut self, id: usize) {
        self.stack.push((id, false));
    }

    /// Leaves a block; says whether it names something further out.
    pub(super) fn leave(&mut self) -> bool {
        self.stack.pop().is_some_and(|(_, correlated)| correlated)
    }

    /// Resolves the columns of an expression and notes what it contains. `whole` says that rows must pass it.
    pub(super) fn expression(
        &mut self,
        node: &'a ast::Node,
        scope: &Scope,
        env: Option<&Rc<Env>>,
        uses: &mut Uses<'a>,
        whole: bool,
    ) -> Result<(), Refusal> {
        match &node.node {
            Some(Node::ColumnRef(c)) => return self.column_ref(c, scope, env, false),
            Some(Node::TypeCast(t)) if super::functions::cast_name(t) == Some("regclass") => {
                if let Some(Node::ColumnRef(c)) = t.arg.as_deref().and_then(|a| a.node.as_ref()) {
                    return self.column_ref(c, scope, env, true);
                }
            }
            Some(Node::SubLink(s)) => {
                if let Some(test) = s.testexpr.as_deref() {
                    self.expression(test, scope, env, uses, false)?;
                }
                uses.sublinks.push((s, whole));
                return Ok(());
            }
            Some(Node::FuncCall(f)) if f.over.is_some() => uses.windows.push(f),
            Some(Node::FuncCall(f)) => {
                let found = super::functions::find(self.catalog, self.search_path_or_all(), f);
                let marked =
                    f.agg_star || f.agg_distinct || f.agg_within_group || f.agg_filter.is_some();
                if marked || !f.agg_order.is_empty() || found.is_some_and(|c| c.aggregate) {
                    uses.aggregates.push(f);
                }
            }
            Some(Node::GroupingFunc(_)) => uses.grouping = true,
            _ => {}
        }
        // Only there a star is several values; elsewhere it is a row.
        let several = matches!(&node.node, Some(Node::RowExpr(_) | Node::List(_)));
        let parts = children(node).ok_or_else(|| {
            refusal(
                Reason::Form,
                "this kind of expression is not supported over several shards",
                "Restrict the statement to one shard by its sharding key.",
                -1,
            )
        })?;
        for part in parts {
            if let Child::Node(n) = part {
                self.expression(n, scope, env, uses, false)?;
                if let (true, Some(Node::ColumnRef(c))) = (several, &n.node)
                    && super::scope::name_parts(c).is_none()
                {
                    self.row_types.remove(&node_id(c));
                }
            }
        }
        Ok(())
    }

    fn search_path_or_all(&self) -> &'a [String] {
        self.search_path
    }

    fn column_ref(
        &mut self,
        c: &'a ast::ColumnRef,
        scope: &Scope,
        env: Option<&Rc<Env>>,
        as_regclass: bool,
    ) -> Result<(), Refusal> {
        if super::scope::name_parts(c).is_none() {
            self.star(c, scope, env);
            return Ok(());
        }
        let found = resolve(c, scope, env)?;
        let levels = match &found {
            Resolved::Column { attr, levels } => {
                self.mark_used(*attr);
                if let Some(owner) = self.owner(*attr, *levels, scope, env) {
                    self.owners.insert(node_id(c), owner);
                }
                *levels
            }
            Resolved::WholeRow { levels, .. } => {
                self.star(c, scope, env);
                *levels
            }
            Resolved::Unknown { levels } => *levels,
            Resolved::System { name, table } => {
                self.system_rows.insert(*table);
                if !(as_regclass && name == "tableoid") {
                    let shown = self.in_targets && name != "tableoid";
                    let place = match shown {
                        true => &mut self.shown_columns,
                        false => &mut self.system_columns,
                    };
                    place.get_or_insert(refusal(
                        Reason::Catalog,
                        format!("column {name} is not the same over several shards"),
                        "Name a column of the table, or tableoid::regclass.",
                        c.location,
                    ));
                }
                0
            }
        };
        self.note_correlation(levels, env);
        self.colrefs.insert(node_id(c), found);
        Ok(())
    }

    /// The table whose column was found `levels` scopes further out, where that scope has the table itself.
    fn owner(
        &self,
        attr: AttrId,
        levels: usize,
        scope: &Scope,
        env: Option<&Rc<Env>>,
    ) -> Option<usize> {
        let (table, _) = self.attrs[attr].base?;
        let mut outer = env;
        let mut scope = scope;
        for _ in 0..levels {
            scope = &outer?.scope;
            outer = outer?.parent.as_ref();
        }
        let owns = scope.items.iter().any(|i| i.table == Some(table));
        owns.then_some(table)
    }

    /// `t.*` within an expression, or `t` as a row: all columns are needed.
    fn star(&mut self, c: &'a ast::ColumnRef, scope: &Scope, env: Option<&Rc<Env>>) {
        let parts: Vec<&str> = c
            .fields
            .iter()
            .filter_map(|f| match &f.node {
                Some(Node::String(s)) => Some(s.sval.as_str()),
                _ => None,
            })
            .collect();
        let (items, levels) = super::scope::starred(&parts, scope, env);
        for (_, attr) in items.iter().flat_map(|i| &i.columns) {
            self.mark_used(*attr);
        }
        self.whole_rows.extend(items.iter().filter_map(|i| i.table));
        let row_type = items.first().and_then(|i| i.row_type.clone());
        if !parts.is_empty() {
            self.note_correlation(levels, env);
            self.row_types.extend(row_type.map(|t| (node_id(c), t)));
        }
    }

    /// Marks the blocks between a name and the scope it was found in.
    fn note_correlation(&mut self, levels: usize, env: Option<&Rc<Env>>) {
        if levels == 0 {
            return;
        }
        let mut owner = env;
        for _ in 1..levels {
            owner = owner.and_then(|e| e.parent.as_ref());
        }
        let outermost = owner.map_or(0, |e| e.depth);
        for (_, correlated) in self.stack.iter_mut().skip(outermost) {
            *correlated = true;
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.stack.len()
    }
}
