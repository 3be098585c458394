//! The items of FROM: tables, views, subqueries, functions.

use std::rc::Rc;
use std::sync::Arc;

use super::analyse::{
    Analysis, Dist, Distributed, Part, Rel, TableUse, guarded_view, node_id, refusal,
};
use super::ctes::Ctes;
use super::outputs::truncate_name;
use super::scope::{Attr, AttrId, Env, Item, Ty, find_table};
use crate::catalog::{Distribution, Table, TableKind};
use crate::metrics::Reason;
use crate::plan::{KeyCondition, Refusal, ShardId};
use crate::sql::Child;
use crate::sql::ast::{self, node::Node};

impl<'a> Analysis<'a> {
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
            Some(Node::RangeFunction(f)) => self.range_function(f, left, env, ctes),
            Some(Node::JoinExpr(j)) => self.join(j, left, env, ctes),
            Some(Node::RangeTableSample(t)) => self.sampled(t, left, env, ctes),
            Some(Node::RangeTableFunc(f)) => self.range_table_func(f, left, env, ctes),
            _ => Err(refusal(
                Reason::Form,
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
                Reason::View,
                format!("view {} cannot be looked into", table.name),
                "Write its query into the statement.",
                v.location,
            ));
        };
        if self.stack.len() > 40 {
            return Err(refusal(
                Reason::View,
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
                rel.dist = Dist::Global(guarded_view(&table.name, v.location));
            }
            self.split_views.insert(key);
        }
        relocate(&mut rel.dist, v.location);
        let mut part = derived_part(&mut rel, name, v.alias.as_ref());
        if let Some(item) = part.scope.items.first_mut() {
            item.schema = v.alias.is_none().then(|| table.schema.clone());
            item.row_type = Some((table.schema.clone(), table.name.clone()));
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
            Distribution::System if !table.columns.is_empty() => {
                Dist::Single(self.catalog.catalog_shard.unwrap_or(ShardId(0)))
            }
            Distribution::System | Distribution::Undeclared { .. } | Distribution::View => {
                Dist::Global(refusal(
                    Reason::Form,
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
            row_type: Some((table.schema.clone(), table.name.clone())),
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
                Reason::Form,
                "this kind of subquery is not supported",
                "Write it as a SELECT.",
                -1,
            ));
        };
        let lateral = s.lateral.then(|| self.lateral_env(left, env));
        let mut rel = self.derived_select(query, lateral.as_ref().or(env), ctes)?;
        let name = alias_name(s.alias.as_ref()).unwrap_or("").to_owned();
        Ok(derived_part(&mut rel, name, s.alias.as_ref()))
    }

    /// A query in FROM. A column of further out that it passes on is one of its own from here: an outer join may make it NULL
    /// while the other is not.
    pub(super) fn derived_select(
        &mut self,
        query: &'a ast::SelectStmt,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Rel, Refusal> {
        let known = self.attrs.len();
        let mut rel = self.select(query, env, ctes)?;
        for (_, attr) in &mut rel.cols {
            if *attr < known {
                let ty = self.attrs[*attr].ty.clone();
                *attr = self.fresh(ty);
            }
        }
        Ok(rel)
    }

    /// What a LATERAL item sees: the items left of it, and their keys.
    pub(super) fn lateral_env(&mut self, left: &Part<'a>, env: Option<&Rc<Env>>) -> Rc<Env> {
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
}

fn unknown_table(v: &ast::RangeVar) -> Refusal {
    refusal(
        Reason::Undeclared,
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

pub(super) fn rename(cols: &mut [(String, AttrId)], names: &[ast::Node]) {
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
        row_type: None,
    };
    Part::leaf(rel.clone(), item)
}
