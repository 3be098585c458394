//! Partial aggregates put together, one state a group and aggregate, with PostgreSQL's results and errors.

use bytes::{BufMut, Bytes, BytesMut};

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::{Bound, error, keys};
use crate::metrics::Reason;
use crate::plan::{Final, FinalFunction};
use crate::protocol::error::ServerError;
use crate::protocol::messages::ColumnDescription;
use crate::protocol::sqlstate;
use crate::types::compare::{KeyOrder, Rank};
use crate::types::numeric::Numeric;
use crate::types::{float, oid};

/// An aggregate, with the columns of the shards' rows it reads and their types decided.
#[derive(Debug)]
pub(super) enum Kind {
    Count(usize),
    /// The different values of a column.
    CountDistinct(usize),
    Sum(usize, Number),
    Average {
        sum: usize,
        count: usize,
        number: Number,
    },
    /// Minimum, or maximum when the order is descending: the value whose key comes first.
    First {
        value: usize,
        key: usize,
        order: Box<KeyOrder>,
    },
    And(usize),
    Or(usize),
}

/// The type of a partial sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Int8,
    Numeric,
    Float4,
    Float8,
}

/// What an aggregate has come to.
#[derive(Debug, Clone)]
pub(super) enum State {
    Count(i64),
    /// Seeded, so that nobody can choose values that collide.
    Distinct(HashSet<Box<[u8]>, RandomState>),
    Sum(Value),
    Average {
        sum: Value,
        count: i64,
    },
    First(Option<Best>),
    Bool(Option<bool>),
}

/// The value that comes first so far.
#[derive(Debug, Clone)]
pub(super) struct Best {
    rank: Rank,
    key: Bytes,
    value: Option<Bytes>,
}

/// A result, before it has a form.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int8(i64),
    Numeric(Numeric),
    Float4(f32),
    Float8(f64),
    /// Bytes as a shard sent them.
    Own(Bytes),
}

/// The columns of a shard's row, as places in its frame.
pub(super) struct Columns<'a> {
    pub(super) frame: &'a [u8],
    /// Where each column begins, and behind them where the last one ends.
    pub(super) starts: &'a [usize],
}

impl<'a> Columns<'a> {
    fn get(&self, column: usize) -> Option<&'a [u8]> {
        let (from, to) = (self.starts[column], self.starts[column + 1]);
        let null = self.frame[from] & 0x80 != 0;
        (!null).then(|| &self.frame[from + 4..to])
    }
}

impl Kind {
    /// Decides an aggregate from the shards' columns.
    ///
    /// # Errors
    /// 0A000 when a min or max has no order here; XX000 when the columns are not what the plan says.
    pub(super) fn new(
        aggregate: &Final,
        columns: &[ColumnDescription],
        bound: &Bound,
    ) -> Result<Self, ServerError> {
        let column = |index: usize| {
            let found = columns.get(index);
            found.ok_or_else(|| error::internal(format!("{} has no partial", aggregate.text)))
        };
        let order = |key, collation: &Option<_>, descending| {
            let column = column(key)?;
            let comparator = keys::comparator(column, collation.as_ref(), bound, &aggregate.text)?;
            Ok::<_, ServerError>(Box::new(KeyOrder::new(comparator, descending, false)))
        };
        Ok(match &aggregate.function {
            FinalFunction::Count { column } => Self::Count(*column),
            FinalFunction::CountDistinct { column } => Self::CountDistinct(*column),
            FinalFunction::Sum { column: index } => {
                Self::Sum(*index, number(column(*index)?, &aggregate.text)?)
            }
            FinalFunction::Average { sum, count } => Self::Average {
                sum: *sum,
                count: *count,
                number: number(column(*sum)?, &aggregate.text)?,
            },
            FinalFunction::Min {
                value,
                key,
                collation,
            } => Self::First {
                value: *value,
                key: *key,
                order: order(*key, collation, false)?,
            },
            FinalFunction::Max {
                value,
                key,
                collation,
            } => Self::First {
                value: *value,
                key: *key,
                order: order(*key, collation, true)?,
            },
            FinalFunction::BoolAnd { column } => Self::And(*column),
            FinalFunction::BoolOr { column } => Self::Or(*column),
        })
    }

    /// The highest column it reads.
    pub(super) fn last_column(&self) -> usize {
        match self {
            Self::Count(c)
            | Self::CountDistinct(c)
            | Self::Sum(c, _)
            | Self::And(c)
            | Self::Or(c) => *c,
            Self::Average {
                sum: a, count: b, ..
            }
            | Self::First {
                value: a, key: b, ..
            } => *a.max(b),
        }
    }

    /// The state over no rows.
    pub(super) fn start(&self) -> State {
        match self {
            Self::Count(_) => State::Count(0),
            Self::CountDistinct(_) => State::Distinct(HashSet::default()),
            Self::Sum(..) => State::Sum(Value::Null),
            Self::Average { .. } => State::Average {
                sum: Value::Null,
                count: 0,
            },
            Self::First { .. } => State::First(None),
            Self::And(_) | Self::Or(_) => State::Bool(None),
        }
    }

