//! The items of FROM: tables, views, subqueries, functions.

use std::rc::Rc;
use std::sync::Arc;

use super::analyse::{Analysis, Dist, Distributed, Part, Rel, TableUse, Uses, node_id, refusal};
use super::ctes::Ctes;
use super::outputs::truncate_name;
use super::scope::{Attr, AttrId, Env, Item, Ty, find_table};
use crate::catalog::{Distribution, FunctionKind, Table, TableKind};
use crate::plan::{KeyCondition, Refusal};
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
    };
    Part::leaf(rel.clone(), item)
}
