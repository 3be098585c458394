//! The order of built-in types, on their binary forms, as their default btree operator classes have it.
//!
//! A [`KeyOrder`] is chosen once a column. A value then gets a *rank*, a number that decides most comparisons alone;
//! only values of equal rank whose type does not fit in one are compared in full.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::collate::{Locale, c_library_version};
use super::numeric::Numeric;
use super::{network, oid};

/// How strings of a column are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextOrder<'a> {
    /// By bytes: the collations C, POSIX and ucs_basic.
    Bytes,
    /// By a locale of the C library, in the version that the catalog recorded.
    Libc {
        /// The locale's name.
        locale: &'a str,
        /// The C library's version that the catalog recorded.
        version: Option<&'a str>,
    },
    /// In a way this program does not know (ICU, nondeterministic).
    Unknown,
}

/// Compares values of one type in their binary forms.
#[derive(Debug, Clone)]
pub enum Comparator {
    /// bool, and "char", which PostgreSQL compares unsigned.
    Byte,
    /// int2.
    Int2,
    /// int4, date.
    Int4,
    /// int8, time, timestamp, timestamptz, money.
    Int8,
    /// oid.
    Unsigned4,
    /// xid8, pg_lsn.
    Unsigned8,
    /// float4.
    Float4,
    /// float8.
    Float8,
    /// numeric.
    Numeric,
    /// timetz.
    TimeTz,
    /// interval.
    Interval,
    /// inet, cidr.
    Network,
    /// bit, varbit.
    Bits,
    /// bytea, uuid, macaddr, macaddr8; strings in byte order.
    Bytes,
    /// bpchar in byte order.
    Padded,
    /// Strings in a locale's order.
    Locale(Locale),
    /// bpchar in a locale's order.
    PaddedLocale(Locale),
    /// An enum: its labels with their positions.
    Enum(Arc<HashMap<Box<[u8]>, u64>>),
}

impl Comparator {
    /// The comparator of a type; `None` when its order is not known here. `labels` are those of an enum, in order.
    pub fn new(type_oid: u32, text: TextOrder<'_>, labels: Option<&[String]>) -> Option<Self> {
        Some(match type_oid {
            oid::BOOL | oid::CHAR => Self::Byte,
            oid::INT2 => Self::Int2,
            oid::INT4 | oid::DATE => Self::Int4,
            oid::INT8 | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::MONEY => Self::Int8,
            oid::OID => Self::Unsigned4,
            oid::XID8 | oid::PG_LSN => Self::Unsigned8,
            oid::FLOAT4 => Self::Float4,
            oid::FLOAT8 => Self::Float8,
            oid::NUMERIC => Self::Numeric,
            oid::TIMETZ => Self::TimeTz,
            oid::INTERVAL => Self::Interval,
            oid::INET | oid::CIDR => Self::Network,
            oid::BIT | oid::VARBIT => Self::Bits,
            oid::BYTEA | oid::UUID | oid::MACADDR | oid::MACADDR8 => Self::Bytes,
            oid::TEXT | oid::VARCHAR | oid::NAME => match text {
                TextOrder::Bytes => Self::Bytes,
                _ => Self::Locale(text.locale()?),
            },
            oid::BPCHAR => match text {
                TextOrder::Bytes => Self::Padded,
                _ => Self::PaddedLocale(text.locale()?),
            },
            _ => Self::Enum(Arc::new(positions(labels?))),
        })
    }

    /// A number that orders like the value, as far as it goes; `None` when the bytes are no value of the type.
    #[inline]
    fn prefix(&self, value: &[u8]) -> Option<u64> {
        Some(match self {
            Self::Int8 => signed(i64::from_be_bytes(value.try_into().ok()?)),
            Self::Int4 => signed(i32::from_be_bytes(value.try_into().ok()?).into()),
            Self::Int2 => signed(i16::from_be_bytes(value.try_into().ok()?).into()),
            Self::Byte => u64::from(u8::from_be_bytes(value.try_into().ok()?)),
            Self::Unsigned4 => u32::from_be_bytes(value.try_into().ok()?).into(),
            Self::Unsigned8 => u64::from_be_bytes(value.try_into().ok()?),
            Self::Float4 => float(f32::from_be_bytes(value.try_into().ok()?).into()),
            Self::Float8 => float(f64::from_be_bytes(value.try_into().ok()?)),
            Self::Bytes => leading(value),
            Self::Padded => leading(without_padding(value)),
            Self::Bits => leading(value.get(4..)?),
            Self::Enum(labels) => *labels.get(value)?,
            Self::TimeTz => (value.len() == 12).then_some(0)?,
            Self::Interval => (value.len() == 16).then_some(0)?,
            Self::Numeric => Numeric::from_binary(value).map(|_| 0)?,
            Self::Network => network::Address::read(value).map(|_| 0)?,
            Self::Locale(_) | Self::PaddedLocale(_) => 0,
        })
    }

    /// True when values of equal prefix are equal.
    fn prefix_decides(&self) -> bool {
        matches!(
            self,
            Self::Byte
                | Self::Int2
                | Self::Int4
                | Self::Int8
                | Self::Unsigned4
                | Self::Unsigned8
                | Self::Float4
                | Self::Float8
                | Self::Enum(_)
        )
    }