    /// Adds a shard's partials to a state. Returns the bytes that the state holds more now, or less.
    ///
    /// # Errors
    /// `None` inside: the bytes are no values of their types. 22003 where PostgreSQL's own sum would overflow.
    pub(super) fn add(
        &self,
        state: &mut State,
        columns: &Columns<'_>,
    ) -> Result<Option<isize>, ServerError> {
        let read = match (self, state) {
            (Self::Count(column), State::Count(total)) => int8(columns.get(*column))
                .and_then(|partial| total.checked_add(partial))
                .map(|sum| *total = sum),
            (Self::CountDistinct(column), State::Distinct(seen)) => {
                return Ok(Some(insert(seen, columns.get(*column))));
            }
            (Self::Sum(column, number), State::Sum(sum)) => {
                return add_to(sum, columns.get(*column), *number);
            }
            (
                Self::Average {
                    sum: column,
                    count: counted,
                    number,
                },
                State::Average { sum, count },
            ) => {
                let Some(partial) = int8(columns.get(*counted)) else {
                    return Ok(None);
                };
                *count = count.saturating_add(partial);
                return add_to(sum, columns.get(*column), *number);
            }
            (Self::First { value, key, order }, State::First(best)) => {
                return Ok(first(best, columns.get(*key), columns.get(*value), order));
            }
            (Self::And(column), State::Bool(all)) => boolean(columns.get(*column)).map(|partial| {
                *all = partial.map_or(*all, |p| Some(p && all.unwrap_or(true)));
            }),
            (Self::Or(column), State::Bool(any)) => boolean(columns.get(*column)).map(|partial| {
                *any = partial.map_or(*any, |p| Some(p || any.unwrap_or(false)));
            }),
            // A state is always made by the kind that adds to it.
            _ => None,
        };
        Ok(read.map(|()| 0))
    }
}

/// What a value costs in the set besides its own bytes: its address and length, a control byte, and what the allocator adds.
const VALUE_BYTES: usize = 48;

/// Adds a value, unless it is NULL, to those seen. Returns the bytes that are held more now.
fn insert(seen: &mut HashSet<Box<[u8]>, RandomState>, value: Option<&[u8]>) -> isize {
    match value {
        Some(value) if !seen.contains(value) => {
            seen.insert(value.into());
            (value.len() + VALUE_BYTES) as isize
        }
        _ => 0,
    }
}

impl State {
    /// The aggregate's result.
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Distinct(seen) => Value::Int8(seen.len() as i64),
            Self::Count(count) => Value::Int8(*count),
            Self::Sum(sum) => sum.clone(),
            Self::Average { count: ..=0, .. } => Value::Null,
            Self::Average { sum, count } => sum.divided(*count),
            Self::First(best) => match best {
                Some(Best {
                    value: Some(value), ..
                }) => Value::Own(value.clone()),
                _ => Value::Null,
            },
            Self::Bool(result) => result.map_or(Value::Null, Value::Bool),
        }
    }
}

impl Value {
    fn divided(&self, count: i64) -> Self {
        match self {
            Self::Int8(sum) => Self::Numeric(Numeric::from(*sum).divide_by_count(count as u64)),
            Self::Numeric(sum) => Self::Numeric(sum.divide_by_count(count as u64)),
            Self::Float4(sum) => Self::Float8(f64::from(*sum) / count as f64),
            Self::Float8(sum) => Self::Float8(sum / count as f64),
            Self::Null | Self::Bool(_) | Self::Own(_) => Self::Null,
        }
    }

