//! OIDs, binary and text forms of values, comparison, hashing and arithmetic as PostgreSQL does it.

pub mod hash;
pub mod oid;
pub mod parameter;
