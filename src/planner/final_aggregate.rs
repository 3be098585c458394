//! A grouped statement of groups and simple aggregates only: the proxy puts the shards' parts together.

use super::aggregate::{Known, Part, Pieces, Split, renamed};
use super::outputs::targets;
use super::pushdown::{FanOut, Stop, unprintable};
use super::types::{is_comparable, is_orderable};
use crate::plan::{Final, FinalFunction, OutputColumn, Plan};
use crate::sql::ast;
use crate::sql::expression_text;
use crate::types::oid;

impl<'a> FanOut<'_, 'a> {
    /// A plan that ends in the proxy: nothing but groups and simple aggregates.
    pub(super) fn in_proxy(&self, pieces: &Pieces<'a>) -> Result<Option<Plan>, Stop> {
        let s = self.select;
        let bare = s.having_clause.is_none()
            && s.distinct_clause.is_empty()
            && s.sort_clause.is_empty()
            && s.limit_count.is_none()
            && s.limit_offset.is_none()
            && !self.block.windows
            && !s.target_list.is_empty();
        if !bare {
            return Ok(None);
        }
        let mut output = Vec::new();
        for t in targets(s) {
            let Some(value) = t.val.as_deref() else {
                return Ok(None);
            };
            let canonical = self.canonical(value)?;
            let group = pieces.groups.iter().position(|(c, _)| *c == canonical);
            let part = pieces.parts.iter().position(|p| p.canonical == canonical);
            output.push(match (group, part) {
                (Some(n), _) => OutputColumn::Group(n),
                (None, Some(n)) => OutputColumn::Aggregate(n),
                (None, None) => return Ok(None),
            });
        }
        let group_nodes: Vec<&ast::Node> = pieces.groups.iter().map(|(_, n)| *n).collect();
        let groups = self.types_of(&group_nodes)?;
        let by_bytes = |k: &Known| {
            self.analysis.prints_apart(k.oid)
                && !k.doubtful
                && k.collation.as_ref().is_none_or(|c| c.deterministic)
        };
        if !groups.iter().all(by_bytes) || !pieces.parts.iter().all(|p| self.finishes_here(p)) {
            return Ok(None);
        }
        self.final_aggregate(pieces, output).map(Some)
    }

    fn finishes_here(&self, part: &Part<'_>) -> bool {
        let Some(arg) = &part.arg else {
            return part.split == Split::Count;
        };
        match part.split {
            Split::Count | Split::BoolAnd | Split::BoolOr => true,
            Split::Sum | Split::Average => !matches!(arg.oid, oid::INTERVAL | oid::MONEY),
            Split::Min | Split::Max => {
                is_comparable(self.analysis.catalog, arg.oid)
                    && !arg.doubtful
                    && arg.collation.as_ref().is_none_or(is_orderable)
            }
            Split::Same => false,
        }
    }

    /// Groups and the values of min/max are visible, in the client's formats; all that is computed with trails, in binary.
    fn final_aggregate(
        &self,
        pieces: &Pieces<'a>,
        output: Vec<OutputColumn>,
    ) -> Result<Plan, Stop> {
        let groups = pieces.groups.len();
        let mut visible: Vec<ast::Node> = pieces.groups.iter().map(|(_, n)| (*n).clone()).collect();
        let is_extreme = |p: &&Part<'_>| matches!(p.split, Split::Min | Split::Max);
        visible.extend(
            pieces
                .parts
                .iter()
                .filter(is_extreme)
                .map(|p| p.node.clone()),
        );
        let width = visible.len();
        let mut hidden: Vec<ast::Node> = Vec::new();
        let mut value = groups;
        let mut aggregates = Vec::new();
        for part in &pieces.parts {
            let mut next = |node: ast::Node| {
                hidden.push(node);
                width + hidden.len() - 1
            };
            let collation = || part.arg.as_ref().and_then(|a| a.collation.clone());
            let function = match part.split {
                Split::Count => FinalFunction::Count {
                    column: next(part.node.clone()),
                },
                Split::Sum => FinalFunction::Sum {
                    column: next(part.node.clone()),
                },
                Split::Average => FinalFunction::Average {
                    sum: next(self.average_sum(part)),
                    count: next(renamed(part.call, "count")),
                },
                Split::BoolAnd | Split::Same => FinalFunction::BoolAnd {
                    column: next(part.node.clone()),
                },
                Split::BoolOr => FinalFunction::BoolOr {
                    column: next(part.node.clone()),
                },
                Split::Min | Split::Max => {
                    let key = next(part.node.clone());
                    value += 1;
                    let (value, collation) = (value - 1, collation());
                    match part.split {
                        Split::Min => FinalFunction::Min {
                            value,
                            key,
                            collation,
                        },
                        _ => FinalFunction::Max {
                            value,
                            key,
                            collation,
                        },
                    }
                }
            };
            aggregates.push(Final {
                function,
                text: expression_text(part.node).map_err(unprintable)?,
            });
        }
        let hidden_count = hidden.len();
        visible.extend(hidden);
        let (sql, first_sql, now) = self.partial_texts(&visible, groups)?;
        let remote = self.remote(sql, first_sql, now, width, hidden_count);
        Ok(Plan::FinalAggregate {
            input: Box::new(Plan::Remote(remote)),
            groups,
            aggregates,
            output,
        })
    }
}
