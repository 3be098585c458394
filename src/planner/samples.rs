//! TABLESAMPLE. Which rows a sample has is decided once for each place that names the table: a stage brings the sample from where the
//! table is, and the statement reads that, as often as it likes. A shard's part of a sample is the sample of its part.

use super::analyse::{Analysis, Dist, Part, node_id, refusal};
use super::ctes::Ctes;
use super::pushdown::{Stop, unprintable};
use super::scope::Env;
use crate::metrics::Reason;
use crate::plan::Refusal;
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, any_node, expression_text, walk};
use std::rc::Rc;

/// The methods that look at each row, or at each page, by itself.
const METHODS: [&str; 2] = ["bernoulli", "system"];

impl<'a> Analysis<'a> {
    /// A table of FROM of which a sample is read.
    pub(super) fn sampled(
        &mut self,
        t: &'a ast::RangeTableSample,
        left: &Part<'a>,
        env: Option<&Rc<Env>>,
        ctes: &Ctes<'a>,
    ) -> Result<Part<'a>, Refusal> {
        let unknown = || {
            refusal(
                Reason::Form,
                "this kind of TABLESAMPLE is not supported over several shards",
                "Use BERNOULLI or SYSTEM with a constant or a parameter.",
                t.location,
            )
        };
        let relation = t.relation.as_deref().ok_or_else(unknown)?;
        let v = sampled_relation(t).ok_or_else(unknown)?;
        let arguments = t.args.iter().chain(t.repeatable.as_deref());
        if self.method(t).is_none() || !arguments.into_iter().all(is_plain) {
            return Err(unknown());
        }
        let mut part = self.table_expression(relation, left, env, ctes)?;
        self.samples.insert(node_id(v), t);
        for leaf in &mut part.leaves {
            if matches!(leaf.dist, Dist::Local) {
                leaf.dist = Dist::Once(unknown());
            }
        }
        Ok(part)
    }

    fn method(&self, t: &ast::RangeTableSample) -> Option<&'static str> {
        let names: Vec<&str> = t
            .method
            .iter()
            .filter_map(|n| match &n.node {
                Some(Node::String(s)) => Some(s.sval.as_str()),
                _ => None,
            })
            .collect();
        let name = match names.as_slice() {
            [name] | ["pg_catalog", name] => name,
            _ => return None,
        };
        let overloads = self.catalog.functions.get(*name).into_iter().flatten();
        let known = METHODS.into_iter().find(|known| known == name);
        known.filter(|_| overloads.into_iter().all(|f| f.schema == "pg_catalog"))
    }

    /// True for a query that reads a sample, itself or in its subqueries. What is equal to it reads another one.
    pub(super) fn reads_samples(&self, s: &ast::SelectStmt) -> bool {
        let mut found = false;
        if !self.samples.is_empty() {
            walk(Child::Select(s), &mut |c| {
                found |= matches!(c, Child::Node(n) if matches!(n.node, Some(Node::RangeTableSample(_))));
                !found
            });
        }
        found
    }

    /// What stands behind a table that is sampled, with a space before it; nothing behind others.
    pub(super) fn sample_text(&self, v: &ast::RangeVar) -> Result<String, Stop> {
        let Some(t) = self.samples.get(&node_id(v)) else {
            return Ok(String::new());
        };
        let texts: Result<Vec<String>, _> = t.args.iter().map(expression_text).collect();
        let mut text = format!(
            " TABLESAMPLE pg_catalog.{}({})",
            self.method(t).unwrap_or_default(),
            texts.map_err(unprintable)?.join(", ")
        );
        if let Some(seed) = t.repeatable.as_deref() {
            let seed = expression_text(seed).map_err(unprintable)?;
            text.push_str(&format!(" REPEATABLE ({seed})"));
        }
        Ok(text)
    }
}

/// True for a query that reads one sample and nothing else: shards that work on their part of it look at each row once.
pub(super) fn reads_one_sample(s: &ast::SelectStmt) -> bool {
    let is_sample = |n: &ast::Node| matches!(n.node, Some(Node::RangeTableSample(_)));
    let mut relations = 0;
    walk(Child::Select(s), &mut |c| {
        relations +=
            usize::from(matches!(c, Child::Node(n) if matches!(n.node, Some(Node::RangeVar(_)))));
        true
    });
    matches!(s.from_clause.as_slice(), [only] if is_sample(only)) && relations == 1
}

/// The table that is sampled.
pub(super) fn sampled_relation(t: &ast::RangeTableSample) -> Option<&ast::RangeVar> {
    match t.relation.as_deref()?.node.as_ref()? {
        Node::RangeVar(v) => Some(v),
        _ => None,
    }
}

/// True for what every shard makes the same of, without any row.
fn is_plain(argument: &ast::Node) -> bool {
    !any_node(argument, &mut |n| {
        matches!(
            n,
            Node::ColumnRef(_) | Node::SubLink(_) | Node::FuncCall(_) | Node::SqlvalueFunction(_)
        )
    })
}
