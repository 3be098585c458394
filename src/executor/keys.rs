//! The order of key columns, found from what the shards say their types are.

use super::Bound;
use crate::metrics::Reason;
use crate::plan::{Collation, SortKey};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::types::compare::{Comparator, KeyOrder, TextOrder};

/// The orders of `keys`, which are the last ones of `columns`.
///
/// # Errors
/// 0A000 when a type or collation is not comparable here.
pub(super) fn orders(
    keys: &[SortKey],
    columns: &[ColumnDescription],
    bound: &Bound,
) -> Result<Vec<KeyOrder>, ServerError> {
    let first = columns.len().saturating_sub(keys.len());
    keys.iter()
        .zip(&columns[first..])
        .map(|(key, column)| {
            let comparator = comparator(column, key.collation.as_ref(), bound, &key.text)?;
            Ok(KeyOrder::new(comparator, key.descending, key.nulls_first))
        })
        .collect()
}

/// The comparator of a column in binary form; `text` is how errors call it.
///
/// # Errors
/// 0A000 when its type or collation is not comparable here.
pub(super) fn comparator(
    column: &ColumnDescription,
    collation: Option<&Collation>,
    bound: &Bound,
    text: &str,
) -> Result<Comparator, ServerError> {
    let order = collation.map_or(TextOrder::Unknown, Collation::text_order);
    let types = bound.catalog.as_ref().map(|c| &c.types);
    let known = types.and_then(|t| t.get(&column.type_oid));
    let labels = known.filter(|t| t.kind == b'e').map(|t| &t.labels[..]);
    Comparator::new(column.type_oid, order, labels)
        .filter(|_| column.format == 1)
        .ok_or_else(|| {
            let message = format!("the order of {text} is not known outside the shards");
            ServerError::refusal(Reason::Form, message).with_hint(
                "Order by a column of another type, or under COLLATE \"C\" when it is text.",
            )
        })
}
