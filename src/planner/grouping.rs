//! What grouping, windows and DISTINCT make of a distribution.

use super::analyse::{Analysis, Dist, Distributed, Uses, node_id, refusal};
use super::outputs::Outputs;
use super::scope::{AttrId, Resolved};
use crate::catalog::Catalog;
use crate::metrics::Reason;
use crate::plan::Refusal;
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, any_node};
use crate::types::oid;

/// What GROUP BY groups by: `(a, b)` is two columns.
pub(super) fn group_items(s: &ast::SelectStmt) -> Vec<&ast::Node> {
    fn add<'n>(items: &'n [ast::Node], out: &mut Vec<&'n ast::Node>) {
        for item in items {
            match &item.node {
                Some(Node::RowExpr(r))
                    if r.row_format == ast::CoercionForm::CoerceImplicitCast as i32 =>
                {
                    add(&r.args, out);
                }
                _ => out.push(item),
            }
        }
    }
    let mut out = Vec::new();
    add(&s.group_clause, &mut out);
    out
}

/// True for HAVING without groups and aggregates: one row or none, whatever FROM has, which PostgreSQL does not read.
pub(super) fn reads_nothing(
    catalog: &Catalog,
    search_path: &[String],
    s: &ast::SelectStmt,
) -> bool {
    let reads = |n: &Node| match n {
        Node::SubLink(_) | Node::GroupingFunc(_) => true,
        Node::FuncCall(f) => {
            super::functions::find(catalog, search_path, f).is_none_or(|c| c.aggregate)
        }
        _ => false,
    };
    let bounds = s.limit_count.iter().chain(&s.limit_offset);
    let having = s.having_clause.iter().chain(bounds).map(|n| &**n);
    let mut parts = s.target_list.iter().chain(&s.sort_clause).chain(having);
    s.having_clause.is_some()
        && s.group_clause.is_empty()
        && s.window_clause.is_empty()
        && s.larg.is_none()
        && !parts.any(|part| any_node(part, &mut |n| reads(n)))
}

impl<'a> Analysis<'a> {
    pub(super) fn grouped_dist(
        &self,
        s: &'a ast::SelectStmt,
        from: &Dist,
        uses: &Uses<'a>,
        outputs: &Outputs<'a>,
        grouped: bool,
    ) -> Dist {
        let Dist::Sharded(d) = from else {
            return from.clone();
        };
        let mut keys = d.keys.clone();
        if grouped {
            let by: Vec<AttrId> = group_items(s)
                .into_iter()
                .filter_map(|g| self.grouping_attr(s, g, outputs))
                .collect();
            let plain = s
                .group_clause
                .iter()
                .all(|g| !matches!(g.node, Some(Node::GroupingSet(_))));
            keys.retain(|(k, strict)| *strict && by.contains(k));
            if keys.is_empty() || !plain {
                return Dist::Global(self.grouping_refusal(s, uses));
            }
        }
        for w in &uses.windows {
            let by = self.partition_attrs(s, w.over.as_deref());
            if !keys.iter().any(|(k, strict)| *strict && by.contains(k)) {
                return Dist::Global(refusal(
                    Reason::Form,
                    "a window function that is not partitioned by the sharding key is not supported here",
                    "Add the sharding key to PARTITION BY.",
                    w.location,
                ));
            }
        }
        Dist::Sharded(Distributed {
            sharding: d.sharding.clone(),
            keys,
        })
    }

    fn grouping_refusal(&self, s: &ast::SelectStmt, uses: &Uses<'_>) -> Refusal {
        let location = uses.aggregates.first().map_or(-1, |a| a.location);
        let hint = match s.group_clause.is_empty() {
            true => "Restrict the query to one shard by its sharding key.",
            false => "Add the sharding key to GROUP BY.",
        };
        refusal(
            Reason::Form,
            "grouping rows of several shards is not supported here",
            hint,
            location,
        )
    }

    /// The column a GROUP BY item is, ordinals and output names followed.
    fn grouping_attr(
        &self,
        s: &'a ast::SelectStmt,
        item: &'a ast::Node,
        outputs: &Outputs<'a>,
    ) -> Option<AttrId> {
        match self.output_of(s, item, outputs) {
            Some(output) => output.attr,
            None => self.plain_attr(item),
        }
    }

    /// The plain columns in a window's PARTITION BY, a named window's followed.
    fn partition_attrs(
        &self,
        s: &'a ast::SelectStmt,
        over: Option<&'a ast::WindowDef>,
    ) -> Vec<AttrId> {
        let Some(over) = over else { return Vec::new() };
        let named = |name: &str| {
            s.window_clause.iter().find_map(|w| match &w.node {
                Some(Node::WindowDef(w)) if w.name == name => Some(&**w),
                _ => None,
            })
        };
        let mut out: Vec<AttrId> = over
            .partition_clause
            .iter()
            .filter_map(|p| self.plain_attr(p))
            .collect();
        // `OVER w` has its name in `name`, `OVER (w …)` in `refname`.
        for name in [&over.name, &over.refname] {
            if !name.is_empty()
                && let Some(w) = named(name)
                && !std::ptr::eq(w, over)
            {
                out.extend(self.partition_attrs(s, Some(w)));
            }
        }
        out
    }

