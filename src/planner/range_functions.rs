//! Functions of FROM: the columns they make, as far as they are known.

use std::rc::Rc;

use super::analyse::{Analysis, Dist, Part, Rel, Uses};
use super::ctes::Ctes;
use super::from_items::{alias_columns, alias_name, rename};
use super::functions::name_of;
use super::scope::{Env, Item};
use crate::catalog::{Function, FunctionKind};
use crate::plan::{KeyCondition, Refusal};
use crate::sql::ast::{self, node::Node};
use crate::types::oid;

impl<'a> Analysis<'a> {
    pub(super) fn range_function(
        &mut self,
        f: &'a ast::RangeFunction,
        left: &Part<'a>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Part<'a>, Refusal> {
        let mut uses = Uses::default();
        let mut calls = Vec::new();
        for list in &f.functions {
            let Some(Node::List(pair)) = &list.node else {
                continue;
            };
            if let Some(call) = pair.items.first() {
                self.expression(call, &left.scope, env, &mut uses, false)?;
                calls.push((call, pair.items.get(1)));
            }
        }
        let rel = self.function_rel(&uses, left, env, ctes)?;
        let item_name = match (
            alias_name(f.alias.as_ref()),
            calls.first().map(|(c, _)| &c.node),
        ) {
            (Some(alias), _) => alias.to_owned(),
            (None, Some(Some(Node::FuncCall(c)))) => name_of(c).1.to_owned(),
            _ => String::new(),
        };
        let names = self.function_names(f, &calls, &item_name);
        let open = names.is_none();
        let mut cols: Vec<_> = names
            .unwrap_or_default()
            .into_iter()
            .map(|name| (name, self.fresh(None)))
            .collect();
        for extra in alias_columns(f.alias.as_ref()).iter().skip(cols.len()) {
            if let Some(Node::String(s)) = &extra.node {
                let attr = self.fresh(None);
                cols.push((s.sval.clone(), attr));
            }
        }
        rename(&mut cols, alias_columns(f.alias.as_ref()));
        let item = Item {
            name: item_name,
            schema: None,
            columns: cols.clone(),
            open,
            table: None,
            row_type: None,
        };
        Ok(Part::leaf(Rel { cols, open, ..rel }, item))
    }

    /// XMLTABLE: its columns are all there, in the statement.
    pub(super) fn range_table_func(
        &mut self,
        f: &'a ast::RangeTableFunc,
        left: &Part<'a>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Part<'a>, Refusal> {
        let columns = || {
            f.columns.iter().filter_map(|c| match &c.node {
                Some(Node::RangeTableFuncCol(c)) => Some(&**c),
                _ => None,
            })
        };
        let namespaces = f.namespaces.iter().filter_map(|n| match &n.node {
            Some(Node::ResTarget(t)) => t.val.as_deref(),
            _ => None,
        });
        let given = columns().flat_map(|c| [c.colexpr.as_deref(), c.coldefexpr.as_deref()]);
        let own = [f.docexpr.as_deref(), f.rowexpr.as_deref()];
        let mut uses = Uses::default();
        for expression in own.into_iter().chain(given).flatten().chain(namespaces) {
            self.expression(expression, &left.scope, env, &mut uses, false)?;
        }
        let rel = self.function_rel(&uses, left, env, ctes)?;
        let mut cols: Vec<_> = columns()
            .map(|c| (c.colname.clone(), self.fresh(None)))
            .collect();
        rename(&mut cols, alias_columns(f.alias.as_ref()));
        let item = Item {
            name: alias_name(f.alias.as_ref())
                .unwrap_or("xmltable")
                .to_owned(),
            schema: None,
            columns: cols.clone(),
            open: false,
            table: None,
            row_type: None,
        };
        Ok(Part::leaf(Rel { cols, ..rel }, item))
    }

    /// Where a function of FROM is computed: anywhere, but for the subqueries and an outer query's aggregates in it.
    fn function_rel(
        &mut self,
        uses: &Uses<'a>,
        left: &Part<'a>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Rel, Refusal> {
        let mut nowhere = None;
        if !uses.sublinks.is_empty() || !uses.aggregates.is_empty() {
            let own = self.lateral_env(left, env);
            let own = Rc::new(Env {
                scope: own.scope.clone(),
                keys: None,
                depth: own.depth,
                parent: own.parent.clone(),
            });
            nowhere = self.nowhere(uses, &own, ctes)?;
        }
        Ok(nowhere.unwrap_or(Rel {
            dist: Dist::Local,
            cols: Vec::new(),
            open: false,
            cond: KeyCondition::Never,
            table: None,
        }))
    }

    /// The names of all columns, those of WITH ORDINALITY included.
    fn function_names(
        &self,
        f: &ast::RangeFunction,
        calls: &[(&ast::Node, Option<&ast::Node>)],
        alias: &str,
    ) -> Option<Vec<String>> {
        let mut names = defined(&f.coldeflist);
        if names.is_empty() {
            for (call, definitions) in calls {
                let given = match definitions.and_then(|d| d.node.as_ref()) {
                    Some(Node::List(list)) => defined(&list.items),
                    _ => Vec::new(),
                };
                match given.is_empty() {
                    true => {
                        names.extend(self.call_names(call, (calls.len() == 1).then_some(alias))?)
                    }
                    false => names.extend(given),
                }
            }
        }
        if f.ordinality {
            names.push("ordinality".into());
        }
        Some(names)
    }

    /// The columns of one call (`addRangeTableEntryForFunction` in parse_relation.c): of a scalar one its OUT argument's name, or
    /// the alias of the only function, or the function's name.
    fn call_names(&self, call: &ast::Node, alias: Option<&str>) -> Option<Vec<String>> {
        let Some(Node::FuncCall(call)) = &call.node else {
            return None;
        };
        let name = name_of(call).1;
        if name == "unnest" {
            // Of composites it makes a column a field; of a tsvector three.
            if !call.args.iter().all(|a| self.is_array_of_scalars(a)) {
                return None;
            }
            return Some(match (alias, call.args.len()) {
                (Some(alias), 1) => vec![alias.to_owned()],
                (_, n) => vec![name.to_owned(); n],
            });
        }
        let mut all = self
            .catalog
            .functions
            .get(name)?
            .iter()
            .map(|f| self.result_names(f, alias));
        let first = all.next()??;
        all.all(|names| names.as_ref() == Some(&first))
            .then_some(first)
    }

    fn result_names(&self, f: &Function, alias: Option<&str>) -> Option<Vec<String>> {
        if f.kind != FunctionKind::Function {
            return None;
        }
        let kind = self.catalog.types.get(&f.result).map(|t| t.kind);
        match f.columns.as_slice() {
            _ if kind == Some(b'c') => None,
            [] | [_] if f.result == oid::RECORD => None,
            [name] if !name.is_empty() => Some(vec![name.clone()]),
            [] | [_] => Some(vec![alias.unwrap_or(&f.name).to_owned()]),
            many => {
                let names = many
                    .iter()
                    .enumerate()
                    .map(|(i, name)| match name.as_str() {
                        "" => format!("column{}", i + 1),
                        name => name.to_owned(),
                    });
                Some(names.collect())
            }
        }
    }

    fn is_array_of_scalars(&self, arg: &ast::Node) -> bool {
        let of_type = |oid: u32| {
            let types = &self.catalog.types;
            let element = types.get(&oid).and_then(|a| types.get(&a.element));
            element.is_some_and(|e| e.kind != b'c')
        };
        match &arg.node {
            Some(Node::AArrayExpr(_)) => !crate::sql::any_node(arg, &mut |n| {
                matches!(n, Node::RowExpr(_) | Node::ColumnRef(_))
            }),
            Some(Node::TypeCast(t)) => {
                let of = t.type_name.as_ref();
                of.is_some_and(|n| !n.array_bounds.is_empty())
                    && super::functions::cast_name(t)
                        .is_some_and(|n| super::total::PLAIN_TYPES.contains(&n))
            }
            Some(Node::ParamRef(p)) => {
                let index = usize::try_from(p.number - 1).unwrap_or(usize::MAX);
                self.parameter_types
                    .get(index)
                    .is_some_and(|oid| of_type(*oid))
            }
            _ => self.static_type(arg).is_some_and(|t| of_type(t.oid)),
        }
    }
}

/// Names of a column definition list.
fn defined(list: &[ast::Node]) -> Vec<String> {
    let names = list.iter().filter_map(|d| match &d.node {
        Some(Node::ColumnDef(c)) => Some(c.colname.clone()),
        _ => None,
    });
    names.collect()
}
