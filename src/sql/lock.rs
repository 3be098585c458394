//! LOCK TABLE: which tables, and how.

use pg_query::protobuf::{self as ast, node::Node};

use super::print::quote_identifier;

/// `ACCESS SHARE` in PostgreSQL's lockdefs.h.
const ACCESS_SHARE: i32 = 1;

/// A LOCK TABLE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockTables {
    /// In their order.
    pub tables: Vec<LockedTable>,
    /// IN ACCESS SHARE MODE: what a read takes as well.
    pub as_reads: bool,
    /// NOWAIT.
    pub nowait: bool,
}

/// A table of a LOCK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedTable {
    /// Empty where the search_path decides.
    pub schema: String,
    /// Not quoted, as is the schema.
    pub name: String,
    /// ONLY: without its children.
    pub only: bool,
}

impl LockedTable {
    /// As it stands in a LOCK.
    pub fn quoted(&self) -> String {
        let only = if self.only { "ONLY " } else { "" };
        let name = quote_identifier(&self.name);
        match self.schema.is_empty() {
            true => format!("{only}{name}"),
            false => format!("{only}{}.{name}", quote_identifier(&self.schema)),
        }
    }
}

/// Reads a LOCK TABLE.
pub(super) fn lock_tables(lock: &ast::LockStmt) -> LockTables {
    let table = |node: &ast::Node| match &node.node {
        Some(Node::RangeVar(v)) => Some(LockedTable {
            schema: v.schemaname.clone(),
            name: v.relname.clone(),
            only: !v.inh,
        }),
        _ => None,
    };
    LockTables {
        tables: lock.relations.iter().filter_map(table).collect(),
        as_reads: lock.mode == ACCESS_SHARE,
        nowait: lock.nowait,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, classify, parse};

    #[test]
    fn tables_and_mode_are_read() {
        for (sql, as_reads) in [
            (
                "lock table s.\"A\", only b in access share mode nowait",
                true,
            ),
            ("lock s.\"A\", only b nowait", false),
            ("lock table s.\"A\", only b in row share mode nowait", false),
        ] {
            let Kind::Lock(lock) = classify(&parse(sql).expect("valid")[0]) else {
                panic!("{sql}");
            };
            let names: Vec<_> = lock.tables.iter().map(super::LockedTable::quoted).collect();
            assert_eq!(names, ["\"s\".\"A\"", "ONLY \"b\""]);
            assert_eq!((lock.as_reads, lock.nowait), (as_reads, true), "{sql}");
        }
    }
}
