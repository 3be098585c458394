//! OIDs, binary and text forms of values, comparison, hashing and arithmetic as PostgreSQL does it.

pub mod collate;
pub mod compare;
pub mod encoding;
pub mod float;
pub mod hash;
mod network;
pub mod numeric;
pub mod oid;
pub mod parameter;
