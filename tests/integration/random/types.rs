//! The types that statements are made of. Equal values of some types may have unequal bytes (1.0 and 1.00): wherever
//! PostgreSQL is free which of them it shows, the generator asks for a canonical form.

/// A family of SQL types within which expressions mix freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// int2, int4 and int8 with small values: sums and products stay in range.
    Int,
    /// Integers near every limit: compared, never calculated with.
    Wide,
    Numeric,
    Float,
    Text,
    /// Text in the collation "C".
    CText,
    Bpchar,
    Bool,
    Date,
    Timestamp,
    Timestamptz,
    Interval,
    Time,
    Uuid,
    Mood,
    Bytea,
    Money,
    Inet,
    Jsonb,
    Ints,
    Texts,
    Range,
    Pair,
    /// What has no order, or none that the generator uses: shown and counted.
    Opaque,
}

use Type::*;

/// What columns of subqueries and set operations are made of, common ones several times.
pub const COMMON: [Type; 30] = [
    Int,
    Int,
    Int,
    Int,
    Int,
    Int,
    Int,
    Text,
    Text,
    Text,
    Text,
    Numeric,
    Numeric,
    Numeric,
    Float,
    Date,
    Bool,
    Bool,
    Wide,
    Bpchar,
    Timestamptz,
    Timestamp,
    Interval,
    Uuid,
    Mood,
    Money,
    Jsonb,
    Ints,
    Texts,
    Range,
];

impl Type {
    /// The name for casts.
    pub fn name(self) -> &'static str {
        match self {
            Int | Wide => "int8",
            Numeric => "numeric",
            Float => "float8",
            Text | Opaque => "text",
            CText => "text",
            Bpchar => "char(8)",
            Bool => "bool",
            Date => "date",
            Timestamp => "timestamp",
            Timestamptz => "timestamptz",
            Interval => "interval",
            Time => "time",
            Uuid => "uuid",
            Mood => "mood",
            Bytea => "bytea",
            Money => "money",
            Inet => "inet",
            Jsonb => "jsonb",
            Ints => "int8[]",
            Texts => "text[]",
            Range => "int4range",
            Pair => "pair",
        }
    }

    /// The OID that a parameter of this type is declared with; none for types that are no parameters here.
    pub fn parameter_oid(self) -> Option<u32> {
        Some(match self {
            Int => 20,
            Text => 25,
            Numeric => 1700,
            Float => 701,
            Bool => 16,
            Date => 1082,
            Timestamptz => 1184,
            Uuid => 2950,
            _ => return None,
        })
    }

    /// Makes equal values equal bytes; `None` where they are already.
    pub fn canonical(self) -> Option<&'static str> {
        match self {
            Numeric => Some("round({}, 4)"),
            Float => Some("({} + 0::float8)"),
            Bpchar => Some("({})::char(10)"),
            Interval => Some("justify_interval({})"),
            _ => None,
        }
    }

    pub fn is_ordered(self) -> bool {
        self != Opaque
    }

    /// min() and max() exist.
    pub fn has_extremes(self) -> bool {
        !matches!(self, Opaque | Bool | Uuid | Bytea | Jsonb | Range | Pair)
    }

    /// Values as they stand between quotes, or bare for numbers and truth values.
    pub fn literals(self) -> &'static [&'static str] {
        match self {
            Int => &[
                "0", "1", "2", "3", "4", "5", "7", "10", "12", "40", "100", "-1",
            ],
            Wide => &[
                "0",
                "32767",
                "-2147483648",
                "9223372036854775807",
                "-9223372036854775808",
            ],
            Numeric => &["0", "1.5", "2", "10.25", "-3", "1.00"],
            Float => &["0", "1.5", "-2.25", "10"],
            Text | Opaque => &["a", "b", "B", "á", "", "click", "ana 1", "zz", "v1"],
            CText => &["apple", "Zebra", "é", ""],
            Bpchar => &["BR", "US", "F", "O", "ab"],
            Bool => &["true", "false"],
            Date => &["2020-01-01", "2020-06-15", "2024-02-01", "2004-05-06"],
            Timestamp => &["2020-01-01 00:00", "2020-02-15 12:30"],
            Timestamptz => &[
                "2022-01-08 07:00+00",
                "2023-06-01 12:00+00",
                "2024-01-01 00:00+00",
            ],
            Interval => &["1 mon", "30 days", "0", "1 day"],
            Time => &["00:16:17", "12:00"],
            Uuid => &["c4ca4238-a0b9-2382-0dcc-509a6f75849b"],
            Mood => &["sad", "ok", "happy"],
            Bytea => &["\\x", "\\xc4ca"],
            Money => &["0", "12.50"],
            Inet => &["10.0.0.1", "::1"],
            Jsonb => &["{\"a\": 1}", "null", "\"x\""],
            Ints => &["{}", "{1,2,3}", "{1,NULL}"],
            Texts => &["{}", "{vip}", "{new,beta}", "{NULL}"],
            Range => &["[1,5)", "empty", "(,3)"],
            Pair => &["(1,x)", "(2,)"],
        }
    }
}
