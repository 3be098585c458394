//! ORDER BY over several shards: what its items mean, the hidden columns that carry them, who merges by them.

use super::analyse::refusal;
use super::bounds::{Bound, limit, limit_text, push_limit};
use super::outputs::{Outputs, targets};
use super::pushdown::{FanOut, Stop, print, target};
use super::types::{
    base_type, collation, collation_named, is_collatable, is_comparable, is_orderable,
};
use crate::metrics::Reason;
use crate::plan::{Collation, Extra, Plan, Refusal, SortKey, SqlPart};
use crate::sql::ast::{self, node::Node};
use crate::sql::{any_node, expression_text};
use crate::types::oid;

/// One ORDER BY item.
pub(super) struct Key<'a> {
    pub(super) text: String,
    pub(super) item: &'a ast::SortBy,
    /// Position among the outputs, when it stands for one.
    pub(super) output: Option<usize>,
    pub(super) expression: &'a ast::Node,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

impl<'p, 'a> FanOut<'p, 'a> {
    pub(super) fn ordered(&self, count: Bound, offset: Bound) -> Result<Plan, Stop> {
        let s = self.select;
        let keys = self.keys()?;
        let width = self.width()?;
        let with_ties = s.limit_option == ast::LimitOption::WithTies as i32;
        let wrap = s.larg.is_some()
            || !s.distinct_clause.is_empty()
            || !s.values_lists.is_empty()
            || self.volatile
            || (self.returns_sets() && keys.iter().any(|k| self.is_of_set(k)))
            || keys
                .iter()
                .any(|k| k.output.is_some_and(|o| self.starred(o)));
        let (sql, first_sql, extra) = match wrap {
            true => self.wrapped(&keys, width, count, offset, with_ties)?,
            false => self.appended(&keys, count, offset)?,
        };
        let hidden = keys.len();
        match self.sort_keys(&keys, &sql, width)? {
            Some(sort_keys) if !with_ties => {
                let remote = self.remote(sql, first_sql, extra, width, hidden);
                let merge = Plan::GatherMerge {
                    input: Box::new(Plan::Remote(remote)),
                    keys: sort_keys,
                };
                Ok(limit(merge, count, offset))
            }
            _ => self.sorted_on_merge_session(&keys, width, sql, first_sql, extra),
        }
    }

    fn returns_sets(&self) -> bool {
        let mut values = targets(self.select).filter_map(|t| t.val.as_deref());
        values.any(|value| self.returns_set(value))
    }

    fn returns_set(&self, value: &ast::Node) -> bool {
        any_node(value, &mut |n| match n {
            Node::FuncCall(f) => {
                super::functions::find(self.analysis.catalog, self.request.search_path, f)
                    .is_none_or(|c| c.returns_set)
            }
            _ => false,
        })
    }

    /// True for a key that is made of what functions in the select list return. By all others rows are sorted before those
    /// functions are called: what they return for one row stays in its order.
    fn is_of_set(&self, key: &Key<'a>) -> bool {
        let output = key
            .output
            .and_then(|o| self.outputs()?.list.get(o)?.expression);
        self.returns_set(output.unwrap_or(key.expression))
    }

    /// True for an output that a star stands for: it has no expression to repeat.
    fn starred(&self, output: usize) -> bool {
        self.outputs()
            .is_none_or(|o| o.list.get(output).is_none_or(|o| o.expression.is_none()))
    }

