//! From a statement and the catalog to a plan: pure, the same answer every time. What it cannot prove exact it refuses.

use std::collections::HashMap;

use crate::catalog::Catalog;
use crate::plan::Planned;

/// A statement to plan.
pub struct Request<'a> {
    /// One statement, without the others of its message.
    pub sql: &'a str,
    /// Type OIDs of $1.. as the catalog shard inferred them.
    pub parameter_types: &'a [u32],
    /// Schemas searched for unqualified names, in order, pg_catalog included where the session has it elsewhere than first.
    pub search_path: &'a [String],
    pub facts: &'a Facts,
}

/// A question that only PostgreSQL can answer, asked of the catalog shard before planning goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Types and collations of the columns this SELECT would return (Parse and Describe; it is never run over rows). May name parameters.
    Columns { sql: String },
    /// The text of the single value this SELECT returns, or NULL. No parameters.
    Value { sql: String },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    Columns(Vec<ProbedColumn>),
    Value(Option<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ProbedColumn {
    pub type_oid: u32,
    pub type_modifier: i32,
    /// As `pg_collation_for` prints it, without quotes or schema (`default`, `C`, `en_US`); `None` for types without one.
    pub collation: Option<String>,
}

pub type Facts = HashMap<Probe, Fact>;

/// Plans one statement; `Err` asks for facts first.
pub fn plan(_request: &Request<'_>, _catalog: &Catalog) -> Result<Planned, Vec<Probe>> {
    unimplemented!()
}
