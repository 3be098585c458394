//! Tables behind EXISTS, IN, ANY and ALL: what comes twice is left out by the shards.
//!
//! ```text
//! not exists (select from orders where o_custkey = c_custkey)   ─→   stage: SELECT DISTINCT o_custkey FROM orders
//! ```
//! A row that is there twice changes nothing of which rows a query without groups, windows and LIMIT has, only how often. Values that are
//! equal have to be the same in every respect, for a condition may look at them closely.

use super::analyse::{Block, node_id};
use super::scope::Resolved;
use super::stage_tables::Reading;
use super::stages::Stager;
use super::types::{self, is_collatable};
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, any_node, walk};

/// Of a smaller table the shards send what comes twice: to look for it would not pay.
const ONCE_ROWS_MIN: f64 = 1000.0;
/// More columns together come twice hardly ever.
const ONCE_COLUMNS_MAX: usize = 2;

impl<'a> Stager<'_, '_, 'a> {
    /// Notes a query of which only the rows count, not how often they come.
    pub(super) fn note_set(&self, link: &ast::SubLink) {
        use ast::SubLinkType as T;
        let query = link.subselect.as_deref().and_then(|q| q.node.as_ref());
        if let (Ok(T::ExistsSublink | T::AnySublink | T::AllSublink), Some(Node::SelectStmt(s))) =
            (T::try_from(link.sub_link_type), query)
        {
            self.sets.borrow_mut().insert(node_id(&**s));
        }
    }

    /// True where rows of its tables that come twice make no difference.
    pub(super) fn counts_as_set(&self, select: &ast::SelectStmt, block: Option<&Block>) -> bool {
        let is_plain = block.is_some_and(|b| !b.grouped && !b.windows);
        let is_whole = select.limit_count.is_none() && select.limit_offset.is_none();
        is_plain
            && is_whole
            && self.sets.borrow().contains(&node_id(select))
            && !self.is_grouped_from_within(select)
    }

    /// True where a subquery of it may hold an aggregate of its columns, which makes one row of all: `IN (SELECT (SELECT count(t.x))
    /// FROM t)`. Nothing of the query itself tells.
    fn is_grouped_from_within(&self, select: &ast::SelectStmt) -> bool {
        let mut found = false;
        let known = walk(Child::Select(select), &mut |c| {
            if let Child::Node(node) = c
                && let Some(Node::FuncCall(call)) = &node.node
            {
                found |= self.fan_out.is_aggregate(call) && self.looks_out(node);
            }
            !found
        });
        found || !known
    }

    /// True for an expression that names a column of a query around its own.
    fn looks_out(&self, expression: &ast::Node) -> bool {
        any_node(expression, &mut |node| match node {
            Node::ColumnRef(c) => match self.fan_out.analysis.colrefs.get(&node_id(c)) {
                Some(
                    Resolved::Column { levels, .. }
                    | Resolved::WholeRow { levels, .. }
                    | Resolved::Unknown { levels },
                ) => *levels > 0,
                _ => true,
            },
            Node::SubLink(_) => true,
            _ => false,
        })
    }

    /// True where the shards leave out what comes twice: nobody counts it, and there is much of it. Values that are equal have to be the
    /// same in every respect.
    pub(super) fn brings_each_once(&self, reading: &Reading<'_, 'a>) -> bool {
        let analysis = self.fan_out.analysis;
        let [(_, used)] = reading.relations.as_slice() else {
            return false;
        };
        let table = &used.table;
        let columns: Vec<usize> = reading.places.iter().map(|(_, place)| *place).collect();
        let key = &table.primary_key;
        let is_unique = !key.is_empty() && key.iter().all(|place| columns.contains(place));
        let is_same = |place: &usize| {
            let column = &table.columns[*place];
            let collation = column.collation;
            analysis.prints_apart(column.type_oid)
                && (!is_collatable(analysis.catalog, column.type_oid)
                    || types::collation(analysis.catalog, collation)
                        .is_some_and(|c| c.deterministic))
        };
        self.is_set.get()
            && table.rows >= ONCE_ROWS_MIN
            && reading.places.len() == reading.columns.len()
            && columns.len() <= ONCE_COLUMNS_MAX
            && !is_unique
            && columns.iter().all(is_same)
    }
}