    /// What ORDER BY's items mean.
    pub(super) fn keys(&self) -> Result<Vec<Key<'a>>, Stop> {
        let outputs = self.outputs();
        let mut keys = Vec::new();
        for node in &self.select.sort_clause {
            let Some(Node::SortBy(item)) = &node.node else {
                continue;
            };
            let Some(expression) = item.node.as_deref() else {
                continue;
            };
            let output = match &outputs {
                Some(outputs) => self.output_position(expression, outputs),
                None => self.set_output(expression),
            };
            if output.is_none()
                && (outputs.is_none() || super::blocks::ordinal(expression).is_some())
            {
                return Err(refusal(
                    Reason::Form,
                    "this ORDER BY cannot be followed over several shards",
                    "Order by a column's name.",
                    item.location,
                )
                .into());
            }
            keys.push(Key {
                text: key_text(item, expression),
                item,
                output,
                expression,
                descending: descending(item)?,
                nulls_first: nulls_first(item)?,
            });
        }
        Ok(keys)
    }

    fn output_position(&self, expression: &'a ast::Node, outputs: &Outputs<'a>) -> Option<usize> {
        if let Some(n) = super::blocks::ordinal(expression) {
            return (!outputs.open && (1..=outputs.list.len()).contains(&n)).then(|| n - 1);
        }
        let found = self.analysis.output_of(self.select, expression, outputs);
        if let Some(found) = found {
            return outputs.list.iter().position(|o| std::ptr::eq(o, found));
        }
        // Under DISTINCT every key is an output; elsewhere an equal output saves computing a volatile key twice.
        let text = expression_text(expression).ok()?;
        let attr = self.analysis.plain_attr(expression);
        outputs.list.iter().position(|o| {
            (attr.is_some() && o.attr == attr)
                || o.expression
                    .is_some_and(|e| expression_text(e).is_ok_and(|t| t == text))
        })
    }

    /// Set operations and VALUES order by names and positions of their outputs only.
    fn set_output(&self, expression: &ast::Node) -> Option<usize> {
        if let Some(n) = super::blocks::ordinal(expression) {
            return (1..=self.block.cols.len()).contains(&n).then(|| n - 1);
        }
        let Some(Node::ColumnRef(c)) = &expression.node else {
            return None;
        };
        match super::scope::name_parts(c)?[..] {
            [name] => self.block.cols.iter().position(|(n, _)| n == name),
            _ => None,
        }
    }

    /// Keys as further targets of the same SELECT.
    fn appended(
        &self,
        keys: &[Key<'a>],
        count: Bound,
        offset: Bound,
    ) -> Result<(String, Option<String>, Vec<Extra>), Stop> {
        let outputs = self.outputs();
        let rewrite = self.rewrite(false);
        let hidden: Vec<ast::Node> = keys
            .iter()
            .enumerate()
            .map(|(i, k)| {
                let by_output = k
                    .output
                    .and_then(|o| outputs.as_ref()?.list.get(o)?.expression);
                target(
                    rewrite.copy_node(by_output.unwrap_or(k.expression)),
                    &format!("pgbraid_key_{}", i + 1),
                )
            })
            .collect();
        self.render(|select| {
            select.target_list.extend(hidden.iter().cloned());
            push_limit(select, count, offset);
        })
    }

    /// Keys beside the columns of the SELECT as a subquery: `SELECT q.c1, …, q.c2 FROM (…) AS q(c1, …) ORDER BY q.c2`.
    fn wrapped(
        &self,
        keys: &[Key<'a>],
        width: usize,
        count: Bound,
        offset: Bound,
        with_ties: bool,
    ) -> Result<(String, Option<String>, Vec<Extra>), Stop> {
        let mut names: Vec<String> = (1..=width).map(|i| format!("c{i}")).collect();
        let mut key_names = Vec::new();
        let mut extra_targets = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            match key.output {
                Some(o) => key_names.push(format!("c{}", o + 1)),
                None if self.select.larg.is_some() || !self.select.distinct_clause.is_empty() => {
                    return Err(refusal(
                        Reason::Form,
                        "this ORDER BY cannot be followed over several shards",
                        "Order by an output column.",
                        key.item.location,
                    )
                    .into());
                }
                None => {
                    extra_targets.push(target(
                        key.expression.clone(),
                        &format!("pgbraid_key_{}", i + 1),
                    ));
                    key_names.push(format!("h{}", i + 1));
                    names.push(format!("h{}", i + 1));
                }
            }
        }
        let text = |empty_arms| -> Result<(String, Vec<Extra>), Stop> {
            let rewrite = self.rewrite(empty_arms);
            let mut inner = rewrite.copy(self.select);
            inner
                .target_list
                .extend(extra_targets.iter().map(|t| rewrite.copy_node(t)));
            if self.select.distinct_clause.iter().all(|n| n.node.is_none()) {
                inner.sort_clause.clear();
            }
            inner.limit_count = None;
            inner.limit_offset = None;
            inner.limit_option = ast::LimitOption::Default as i32;
            let order: Vec<String> = keys
                .iter()
                .zip(&key_names)
                .map(|(k, n)| format!("q.{n}{}", direction(k)))
                .collect();
            let columns: Vec<String> = names[..width]
                .iter()
                .chain(&key_names)
                .map(|n| format!("q.{n}"))
                .collect();
            let sql = format!(
                "SELECT {} FROM ({}) AS q({}) ORDER BY {}{}",
                columns.join(", "),
                print(&inner)?,
                names.join(", "),
                order.join(", "),
                limit_text(count, offset, with_ties),
            );
            Ok((sql, rewrite.extras()))
        };
        let (sql, now) = text(true)?;
        let first_sql = match self.analysis.first_arms.is_empty() {
            true => None,
            false => Some(text(false)?.0),
        };
        Ok((sql, first_sql, now))
    }

    /// Types and collations of the keys; `None` when the proxy cannot order by one of them.
    fn sort_keys(
        &self,
        keys: &[Key<'a>],
        sql: &str,
        width: usize,
    ) -> Result<Option<Vec<SortKey>>, Stop> {
        let mut out = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let known = match self.static_key(key) {
                Some(known) => known,
                None => self.probed_key(sql, width + i)?,
            };
            let Some(collation) = known else {
                return Ok(None);
            };
            out.push(SortKey {
                text: key.text.clone(),
                descending: key.descending,
                nulls_first: key.nulls_first,
                collation,
            });
        }
        Ok(Some(out))
    }

    /// `Some(None)`: known, and not comparable here. The inner `Option` of the value is for types without collation.
    #[allow(
        clippy::option_option,
        reason = "three answers: not known, not comparable, comparable under a collation or none"
    )]
    fn static_key(&self, key: &Key<'a>) -> Option<Option<Option<Collation>>> {
        let outputs = self.outputs();
        let node = match key.output {
            Some(o) => outputs
                .as_ref()
                .and_then(|list| list.list.get(o))
                .and_then(|o| o.expression),
            None => Some(key.expression),
        };
        let catalog = self.analysis.catalog;
        if let Some(Node::CollateClause(c)) = node.and_then(|n| n.node.as_ref()) {
            let name = match c.collname.last()?.node.as_ref()? {
                Node::String(s) => s.sval.as_str(),
                _ => return None,
            };
            let arg = self.analysis.static_type(c.arg.as_deref()?)?;
            if !is_comparable(catalog, arg.oid) {
                return Some(None);
            }
            return Some(
                collation_named(catalog, name)
                    .filter(is_orderable)
                    .map(Some),
            );
        }
        let ty = match (key.output, node) {
            (Some(o), _) => self.analysis.attrs[self.block.cols.get(o)?.1].ty.clone()?,
            (None, Some(n)) => self.analysis.static_type(n)?,
            (None, None) => return None,
        };
        if !is_comparable(catalog, ty.oid) {
            return Some(None);
        }
        if !is_collatable(catalog, ty.oid) {
            return Some(Some(None));
        }
        if ty.collation == 0 {
            return None;
        }
        Some(
            collation(catalog, ty.collation)
                .filter(is_orderable)
                .map(Some),
        )
    }

    #[allow(clippy::option_option, reason = "as static_key")]
    fn probed_key(&self, sql: &str, column: usize) -> Result<Option<Option<Collation>>, Stop> {
        let catalog = self.analysis.catalog;
        let columns = self.probe_columns(sql)?;
        let Some(probed) = columns.get(column) else {
            return Ok(None);
        };
        if !is_comparable(catalog, probed.type_oid) {
            return Ok(None);
        }
        match (
            is_collatable(catalog, base_type(catalog, probed.type_oid)),
            &probed.collation,
        ) {
            (false, _) => Ok(Some(None)),
            (true, Some(name)) => Ok(collation_named(catalog, name)
                .filter(is_orderable)
                .map(Some)),
            (true, None) => Ok(None),
        }
    }

    /// The merge session orders what the proxy cannot.
    fn sorted_on_merge_session(
        &self,
        keys: &[Key<'a>],
        width: usize,
        sql: String,
        first_sql: Option<String>,
        extra: Vec<Extra>,
    ) -> Result<Plan, Stop> {
        let total = width + keys.len();
        let remote = self.remote(sql, first_sql, extra, total, 0);
        let columns: Vec<String> = (1..=total).map(|i| format!("c{i}")).collect();
        let stage = self.probed_stage(1, remote, &columns)?;
        // By number, which every server gives anew.
        if stage.columns[width..]
            .iter()
            .any(|c| oid::REG_TYPES.contains(&c.type_oid))
        {
            return Err(refusal(
                Reason::Form,
                "ordering by an object's number is not supported over several shards",
                "Cast it to text.",
                -1,
            )
            .into());
        }
        let visible: Vec<String> = columns[..width].iter().map(|c| format!("s.{c}")).collect();
        let order: Vec<String> = keys
            .iter()
            .zip(&columns[width..])
            .map(|(k, c)| format!("s.{c}{}", direction(k)))
            .collect();
        let tail = format!(
            " AS s ORDER BY {}{}",
            order.join(", "),
            self.original_limit(keys)?
        );
        Ok(Plan::Combine {
            sql: vec![
                SqlPart::Text(format!("SELECT {} FROM ", visible.join(", "))),
                SqlPart::Stage(0),
                SqlPart::Text(tail),
            ],
            stages: vec![stage],
            extra: Vec::new(),
        })
    }
}