    /// Appends it with its length, as a column of the client's type and format.
    ///
    /// # Errors
    /// 22003 for a numeric too large to be one; XX000 when the client was told another type.
    pub(super) fn put(
        &self,
        column: &ColumnDescription,
        out: &mut BytesMut,
    ) -> Result<(), ServerError> {
        let start = out.len();
        out.put_i32(-1);
        let text = column.format == 0;
        match (self, column.type_oid) {
            (Self::Null, _) => return Ok(()),
            (Self::Own(bytes), _) => out.put_slice(bytes),
            (Self::Bool(b), oid::BOOL) if text => out.put_u8(if *b { b't' } else { b'f' }),
            (Self::Bool(b), oid::BOOL) => out.put_u8(u8::from(*b)),
            (Self::Int8(v), oid::INT8) if text => {
                out.put_slice(itoa::Buffer::new().format(*v).as_bytes());
            }
            (Self::Int8(v), oid::INT8) => out.put_i64(*v),
            (Self::Int8(v), oid::NUMERIC) => put_numeric(&Numeric::from(*v), text, out)?,
            (Self::Numeric(v), oid::NUMERIC) => put_numeric(v, text, out)?,
            (Self::Float4(v), oid::FLOAT4) if text => {
                out.put_slice(float::float4_text(*v).as_bytes());
            }
            (Self::Float4(v), oid::FLOAT4) => out.put_f32(*v),
            (Self::Float8(v), oid::FLOAT8) if text => {
                out.put_slice(float::float8_text(*v).as_bytes());
            }
            (Self::Float8(v), oid::FLOAT8) => out.put_f64(*v),
            (value, type_oid) => {
                let message = format!("an aggregate of type {type_oid} came out as {value:?}");
                return Err(error::internal(message));
            }
        }
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

fn put_numeric(value: &Numeric, text: bool, out: &mut BytesMut) -> Result<(), ServerError> {
    let put = if text {
        value.to_text().map(|t| out.put_slice(t.as_bytes()))
    } else {
        value.put_binary(out)
    };
    put.map_err(|overflow| out_of_range(&overflow.to_string()))
}

fn out_of_range(message: &str) -> ServerError {
    ServerError::new(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, message)
}

/// The kind of number a partial sum is.
fn number(column: &ColumnDescription, text: &str) -> Result<Number, ServerError> {
    match column.type_oid {
        oid::INT8 => Ok(Number::Int8),
        oid::NUMERIC => Ok(Number::Numeric),
        oid::FLOAT4 => Ok(Number::Float4),
        oid::FLOAT8 => Ok(Number::Float8),
        other => {
            let message =
                format!("{text} has partial sums of type {other}, which pgbraid cannot add");
            Err(ServerError::refusal(Reason::Form, message))
        }
    }
}

fn int8(value: Option<&[u8]>) -> Option<i64> {
    Some(i64::from_be_bytes(value?.try_into().ok()?))
}

/// The outer `None`: no bool.
fn boolean(value: Option<&[u8]>) -> Option<Option<bool>> {
    match value {
        None => Some(None),
        Some([0]) => Some(Some(false)),
        Some([1]) => Some(Some(true)),
        Some(_) => None,
    }
}

/// What the allocator adds to the digits of a sum, or to a value.
const ALLOCATED_BYTES: usize = 16;

/// Adds a partial sum; NULL adds nothing. `None`: the bytes are no number of that type.
fn add_to(
    sum: &mut Value,
    partial: Option<&[u8]>,
    number: Number,
) -> Result<Option<isize>, ServerError> {
    let Some(bytes) = partial else {
        return Ok(Some(0));
    };
    let partial = match number {
        Number::Int8 => int8(Some(bytes)).map(Value::Int8),
        Number::Numeric => Numeric::from_binary(bytes).map(Value::Numeric),
        Number::Float4 => bytes
            .try_into()
            .ok()
            .map(|b| Value::Float4(f32::from_be_bytes(b))),
        Number::Float8 => bytes
            .try_into()
            .ok()
            .map(|b| Value::Float8(f64::from_be_bytes(b))),
    };
    let Some(partial) = partial else {
        return Ok(None);
    };
    let held = match (&*sum, number) {
        (Value::Null, Number::Numeric) => (bytes.len() + ALLOCATED_BYTES) as isize,
        _ => 0,
    };
    *sum = match (&*sum, partial) {
        (Value::Int8(a), Value::Int8(b)) => Value::Int8(
            a.checked_add(b)
                .ok_or_else(|| out_of_range("bigint out of range"))?,
        ),
        (Value::Numeric(a), Value::Numeric(b)) => Value::Numeric(a.add(&b)),
        (Value::Float4(a), Value::Float4(b)) => {
            check_float((a + b).is_infinite(), a.is_infinite() || b.is_infinite())?;
            Value::Float4(a + b)
        }
        (Value::Float8(a), Value::Float8(b)) => {
            check_float((a + b).is_infinite(), a.is_infinite() || b.is_infinite())?;
            Value::Float8(a + b)
        }
        (_, first) => first,
    };
    Ok(Some(held))
}

/// Finite floats must not add up to an infinity.
fn check_float(infinite: bool, was_infinite: bool) -> Result<(), ServerError> {
    if infinite && !was_infinite {
        return Err(out_of_range("value out of range: overflow"));
    }
    Ok(())
}

impl Best {
    fn bytes(&self) -> isize {
        let value = self.value.as_ref().map_or(0, |v| v.len() + ALLOCATED_BYTES);
        (self.key.len() + ALLOCATED_BYTES + value) as isize
    }
}

/// Keeps what comes first in `order`; NULL never does. Returns the bytes that are held more now, or less. `None`: the key's bytes are
/// no value of its type.
fn first(
    best: &mut Option<Best>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    order: &KeyOrder,
) -> Option<isize> {
    let Some(key) = key else {
        return Some(0);
    };
    let rank = order.rank(Some(key))?;
    let before = best.as_ref().is_none_or(|best| {
        let ranks = rank.cmp(&best.rank);
        let equal = ranks.is_eq() && !order.rank_decides();
        ranks.is_lt() || equal && order.compare(Some(key), Some(&best.key)).is_lt()
    });
    if !before {
        return Some(0);
    }
    let held = best.as_ref().map_or(0, Best::bytes);
    let found = best.insert(Best {
        rank,
        key: Bytes::copy_from_slice(key),
        value: value.map(Bytes::copy_from_slice),
    });
    Some(found.bytes() - held)
}