    /// Compares two values that have a prefix.
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            Self::Numeric => numeric(a, b),
            Self::TimeTz => time_tz(a).cmp(&time_tz(b)),
            Self::Interval => interval(a).cmp(&interval(b)),
            Self::Network => network::Address::read(a).cmp(&network::Address::read(b)),
            Self::Bits => bits(a).cmp(&bits(b)),
            Self::Bytes => a.cmp(b),
            Self::Padded => without_padding(a).cmp(without_padding(b)),
            Self::Locale(locale) => locale.compare(a, b),
            Self::PaddedLocale(locale) => locale.compare(without_padding(a), without_padding(b)),
            _ => self.prefix(a).cmp(&self.prefix(b)),
        }
    }

    /// True when the bytes are a value of the type.
    pub fn accepts(&self, value: &[u8]) -> bool {
        self.prefix(value).is_some()
    }
}

impl TextOrder<'_> {
    /// Only in the very version that sorted on the shards: locales change between versions.
    fn locale(self) -> Option<Locale> {
        match self {
            Self::Libc {
                locale,
                version: Some(version),
            } if c_library_version() == Some(version) => Locale::named(locale),
            _ => None,
        }
    }
}

fn positions(labels: &[String]) -> HashMap<Box<[u8]>, u64> {
    let bytes = labels.iter().map(|l| Box::from(l.as_bytes()));
    bytes.zip(0..).collect()
}

fn signed(value: i64) -> u64 {
    value as u64 ^ 1 << 63
}

/// NaN above all, the two zeros equal.
fn float(value: f64) -> u64 {
    if value.is_nan() {
        return u64::MAX;
    }
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    if bits >> 63 == 0 {
        bits | 1 << 63
    } else {
        !bits
    }
}

/// The first eight bytes, zeros behind a shorter string.
fn leading(value: &[u8]) -> u64 {
    match value.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..value.len()].copy_from_slice(value);
            u64::from_be_bytes(first)
        }
    }
}

/// bpchar ignores blanks at its end.
fn without_padding(value: &[u8]) -> &[u8] {
    let kept = value.iter().rposition(|b| *b != b' ').map_or(0, |p| p + 1);
    &value[..kept]
}

fn numeric(a: &[u8], b: &[u8]) -> Ordering {
    match (Numeric::from_binary(a), Numeric::from_binary(b)) {
        (Some(a), Some(b)) => a.compare(&b),
        _ => Ordering::Equal,
    }
}

/// The moment in UTC, then the zone.
fn time_tz(value: &[u8]) -> Option<(i64, i32)> {
    let (time, zone) = value.split_first_chunk()?;
    let zone = i32::from_be_bytes(zone.try_into().ok()?);
    let utc = i64::from_be_bytes(*time).wrapping_add(i64::from(zone) * 1_000_000);
    Some((utc, zone))
}

/// Microseconds, with months of 30 days (timestamp.c, interval_cmp_value).
fn interval(value: &[u8]) -> Option<i128> {
    let (time, rest) = value.split_first_chunk()?;
    let (days, months) = rest.split_first_chunk()?;
    let months = i32::from_be_bytes(months.try_into().ok()?);
    let days = i64::from(i32::from_be_bytes(*days)) + i64::from(months) * 30;
    Some(i128::from(i64::from_be_bytes(*time)) + i128::from(days) * 86_400_000_000)
}

/// The bytes, then the number of bits.
fn bits(value: &[u8]) -> Option<(&[u8], i32)> {
    let (length, bytes) = value.split_first_chunk()?;
    Some((bytes, i32::from_be_bytes(*length)))
}

/// How a column takes part in ORDER BY.
#[derive(Debug, Clone)]
pub struct KeyOrder {
    comparator: Comparator,
    descending: bool,
    nulls_first: bool,
    rank_decides: bool,
}

/// Orders like a value and its NULLs, as far as it goes.
pub type Rank = u128;

impl KeyOrder {
    /// ASC or DESC, NULLS FIRST or LAST.
    pub fn new(comparator: Comparator, descending: bool, nulls_first: bool) -> Self {
        Self {
            rank_decides: comparator.prefix_decides(),
            comparator,
            descending,
            nulls_first,
        }
    }

    /// The rank of a value or NULL: a value of lower rank comes earlier. `None` when the bytes are no value of the type.
    #[inline]
    pub fn rank(&self, value: Option<&[u8]>) -> Option<Rank> {
        const VALUES: Rank = 1 << 64;
        let Some(value) = value else {
            return Some(if self.nulls_first { 0 } else { 2 * VALUES });
        };
        let prefix = match (&self.comparator, value.first_chunk()) {
            // The usual key, without a call.
            (Comparator::Int8, Some(int8)) if value.len() == 8 => signed(i64::from_be_bytes(*int8)),
            _ => self.comparator.prefix(value)?,
        };
        let prefix = if self.descending { !prefix } else { prefix };
        Some(VALUES | Rank::from(prefix))
    }

    /// True when equal ranks mean equal values.
    #[inline]
    pub fn rank_decides(&self) -> bool {
        self.rank_decides
    }

    /// Compares two values of equal rank.
    pub fn compare(&self, a: Option<&[u8]>, b: Option<&[u8]>) -> Ordering {
        // Of equal rank, either both are NULL or none is.
        let (Some(a), Some(b)) = (a, b) else {
            return Ordering::Equal;
        };
        let order = self.comparator.compare(a, b);
        if self.descending {
            order.reverse()
        } else {
            order
        }
    }
}

#[cfg(test)]
mod tests;
