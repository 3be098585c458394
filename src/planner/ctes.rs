//! WITH queries: which one a name means, and what it is over the shards.

use std::rc::Rc;

use super::analyse::{Analysis, Dist, Rel, node_id, refusal};
use super::from_items::rename;
use super::scope::{AttrId, Env};
use crate::metrics::Reason;
use crate::plan::Refusal;
use crate::sql::Child;
use crate::sql::ast::{self, node::Node};

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
    pub(super) cte: Cte<'a>,
    next: Ctes<'a>,
}

impl<'a> Analysis<'a> {
    /// Adds a WITH clause's queries to those in scope, and analyses each once for its own sake.
    pub(super) fn with_ctes(
        &mut self,
        with: Option<&'a ast::WithClause>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Ctes<'a>, Refusal> {
        let mut all = ctes.clone();
        let Some(with) = with else { return Ok(all) };
        for cte in in_order(with)? {
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

    pub(super) fn cte_rel(&mut self, cte: &Cte<'a>) -> Result<Rel, Refusal> {
        let query = match cte.node.ctequery.as_deref().and_then(|q| q.node.as_ref()) {
            Some(Node::SelectStmt(s)) => s,
            _ => {
                return Err(refusal(
                    Reason::Write,
                    "a WITH query that changes data is not supported over several shards",
                    "Run the change as a statement of its own.",
                    cte.node.location,
                ));
            }
        };
        if cte.recursive && names_relation(query, cte.name) {
            return self.recursive_rel(cte, query);
        }
        let mut rel = self.derived_select(query, cte.env.as_ref(), &cte.outer)?;
        rename(&mut rel.cols, &cte.node.aliascolnames);
        Ok(rel)
    }

    /// A recursive query over reference tables only is the same on every shard; any other is not looked into.
    fn recursive_rel(&mut self, cte: &Cte<'a>, query: &'a ast::SelectStmt) -> Result<Rel, Refusal> {
        let id = node_id(cte.node);
        if self.stack.iter().any(|(s, _)| *s == id) {
            return Err(refusal(
                Reason::Form,
                "this form of recursive query is not supported",
                "Name the recursive query once, in the second arm of its UNION.",
                cte.node.location,
            ));
        }
        let first = query.larg.as_deref();
        let Some(first) = first else {
            return Err(refusal(
                Reason::Form,
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
        for name in search_columns(cte.node) {
            cols.push((name, self.fresh(None)));
        }
        let dist = match (&base.dist, &rest.dist) {
            (Dist::Local, Dist::Local) if query.limit_count.is_none() => Dist::Local,
            _ => Dist::Global(refusal(
                Reason::Form,
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

    pub(super) fn find_cte(ctes: &Ctes<'a>, name: &str) -> Option<Rc<CteList<'a>>> {
        let mut next = ctes.clone();
        while let Some(list) = next {
            if list.cte.name == name {
                return Some(list);
            }
            next = list.next.clone();
        }
        None
    }

    pub(super) fn working_table(&self, cte: &Cte<'a>) -> Option<Vec<(String, AttrId)>> {
        let id = node_id(cte.node);
        self.working
            .iter()
            .find(|(w, _)| *w == id)
            .map(|(_, cols)| cols.clone())
    }
}

/// The columns that SEARCH and CYCLE add, in their order.
fn search_columns(cte: &ast::CommonTableExpr) -> Vec<String> {
    let search = cte
        .search_clause
        .iter()
        .map(|s| s.search_seq_column.clone());
    let cycle = cte.cycle_clause.iter();
    let cycle = cycle.flat_map(|c| [c.cycle_mark_column.clone(), c.cycle_path_column.clone()]);
    search.chain(cycle).collect()
}

/// The queries of a WITH clause, each behind those that it names: under RECURSIVE it may name later ones.
fn in_order(with: &ast::WithClause) -> Result<Vec<&ast::CommonTableExpr>, Refusal> {
    let all = with.ctes.iter().filter_map(|node| match &node.node {
        Some(Node::CommonTableExpr(cte)) => Some(&**cte),
        _ => None,
    });
    let mut left: Vec<&ast::CommonTableExpr> = all.collect();
    if !with.recursive {
        return Ok(left);
    }
    let names = |cte: &ast::CommonTableExpr, other: &ast::CommonTableExpr| {
        cte.ctename != other.ctename
            && match cte.ctequery.as_deref().and_then(|q| q.node.as_ref()) {
                Some(Node::SelectStmt(query)) => names_relation(query, &other.ctename),
                _ => false,
            }
    };
    let mut ordered = Vec::new();
    while let Some(first) = left.first() {
        let next = left
            .iter()
            .position(|cte| !left.iter().any(|other| names(cte, other)));
        let Some(next) = next else {
            return Err(refusal(
                Reason::Form,
                "mutual recursion between WITH items is not implemented",
                "Write each query so that it names itself and earlier ones only.",
                first.location,
            ));
        };
        ordered.push(left.remove(next));
    }
    Ok(ordered)
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
