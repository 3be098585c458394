//! A grouped statement of groups and simple aggregates only: the proxy puts the shards' parts together.

use std::sync::Arc;

use super::ProbedColumn;
use super::aggregate::{Known, Part, Pieces, Split, renamed};
use super::functions::bare_name;
use super::outputs::targets;
use super::pushdown::{FanOut, Stop, unprintable};
use super::types::{is_comparable, is_orderable, stage_column};
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
        if !groups.iter().all(|k| self.is_by_bytes(k))
            || !pieces.parts.iter().all(|p| self.finishes_here(p))
        {
            return Ok(None);
        }
        self.final_aggregate(pieces, &groups, output).map(Some)
    }

    /// True for values that are equal exactly when their bytes are.
    fn is_by_bytes(&self, known: &Known) -> bool {
        self.analysis.prints_apart(known.oid)
            && !known.doubtful
            && known.collation.as_ref().is_none_or(|c| c.deterministic)
    }

    fn finishes_here(&self, part: &Part<'_>) -> bool {
        let Some(arg) = &part.arg else {
            return part.split == Split::Count;
        };
        match part.split {
            Split::Count | Split::BoolAnd | Split::BoolOr => true,
            Split::Sum | Split::Average => !matches!(arg.oid, oid::INTERVAL | oid::MONEY),
            // That of "char" is text, in the database's order.
            Split::Min | Split::Max => {
                arg.oid != oid::CHAR
                    && is_comparable(self.analysis.catalog, arg.oid)
                    && !arg.doubtful
                    && arg.collation.as_ref().is_none_or(is_orderable)
            }
            // Bytes are compared.
            Split::Distinct => bare_name(part.call) == Some("count") && self.is_by_bytes(arg),
            Split::Same => false,
        }
    }

    /// Groups and the values of min/max are visible, in the client's formats; all that is computed with trails, in binary.
    fn final_aggregate(
        &self,
        pieces: &Pieces<'a>,
        known: &[Known],
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
        let distinct = pieces.parts.iter().find_map(Part::distinct).map(|arg| {
            hidden.push(arg.clone());
            width
        });
        for part in &pieces.parts {
            let mut next = |node: ast::Node| {
                hidden.push(node);
                width + hidden.len() - 1
            };
            let function = match part.split {
                Split::Distinct => FinalFunction::CountDistinct { column: width },
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
                    extreme(part, value - 1, key)
                }
            };
            aggregates.push(Final {
                function,
                text: expression_text(part.node).map_err(unprintable)?,
            });
        }
        let hidden_count = hidden.len();
        visible.extend(hidden);
        let (sql, first_sql, now) = self.partial_texts(&visible, groups, distinct)?;
        let remote = self.remote(sql, first_sql, now, width, hidden_count);
        Ok(Plan::FinalAggregate {
            input: Box::new(Plan::Remote(remote)),
            groups,
            aggregates,
            output,
            spill: self.spill(pieces, known)?.map(Arc::new),
        })
    }

    /// The plan for more groups than the proxy may hold; `None` where the types of the shards' columns are not plain to see.
    fn spill(&self, pieces: &Pieces<'a>, groups: &[Known]) -> Result<Option<Plan>, Stop> {
        let Some(columns) = partial_types(pieces, groups) else {
            return Ok(None);
        };
        let typed = columns.iter().enumerate().map(|(i, known)| {
            let probed = ProbedColumn {
                type_oid: known.oid,
                type_modifier: -1,
                collation: known.collation.as_ref().map(|c| c.name.clone()),
            };
            stage_column(self.analysis.catalog, format!("c{}", i + 1), &probed)
        });
        match typed.collect::<Option<Vec<_>>>() {
            Some(columns) => self.combined_over(pieces, columns).map(Some),
            None => Ok(None),
        }
    }
}

/// A minimum or maximum of these columns.
fn extreme(part: &Part<'_>, value: usize, key: usize) -> FinalFunction {
    let collation = part.arg.as_ref().and_then(|a| a.collation.clone());
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

/// Types of the columns that the halves of a grouped statement meet in: groups, what counts once, parts.
fn partial_types(pieces: &Pieces<'_>, groups: &[Known]) -> Option<Vec<Known>> {
    let plain = |oid| Known {
        oid,
        collation: None,
        doubtful: false,
    };
    let mut columns = groups.to_vec();
    let distinct = pieces.parts.iter().find(|p| p.split == Split::Distinct);
    columns.extend(distinct.and_then(|p| p.arg.clone()));
    for part in &pieces.parts {
        let arg = part.arg.as_ref();
        let sum = match arg.map(|a| a.oid) {
            Some(oid::INT2 | oid::INT4) => oid::INT8,
            Some(oid::INT8 | oid::NUMERIC) => oid::NUMERIC,
            Some(oid::FLOAT4) => oid::FLOAT4,
            Some(oid::FLOAT8) => oid::FLOAT8,
            _ => 0,
        };
        match part.split {
            Split::Distinct => {}
            Split::Count => columns.push(plain(oid::INT8)),
            Split::BoolAnd | Split::BoolOr => columns.push(plain(oid::BOOL)),
            Split::Sum if sum != 0 => columns.push(plain(sum)),
            Split::Average if sum == oid::FLOAT4 => {
                columns.extend([plain(oid::FLOAT8), plain(oid::INT8)]);
            }
            Split::Average if sum != 0 => columns.extend([plain(sum), plain(oid::INT8)]),
            Split::Min | Split::Max => columns.push(arg.filter(|a| is_own_extreme(a.oid))?.clone()),
            _ => return None,
        }
    }
    (!columns.iter().any(|c| c.doubtful)).then_some(columns)
}

/// Types of which min and max are of the same type.
fn is_own_extreme(type_oid: u32) -> bool {
    matches!(
        type_oid,
        oid::INT2
            | oid::INT4
            | oid::INT8
            | oid::FLOAT4
            | oid::FLOAT8
            | oid::NUMERIC
            | oid::TEXT
            | oid::DATE
            | oid::TIME
            | oid::TIMESTAMP
            | oid::TIMESTAMPTZ
            | oid::INTERVAL
    )
}