pub(super) fn direction(key: &Key<'_>) -> String {
    let mut out = String::new();
    if key.descending {
        out.push_str(" DESC");
    }
    match (key.descending, key.nulls_first) {
        (false, true) => out.push_str(" NULLS FIRST"),
        (true, false) => out.push_str(" NULLS LAST"),
        _ => {}
    }
    out
}

fn key_text(item: &ast::SortBy, expression: &ast::Node) -> String {
    let mut text = expression_text(expression).unwrap_or_else(|_| "?".into());
    if descending(item).unwrap_or(false) {
        text.push_str(" DESC");
    }
    text
}

fn descending(item: &ast::SortBy) -> Result<bool, Refusal> {
    use ast::SortByDir as D;
    match D::try_from(item.sortby_dir) {
        Ok(D::SortbyDesc) => Ok(true),
        Ok(D::SortbyUsing) => {
            let mut name = item.use_op.iter().rev().filter_map(|n| match &n.node {
                Some(Node::String(s)) => Some(s.sval.as_str()),
                _ => None,
            });
            match name.next() {
                Some("<") => Ok(false),
                Some(">") => Ok(true),
                _ => Err(refusal(
                    Reason::Form,
                    "ORDER BY USING this operator is not supported over several shards",
                    "Use ASC or DESC.",
                    item.location,
                )),
            }
        }
        _ => Ok(false),
    }
}

fn nulls_first(item: &ast::SortBy) -> Result<bool, Refusal> {
    use ast::SortByNulls as N;
    Ok(match N::try_from(item.sortby_nulls) {
        Ok(N::SortbyNullsFirst) => true,
        Ok(N::SortbyNullsLast) => false,
        _ => descending(item)?,
    })
}