    pub(super) fn distinct_dist(
        &self,
        s: &'a ast::SelectStmt,
        plain: &Dist,
        outputs: &Outputs<'a>,
    ) -> Dist {
        let Dist::Sharded(d) = plain else {
            return plain.clone();
        };
        if s.distinct_clause.is_empty() {
            return plain.clone();
        }
        let on: Vec<&ast::Node> = s
            .distinct_clause
            .iter()
            .filter(|n| n.node.is_some())
            .collect();
        let by: Vec<AttrId> = match on.is_empty() {
            true => outputs.list.iter().filter_map(|o| o.attr).collect(),
            false => on
                .iter()
                .filter_map(|n| self.grouping_attr(s, n, outputs))
                .collect(),
        };
        let keys: Vec<(AttrId, bool)> = d
            .keys
            .iter()
            .filter(|(k, strict)| *strict && by.contains(k))
            .copied()
            .collect();
        match keys.is_empty() {
            false => Dist::Sharded(Distributed {
                sharding: d.sharding.clone(),
                keys,
            }),
            true => Dist::Global(refusal(
                Reason::Form,
                "DISTINCT over rows of several shards is not supported here",
                "Add the sharding key to the columns that are to be distinct.",
                -1,
            )),
        }
    }

    /// Why two shards that hold the same rows may compute different ones.
    pub(super) fn indefinite(
        &self,
        s: &'a ast::SelectStmt,
        uses: &Uses<'a>,
        outputs: &Outputs<'a>,
        grouped: bool,
    ) -> Option<Refusal> {
        let why = |what: &str| {
            Some(refusal(
                Reason::Form,
                format!("{what} of a reference table beside a sharded one is not supported here"),
                "Compute it in a statement of its own.",
                -1,
            ))
        };
        if !uses.windows.is_empty() {
            return why("a window function");
        }
        if s.distinct_clause.iter().any(|n| n.node.is_some()) {
            return why("DISTINCT ON");
        }
        let exact = |ty: Option<u32>| ty.is_some_and(|t| self.is_bytewise(t));
        if !s.distinct_clause.is_empty() {
            let all = outputs.list.iter().all(|o| {
                exact(
                    o.attr
                        .and_then(|a| self.attrs[a].ty.as_ref().map(|t| t.oid)),
                )
            });
            return if all { None } else { why("DISTINCT") };
        }
        if !grouped {
            return None;
        }
        for call in &uses.aggregates {
            let name = super::functions::bare_name(call).unwrap_or("");
            let arg = call
                .args
                .first()
                .and_then(|a| self.static_type(a))
                .map(|t| t.oid);
            let integer = matches!(arg, Some(oid::INT2 | oid::INT4 | oid::INT8));
            let definite = match name {
                "count" | "bool_and" | "bool_or" | "every" => true,
                "sum" | "avg" => integer || arg == Some(oid::NUMERIC),
                "min" | "max" => exact(arg),
                _ => false,
            };
            if !definite {
                return why("this aggregate");
            }
        }
        let grouped_exactly = group_items(s).into_iter().all(|g| {
            let node = match self.output_of(s, g, outputs) {
                Some(o) => o.expression,
                None => Some(g),
            };
            exact(node.and_then(|n| self.static_type(n)).map(|t| t.oid))
        });
        if grouped_exactly {
            None
        } else {
            why("grouping")
        }
    }

    /// Types whose equal values, and no others, print alike: two moments of one time zone may not, except under DateStyle ISO.
    pub(super) fn prints_apart(&self, type_oid: u32) -> bool {
        self.is_bytewise(type_oid) && type_oid != oid::TIMESTAMPTZ
    }

    /// Types whose equal values have equal bytes.
    pub(super) fn is_bytewise(&self, type_oid: u32) -> bool {
        matches!(
            type_oid,
            oid::BOOL
                | oid::INT2
                | oid::INT4
                | oid::INT8
                | oid::OID
                | oid::TEXT
                | oid::VARCHAR
                | oid::CHAR
                | oid::NAME
                | oid::UUID
                | oid::DATE
                | oid::TIME
                | oid::TIMESTAMP
                | oid::TIMESTAMPTZ
                | oid::BYTEA
        ) || self
            .catalog
            .types
            .get(&type_oid)
            .is_some_and(|t| t.kind == b'e')
    }

    /// An aggregate whose columns all belong to queries further out is theirs. One with a subquery in it may be.
    pub(super) fn outer_aggregate(&self, uses: &Uses<'a>) -> Option<i32> {
        uses.aggregates.iter().find_map(|call| {
            let (mut here, mut out) = (false, false);
            let parts = call.args.iter().chain(&call.agg_order);
            for part in parts.chain(call.agg_filter.as_deref()) {
                crate::sql::walk(Child::Node(part), &mut |c| {
                    let Child::Node(n) = c else { return true };
                    match &n.node {
                        Some(Node::SubLink(_)) => {
                            out = true;
                            return false;
                        }
                        Some(Node::ColumnRef(c)) => match self.colrefs.get(&node_id(c)) {
                            Some(
                                Resolved::Column { levels, .. }
                                | Resolved::WholeRow { levels, .. }
                                | Resolved::Unknown { levels },
                            ) => match levels {
                                0 => here = true,
                                _ => out = true,
                            },
                            _ => here = true,
                        },
                        _ => {}
                    }
                    true
                });
            }
            (out && !here).then_some(call.location)
        })
    }
}
