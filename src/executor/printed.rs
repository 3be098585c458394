//! Which settings a plan's values must not be printed under: text that goes on to a merge session, or is made here, must mean one
//! value, and the same one everywhere.

use super::stage;
use crate::catalog::Catalog;
use crate::plan::{FinalFunction, Plan};
use crate::protocol::messages::ColumnDescription;
use crate::types::oid;

/// Types in types deeper than this are taken to depend on everything.
const DEPTH_MAX: usize = 32;

/// What a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Printed {
    /// Moments must be printed with their offset: DateStyle = ISO. Dates and times without a zone are read as they are printed.
    pub moments: bool,
    /// Floating-point numbers must be printed in full: extra_float_digits > 0.
    pub floats: bool,
    /// Intervals must be printed with their signs: any IntervalStyle but sql_standard and postgres_verbose.
    pub intervals: bool,
}

impl Printed {
    const ALL: Self = Self {
        moments: true,
        floats: true,
        intervals: true,
    };

    fn or(self, other: Self) -> Self {
        Self {
            moments: self.moments || other.moments,
            floats: self.floats || other.floats,
            intervals: self.intervals || other.intervals,
        }
    }
}

/// What a plan of a statement with these result columns depends on.
pub fn printed(plan: &Plan, columns: &[ColumnDescription], catalog: &Catalog) -> Printed {
    match plan {
        Plan::Remote(_) => Printed::default(),
        // Groups are told apart by their text, of types whose text is another for another value whatever the settings are. Sums
        // of floats are printed here, in full.
        Plan::FinalAggregate { aggregates, .. } => {
            let computed = aggregates.iter().any(|a| {
                matches!(
                    a.function,
                    FinalFunction::Sum { .. } | FinalFunction::Average { .. }
                )
            });
            let is_float = |c: &ColumnDescription| matches!(c.type_oid, oid::FLOAT4 | oid::FLOAT8);
            Printed {
                floats: computed && columns.iter().any(is_float),
                ..Printed::default()
            }
        }
        Plan::Distinct { input }
        | Plan::Gather { input }
        | Plan::GatherMerge { input, .. }
        | Plan::Limit { input, .. } => printed(input, columns, catalog),
        Plan::Combine { stages, .. } => stages
            .iter()
            .flat_map(|s| {
                let own = s.columns.iter().filter(|c| stage::format_of(c) == 0);
                let own = own.map(|c| of_type(catalog, c.type_oid, 0));
                own.chain([of_stage(&s.plan, &s.columns, catalog)])
            })
            .fold(Printed::default(), Printed::or),
    }
}

/// A stage's rows go on in the formats of its columns: what is in binary form is not printed.
fn of_stage(plan: &Plan, columns: &[crate::plan::StageColumn], catalog: &Catalog) -> Printed {
    let described: Vec<ColumnDescription> = columns
        .iter()
        .map(|c| ColumnDescription {
            name: bytes::Bytes::new(),
            table_oid: 0,
            attribute: 0,
            type_oid: c.type_oid,
            type_length: -1,
            type_modifier: -1,
            format: stage::format_of(c),
        })
        .filter(|c| c.format == 0)
        .collect();
    printed(plan, &described, catalog)
}

/// What the text of a type's values depends on.
fn of_type(catalog: &Catalog, type_oid: u32, depth: usize) -> Printed {
    let none = Printed::default();
    match type_oid {
        0 => return none,
        oid::TIMESTAMPTZ => {
            return Printed {
                moments: true,
                ..none
            };
        }
        // Points, segments, paths, boxes, polygons, lines and circles are made of them.
        oid::FLOAT4 | oid::FLOAT8 | 600..=604 | 628 | 718 => {
            return Printed {
                floats: true,
                ..none
            };
        }
        oid::INTERVAL => {
            return Printed {
                intervals: true,
                ..none
            };
        }
        _ if depth > DEPTH_MAX => return Printed::ALL,
        _ => {}
    }
    let Some(t) = catalog.types.get(&type_oid) else {
        return Printed::ALL;
    };
    let parts = [t.element, t.base, t.subtype];
    match t.kind {
        // How a user's own type prints nobody knows.
        b'b' if t.element == 0 && type_oid >= oid::FIRST_NORMAL_OBJECT => Printed::ALL,
        _ => parts
            .iter()
            .chain(&t.fields)
            .map(|part| of_type(catalog, *part, depth + 1))
            .fold(none, Printed::or),
    }
}
