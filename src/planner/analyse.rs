//! What each block of a statement is over the shards, by the rules of the algebra: see [`Dist`].
//!
//! A block gets its distribution from its FROM and WHERE (`joins`), then from its subqueries, grouping, windows, DISTINCT
//! and LIMIT (`blocks`). Nothing is rewritten here.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use super::condition::Conj;
use super::outputs::truncate_name;
use super::scope::{Attr, AttrId, Env, Item, Resolved, Scope, Ty, find_table, resolve};
use crate::catalog::sharding::Sharding;
use crate::catalog::{Catalog, Distribution, FunctionKind, Table, TableKind};
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

/// A WITH query in scope.
#[derive(Debug)]
pub(super) struct Cte<'a> {
    name: &'a str,
    node: &'a ast::CommonTableExpr,
    env: Option<Rc<Env>>,
    outer: Ctes<'a>,
    recursive: bool,
}

pub(super) type Ctes<'a> = Option<Rc<CteList<'a>>>;

#[derive(Debug)]
pub(super) struct CteList<'a> {
    cte: Cte<'a>,
    next: Ctes<'a>,
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
    /// Tables named as whole rows or with system columns: what is pulled of them would not do.
    pub(super) whole_rows: HashSet<usize>,
    pub(super) system_columns: Option<Refusal>,
    /// UNION ALL arms that only one shard may answer.
    pub(super) first_arms: HashSet<usize>,
    /// Views with such arms, by schema and name.
    pub(super) split_views: HashSet<(String, String)>,
    /// Columns that USING makes of two.
    pub(super) merged: Vec<(AttrId, AttrId, AttrId)>,
    /// FROM names that mean a WITH query.
    pub(super) cte_uses: HashSet<usize>,
    /// FROM names that mean a view.
    view_uses: HashSet<usize>,
    /// Recursive queries being analysed: the columns of their working tables.
    working: Vec<(usize, Vec<(String, AttrId)>)>,
    /// Blocks being analysed, outermost first; true where something inside names a column further out.
    stack: Vec<(usize, bool)>,
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
    fn leaf(rel: Rel, item: Item) -> Self {
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

pub(super) fn refusal(message: impl Into<String>, hint: &str, location: i32) -> Refusal {
    Refusal {
        message: message.into(),
        hint: hint.into(),
        location: usize::try_from(location).ok(),
    }
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
            attrs: Vec::new(),
            colrefs: HashMap::new(),
            blocks: HashMap::new(),
            tables: HashMap::new(),
            used: HashSet::new(),
            whole_rows: HashSet::new(),
            system_columns: None,
            first_arms: HashSet::new(),
            split_views: HashSet::new(),
            merged: Vec::new(),
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

    pub(super) fn enter(&mut self, id: usize) {
        self.stack.push((id, false));
    }

    /// Leaves a block; says whether it names something further out.
    pub(super) fn leave(&mut self) -> bool {
        self.stack.pop().is_some_and(|(_, correlated)| correlated)
    }

    /// Adds a WITH clause's queries to those in scope, and analyses each once for its own sake.
    pub(super) fn with_ctes(
        &mut self,
        with: Option<&'a ast::WithClause>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Ctes<'a>, Refusal> {
        let mut all = ctes.clone();
        let Some(with) = with else { return Ok(all) };
        for node in &with.ctes {
            let Some(Node::CommonTableExpr(cte)) = &node.node else {
                continue;
            };
            all = Some(Rc::new(CteList {
                cte: Cte {
                    name: &cte.ctename,
                    node: cte,
                    env: env.cloned(),
                    outer: all.clone(),
                    recursive: with.recursive,
                },
                next: all,
            }));
            self.cte_rel(&all.clone().expect("just made").cte)?;
        }
        Ok(all)
    }

    fn cte_rel(&mut self, cte: &Cte<'a>) -> Result<Rel, Refusal> {
        let query = match cte.node.ctequery.as_deref().and_then(|q| q.node.as_ref()) {
            Some(Node::SelectStmt(s)) => s,
            _ => {
                return Err(refusal(
                    "a WITH query that changes data is not supported over several shards",
                    "Run the change as a statement of its own.",
                    cte.node.location,
                ));
            }
        };
        if cte.recursive && names_relation(query, cte.name) {
            return self.recursive_rel(cte, query);
        }
        let mut rel = self.select(query, cte.env.as_ref(), &cte.outer)?;
        rename(&mut rel.cols, &cte.node.aliascolnames);
        Ok(rel)
    }

    /// A recursive query over reference tables only is the same on every shard; any other is not looked into.
    fn recursive_rel(&mut self, cte: &Cte<'a>, query: &'a ast::SelectStmt) -> Result<Rel, Refusal> {
        let id = node_id(cte.node);
        if self.stack.iter().any(|(s, _)| *s == id) {
            return Err(refusal(
                "this form of recursive query is not supported",
                "Name the recursive query once, in the second arm of its UNION.",
                cte.node.location,
            ));
        }
        let first = query.larg.as_deref();
        let Some(first) = first else {
            return Err(refusal(
                "this form of recursive query is not supported",
                "Write it as UNION of two queries.",
                cte.node.location,
            ));
        };
        self.enter(id);
        // The working table has the columns of the first arm; types of what hangs on it are not followed.
        let base = self.select(first, cte.env.as_ref(), &cte.outer)?;
        let mut cols: Vec<(String, AttrId)> =
            base.cols.iter().map(|(n, _)| (n.clone(), 0)).collect();
        for (_, attr) in &mut cols {
            *attr = self.fresh(None);
        }
        rename(&mut cols, &cte.node.aliascolnames);
        let working = Rc::new(CteList {
            cte: Cte {
                name: cte.name,
                node: cte.node,
                env: None,
                outer: None,
                recursive: false,
            },
            next: cte.outer.clone(),
        });
        self.working.push((id, cols.clone()));
        let rest = query
            .rarg
            .as_deref()
            .map(|r| self.select(r, cte.env.as_ref(), &Some(working)));
        self.working.pop();
        self.leave();
        let rest = match rest {
            Some(rest) => rest?,
            None => base.clone(),
        };
        let dist = match (&base.dist, &rest.dist) {
            (Dist::Local, Dist::Local) if query.limit_count.is_none() => Dist::Local,
            _ => Dist::Global(refusal(
                "a recursive query over sharded tables is not supported over several shards",
                "Restrict every table in it to one shard by its sharding key.",
                cte.node.location,
            )),
        };
        Ok(Rel {
            dist,
            cols,
            open: base.open,
            cond: super::condition::or(base.cond, rest.cond),
            table: None,
        })
    }

    fn find_cte(ctes: &Ctes<'a>, name: &str) -> Option<Rc<CteList<'a>>> {
        let mut next = ctes.clone();
        while let Some(list) = next {
            if list.cte.name == name {
                return Some(list);
            }
            next = list.next.clone();
        }
        None
    }

    /// One item of FROM, with what stands left of it for LATERAL.
    pub(super) fn table_expression(
        &mut self,
        node: &'a ast::Node,
        left: &Part<'a>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Part<'a>, Refusal> {
        match &node.node {
            Some(Node::RangeVar(v)) => self.range_var(v, env, ctes),
            Some(Node::RangeSubselect(s)) => self.range_subselect(s, left, env, ctes),
            Some(Node::RangeFunction(f)) => self.range_function(f, left, env),
            Some(Node::JoinExpr(j)) => self.join(j, left, env, ctes),
            Some(Node::RangeTableSample(t)) => Err(refusal(
                "TABLESAMPLE is not supported over several shards",
                "Filter by random() or by the sharding key instead.",
                t.location,
            )),
            Some(Node::RangeTableFunc(f)) => Err(refusal(
                "XMLTABLE is not supported over several shards",
                "Restrict the statement to one shard by its sharding key.",
                f.location,
            )),
            _ => Err(refusal(
                "this kind of FROM item is not supported over several shards",
                "Restrict the statement to one shard by its sharding key.",
                -1,
            )),
        }
    }

    fn range_var(
        &mut self,
        v: &'a ast::RangeVar,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Part<'a>, Refusal> {
        let name = alias_name(v.alias.as_ref())
            .unwrap_or(&v.relname)
            .to_owned();
        if v.schemaname.is_empty()
            && let Some(list) = Self::find_cte(ctes, &v.relname)
        {
            self.cte_uses.insert(node_id(v));
            let mut rel = match self.working_table(&list.cte) {
                Some(cols) => Rel {
                    dist: Dist::Local,
                    cols,
                    open: false,
                    cond: KeyCondition::Never,
                    table: None,
                },
                None => self.cte_rel(&list.cte)?,
            };
            return Ok(derived_part(&mut rel, name, v.alias.as_ref()));
        }
        let table = find_table(self.catalog, self.search_path, &v.schemaname, &v.relname)
            .ok_or_else(|| unknown_table(v))?
            .clone();
        match table.kind {
            TableKind::View => {
                self.view_uses.insert(node_id(v));
                self.view(v, &table, name, env)
            }
            _ => Ok(self.base_table(v, &table, name)),
        }
    }

    fn view(
        &mut self,
        v: &'a ast::RangeVar,
        table: &Arc<Table>,
        name: String,
        _env: Option<&Rc<Env>>,
    ) -> Result<Part<'a>, Refusal> {
        let key = (table.schema.clone(), table.name.clone());
        let Some(body) = self.views.get(&key) else {
            return Err(refusal(
                format!("view {} cannot be looked into", table.name),
                "Write its query into the statement.",
                v.location,
            ));
        };
        if self.stack.len() > 40 {
            return Err(refusal(
                "views are nested too deeply",
                "Read the tables themselves.",
                v.location,
            ));
        }
        let path = std::mem::take(&mut self.search_path);
        let rel = self.select(body, None, &None);
        self.search_path = path;
        let mut rel = rel.map_err(|mut e| {
            // A place in the view's text means nothing in the client's.
            e.location = usize::try_from(v.location).ok();
            e
        })?;
        for ((old, attr), column) in rel.cols.iter_mut().zip(&table.columns) {
            old.clone_from(&column.name);
            if self.attrs[*attr].ty.is_none() {
                self.attrs[*attr].ty = Some(Ty::of(column));
            }
        }
        if self.has_first_arms(body) {
            if table.guarded {
                rel.dist = Dist::Global(refusal(
                    format!(
                        "view {} protects its rows and cannot be taken apart over several shards",
                        table.name
                    ),
                    "Read it by the sharding key, or read its tables.",
                    v.location,
                ));
            }
            self.split_views.insert(key);
        }
        relocate(&mut rel.dist, v.location);
        let mut part = derived_part(&mut rel, name, v.alias.as_ref());
        if let Some(item) = part.scope.items.first_mut() {
            item.schema = v.alias.is_none().then(|| table.schema.clone());
        }
        Ok(part)
    }

    /// True for a FROM name that the analysis came by.
    pub(super) fn has_met(&self, v: &ast::RangeVar) -> bool {
        let id = node_id(v);
        self.tables.contains_key(&id) || self.cte_uses.contains(&id) || self.view_uses.contains(&id)
    }

    /// True for a view's query with UNION ALL arms that only one shard may answer, in it or in views it reads.
    fn has_first_arms(&self, body: &ast::SelectStmt) -> bool {
        let mut found = false;
        crate::sql::walk(Child::Select(body), &mut |c| {
            found |= match c {
                Child::Select(s) => self.first_arms.contains(&node_id(s)),
                Child::Node(n) => match &n.node {
                    Some(Node::SelectStmt(s)) => self.first_arms.contains(&node_id(&**s)),
                    Some(Node::RangeVar(v)) => self
                        .split_views
                        .contains(&(v.schemaname.clone(), v.relname.clone())),
                    _ => false,
                },
            };
            !found
        });
        found
    }

    fn base_table(&mut self, v: &'a ast::RangeVar, table: &Arc<Table>, name: String) -> Part<'a> {
        let id = node_id(v);
        let mut cols = Vec::with_capacity(table.columns.len());
        for (position, column) in table.columns.iter().enumerate() {
            self.attrs.push(Attr {
                ty: Some(Ty::of(column)),
                base: Some((id, position)),
            });
            cols.push((column.name.clone(), self.attrs.len() - 1));
        }
        let dist = match &table.distribution {
            Distribution::Reference => Dist::Local,
            Distribution::Single(shard) => Dist::Single(*shard),
            Distribution::Sharded { key, sharding } => Dist::Sharded(Distributed {
                sharding: sharding.clone(),
                keys: match (key, sharding) {
                    (Some(k), Some(_)) => {
                        cols.get(*k).map(|(_, a)| (*a, true)).into_iter().collect()
                    }
                    _ => Vec::new(),
                },
            }),
            Distribution::System | Distribution::Undeclared { .. } | Distribution::View => {
                Dist::Global(refusal(
                    format!("relation {} cannot be read over several shards", table.name),
                    "Read catalogs in a statement of their own.",
                    v.location,
                ))
            }
        };
        let cond = match dist {
            Dist::Sharded(_) => KeyCondition::Any,
            _ => KeyCondition::Never,
        };
        self.tables.insert(
            id,
            TableUse {
                table: table.clone(),
                cond: cond.clone(),
            },
        );
        rename(&mut cols, alias_columns(v.alias.as_ref()));
        let rel = Rel {
            dist,
            cols: cols.clone(),
            open: table.kind == TableKind::System && table.columns.is_empty(),
            cond,
            table: Some(id),
        };
        let item = Item {
            name,
            schema: v.alias.is_none().then(|| table.schema.clone()),
            columns: cols,
            open: rel.open,
            table: Some(id),
        };
        Part::leaf(rel, item)
    }

    fn range_subselect(
        &mut self,
        s: &'a ast::RangeSubselect,
        left: &Part<'a>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Part<'a>, Refusal> {
        let Some(Node::SelectStmt(query)) = s.subquery.as_deref().and_then(|q| q.node.as_ref())
        else {
            return Err(refusal(
                "this kind of subquery is not supported",
                "Write it as a SELECT.",
                -1,
            ));
        };
        let lateral = s.lateral.then(|| self.lateral_env(left, env));
        let mut rel = self.select(query, lateral.as_ref().or(env), ctes)?;
        let name = alias_name(s.alias.as_ref()).unwrap_or("").to_owned();
        Ok(derived_part(&mut rel, name, s.alias.as_ref()))
    }

    /// What a LATERAL item sees: the items left of it, and their keys.
    fn lateral_env(&mut self, left: &Part<'a>, env: Option<&Rc<Env>>) -> Rc<Env> {
        let keys = match self.infer_group(&left.leaves, &left.conjs, env).dist {
            Dist::Sharded(d) => Some(d),
            _ => None,
        };
        Rc::new(Env {
            scope: left.scope.clone(),
            keys,
            depth: self.depth(),
            parent: env.cloned(),
        })
    }

    fn range_function(
        &mut self,
        f: &'a ast::RangeFunction,
        left: &Part<'a>,
        env: Option<&Rc<Env>>,
    ) -> Result<Part<'a>, Refusal> {
        let mut uses = Uses::default();
        let mut name = String::new();
        for list in &f.functions {
            let Some(Node::List(pair)) = &list.node else {
                continue;
            };
            if let Some(call) = pair.items.first() {
                if let Some(Node::FuncCall(c)) = &call.node {
                    name = super::functions::name_of(c).1.to_owned();
                }
                self.expression(call, &left.scope, env, &mut uses, false)?;
            }
        }
        if !uses.sublinks.is_empty() {
            return Err(refusal(
                "a subquery in a function of FROM is not supported over several shards",
                "Join with the subquery.",
                -1,
            ));
        }
        let mut cols = Vec::new();
        let item_name = alias_name(f.alias.as_ref()).unwrap_or(&name).to_owned();
        let definitions: Vec<&str> = f
            .coldeflist
            .iter()
            .filter_map(|d| match &d.node {
                Some(Node::ColumnDef(c)) => Some(c.colname.as_str()),
                _ => None,
            })
            .collect();
        let scalar = definitions.is_empty() && f.functions.len() == 1 && self.is_scalar(f);
        if scalar {
            cols.push((item_name.clone(), self.fresh(None)));
        }
        for d in &definitions {
            let attr = self.fresh(None);
            cols.push(((*d).to_owned(), attr));
        }
        if f.ordinality && (scalar || !definitions.is_empty()) {
            cols.push(("ordinality".into(), self.fresh(None)));
        }
        for extra in alias_columns(f.alias.as_ref()).iter().skip(cols.len()) {
            if let Some(Node::String(s)) = &extra.node {
                let attr = self.fresh(None);
                cols.push((s.sval.clone(), attr));
            }
        }
        rename(&mut cols, alias_columns(f.alias.as_ref()));
        let open = definitions.is_empty() && !scalar;
        let rel = Rel {
            dist: Dist::Local,
            cols: cols.clone(),
            open,
            cond: KeyCondition::Never,
            table: None,
        };
        Ok(Part::leaf(
            rel,
            Item {
                name: item_name,
                schema: None,
                columns: cols,
                open,
                table: None,
            },
        ))
    }

    /// A function of FROM that surely makes one column: every overload returns a type that is no row.
    fn is_scalar(&self, f: &ast::RangeFunction) -> bool {
        let Some(Node::List(pair)) = f.functions.first().and_then(|n| n.node.as_ref()) else {
            return false;
        };
        let Some(Node::FuncCall(call)) = pair.items.first().and_then(|n| n.node.as_ref()) else {
            return false;
        };
        let name = super::functions::name_of(call).1;
        // unnest of an array of composites makes several columns; of several arrays too.
        let of_rows =
            name == "unnest" && (call.args.len() != 1 || !self.is_array_of_scalars(&call.args[0]));
        let overloads = self.catalog.functions.get(name);
        !of_rows
            && overloads.is_some_and(|list| {
                list.iter().all(|o| {
                    let composite = self
                        .catalog
                        .types
                        .get(&o.result)
                        .is_some_and(|t| t.kind == b'c');
                    o.kind == FunctionKind::Function
                        && o.result != crate::types::oid::RECORD
                        && !composite
                })
            })
    }

    fn is_array_of_scalars(&self, arg: &ast::Node) -> bool {
        match &arg.node {
            Some(Node::AArrayExpr(_)) => !crate::sql::any_node(arg, &mut |n| {
                matches!(n, Node::RowExpr(_) | Node::ColumnRef(_))
            }),
            _ => self.static_type(arg).is_some_and(|t| {
                let element = self.catalog.types.get(&t.oid).map(|a| a.element);
                element
                    .and_then(|e| self.catalog.types.get(&e))
                    .is_some_and(|e| e.kind != b'c')
            }),
        }
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
        let parts = children(node).ok_or_else(|| {
            refusal(
                "this kind of expression is not supported over several shards",
                "Restrict the statement to one shard by its sharding key.",
                -1,
            )
        })?;
        for part in parts {
            if let Child::Node(n) = part {
                self.expression(n, scope, env, uses, false)?;
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
            // count(t.*), row(t.*): every column of the item, as a row.
            for item in &scope.items {
                if let Some(table) = item.table {
                    self.whole_rows.insert(table);
                }
            }
            return Ok(());
        }
        let found = resolve(c, scope, env)?;
        let levels = match &found {
            Resolved::Column { attr, levels } => {
                self.mark_used(*attr);
                *levels
            }
            Resolved::WholeRow { levels, .. } | Resolved::Unknown { levels } => {
                if let (Resolved::WholeRow { item, .. }, 0) = (&found, *levels) {
                    self.whole_rows.extend(scope.items[*item].table);
                }
                *levels
            }
            Resolved::System { name, table } => {
                self.whole_rows.insert(*table);
                if !(as_regclass && name == "tableoid") {
                    self.system_columns.get_or_insert(refusal(
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

    fn working_table(&self, cte: &Cte<'a>) -> Option<Vec<(String, AttrId)>> {
        let id = node_id(cte.node);
        self.working
            .iter()
            .find(|(w, _)| *w == id)
            .map(|(_, cols)| cols.clone())
    }
}

fn unknown_table(v: &ast::RangeVar) -> Refusal {
    refusal(
        format!("relation \"{}\" is not known to pgbraid", v.relname),
        "If it was just created, try again in a moment; temporary tables cannot be joined with sharded ones.",
        v.location,
    )
}

fn relocate(dist: &mut Dist, location: i32) {
    if let Dist::Global(why) | Dist::Once(why) = dist {
        why.location = usize::try_from(location).ok();
    }
}

pub(super) fn alias_name(alias: Option<&ast::Alias>) -> Option<&str> {
    alias.map(|a| a.aliasname.as_str())
}

pub(super) fn alias_columns(alias: Option<&ast::Alias>) -> &[ast::Node] {
    alias.map_or(&[], |a| &a.colnames)
}

fn rename(cols: &mut [(String, AttrId)], names: &[ast::Node]) {
    for ((name, _), new) in cols.iter_mut().zip(names) {
        if let Some(Node::String(s)) = &new.node {
            *name = truncate_name(&s.sval);
        }
    }
}

fn derived_part<'a>(rel: &mut Rel, name: String, alias: Option<&ast::Alias>) -> Part<'a> {
    rel.table = None;
    rename(&mut rel.cols, alias_columns(alias));
    let item = Item {
        name,
        schema: None,
        columns: rel.cols.clone(),
        open: rel.open,
        table: None,
    };
    Part::leaf(rel.clone(), item)
}

/// True when a query's text names a relation anywhere, so that a recursive WITH may mean itself.
fn names_relation(query: &ast::SelectStmt, name: &str) -> bool {
    let mut found = false;
    crate::sql::walk(Child::Select(query), &mut |c| {
        if let Child::Node(ast::Node {
            node: Some(Node::RangeVar(v)),
        }) = c
        {
            found |= v.schemaname.is_empty() && v.relname == name;
        }
        !found
    });
    found
}
