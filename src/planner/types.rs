//! What the proxy can do with a type, and how the merge session names it.

use super::ProbedColumn;
use super::scope::Ty;
use crate::catalog::Catalog;
use crate::plan::{Collation, CollationProvider, StageColumn};
use crate::sql::quote_identifier;
use crate::types::oid;

/// The type below a domain.
pub(super) fn base_type(catalog: &Catalog, type_oid: u32) -> u32 {
    let mut oid = type_oid;
    for _ in 0..32 {
        match catalog.types.get(&oid) {
            Some(t) if t.kind == b'd' && t.base != 0 => oid = t.base,
            _ => break,
        }
    }
    oid
}

/// True for types whose values the executor orders as PostgreSQL does.
pub(super) fn is_comparable(catalog: &Catalog, type_oid: u32) -> bool {
    let base = base_type(catalog, type_oid);
    matches!(
        base,
        oid::BOOL
            | oid::INT2
            | oid::INT4
            | oid::INT8
            | oid::OID
            | oid::FLOAT4
            | oid::FLOAT8
            | oid::NUMERIC
            | oid::TEXT
            | oid::VARCHAR
            | oid::BPCHAR
            | oid::NAME
            | oid::CHAR
            | oid::BYTEA
            | oid::DATE
            | oid::TIME
            | oid::TIMETZ
            | oid::TIMESTAMP
            | oid::TIMESTAMPTZ
            | oid::INTERVAL
            | oid::UUID
            | oid::MONEY
            | oid::PG_LSN
            | oid::XID8
            | oid::INET
            | oid::CIDR
            | oid::MACADDR
            | oid::MACADDR8
            | oid::BIT
            | oid::VARBIT
    ) || catalog.types.get(&base).is_some_and(|t| t.kind == b'e')
}

pub(super) fn is_collatable(catalog: &Catalog, type_oid: u32) -> bool {
    matches!(
        base_type(catalog, type_oid),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME
    ) || catalog.types.get(&type_oid).is_some_and(|t| t.collatable)
}

/// True for types whose values can be stored in a column of the merge session and mean the same there; regclass and its like do,
/// as they travel by name.
pub(super) fn is_stageable(catalog: &Catalog, type_oid: u32) -> bool {
    match catalog.types.get(&type_oid) {
        Some(t) if t.kind == b'p' => false,
        Some(t) if t.element != 0 && t.kind == b'b' => is_stageable(catalog, t.element),
        Some(t) => t.fields.iter().all(|f| is_stageable(catalog, *f)),
        None => {
            type_oid < oid::FIRST_NORMAL_OBJECT
                && type_oid != oid::RECORD
                && type_oid != oid::UNKNOWN
        }
    }
}

/// True for types of catalog columns whose values only mean something, or can only be written, on the server they are of: names of objects
/// by OID, and forms that have no input.
pub(super) fn is_of_server(type_oid: u32) -> bool {
    let internal = [
        oid::PG_NODE_TREE,
        oid::ACLITEM,
        oid::ACLITEM_ARRAY,
        oid::PG_NDISTINCT,
        oid::PG_DEPENDENCIES,
        oid::PG_MCV_LIST,
    ];
    oid::REG_TYPES.contains(&type_oid)
        || oid::REG_ARRAYS.contains(&type_oid)
        || internal.contains(&type_oid)
}

/// The collation with this OID; `None` when nothing is known of it.
pub(super) fn collation(catalog: &Catalog, oid: u32) -> Option<Collation> {
    match oid {
        100 => catalog.default_collation.clone(),
        // What every server has under these OIDs.
        950 | 951 if !catalog.collations.contains_key(&oid) => {
            Some(byte_order(if oid == 950 { "C" } else { "POSIX" }))
        }
        oid => catalog.collations.get(&oid).map(|c| (**c).clone()),
    }
}

fn byte_order(name: &str) -> Collation {
    Collation {
        name: name.into(),
        provider: CollationProvider::Bytes,
        locale: name.into(),
        deterministic: true,
        version: None,
    }
}

/// The collation of this name; `None` when there is none or more than one that differ.
pub(super) fn collation_named(catalog: &Catalog, name: &str) -> Option<Collation> {
    match name {
        "default" => return catalog.default_collation.clone(),
        "C" | "POSIX" => return Some(byte_order(name)),
        _ => {}
    }
    let mut found = catalog.collations.values().filter(|c| c.name == name);
    let first = found.next()?;
    found.all(|c| c == first).then(|| (**first).clone())
}

/// True for collations the executor may order by.
pub(super) fn is_orderable(collation: &Collation) -> bool {
    collation.deterministic && collation.provider != CollationProvider::Icu
}

/// A stage's column of a probed type; `None` for types that cannot be staged.
pub(super) fn stage_column(
    catalog: &Catalog,
    name: String,
    probed: &ProbedColumn,
) -> Option<StageColumn> {
    if !is_stageable(catalog, probed.type_oid) {
        return None;
    }
    let ty = catalog.types.get(&probed.type_oid)?;
    Some(StageColumn {
        name,
        // By its own name: keywords such as char and bit would bring a length with them.
        type_name: format!(
            "{}.{}",
            quote_identifier(&ty.schema),
            quote_identifier(&ty.name)
        ),
        type_oid: probed.type_oid,
        collation: match probed.collation.as_deref() {
            None | Some("default") => None,
            Some(c) => Some(quote_identifier(c)),
        },
        joined: false,
    })
}

/// A stage's column of a known type.
pub(super) fn static_stage_column(catalog: &Catalog, name: String, ty: &Ty) -> Option<StageColumn> {
    if !is_stageable(catalog, ty.oid) {
        return None;
    }
    let collation = match ty.collation {
        0 | 100 => None,
        oid => Some(quote_identifier(&collation(catalog, oid)?.name)),
    };
    Some(StageColumn {
        name,
        type_name: ty.name.clone(),
        type_oid: ty.oid,
        collation,
        joined: false,
    })
}
