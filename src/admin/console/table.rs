//! What a SHOW answers: columns with a type, rows of values.

use std::cmp::Ordering;

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Not there, or not known.
    Null,
    /// A count, a duration in the unit of its column's name, or 0 and 1 for no and yes.
    Integer(i64),
    /// A ratio.
    Float(f64),
    /// A name or a text.
    Text(String),
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// int8
    Integer,
    /// float8
    Float,
    /// text
    Text,
}

/// A column of a [`Table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// In lower case.
    pub name: &'static str,
    /// Of all its values that are not NULL.
    pub kind: Type,
}

/// Rows of a SHOW.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// In their order.
    pub columns: Vec<Column>,
    /// Each with a value for every column.
    pub rows: Vec<Vec<Value>>,
}

impl Value {
    /// As the text of a DataRow; `None` is NULL.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Integer(n) => Some(n.to_string()),
            Self::Float(n) => Some(n.to_string()),
            Self::Text(text) => Some(text.clone()),
        }
    }

    /// As a number; `None` for a text and NULL.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(n) => Some(*n as f64),
            Self::Float(n) => Some(*n),
            Self::Null | Self::Text(_) => None,
        }
    }

    /// In which order two values of a column stand; `None` where one is NULL.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (a, b) => Some(a.number()?.total_cmp(&b.number()?)),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Self::Float(n)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Integer(i64::from(is))
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl From<$type> for Value {
            fn from(n: $type) -> Self {
                // More than an int8 holds nothing here comes to.
                Self::Integer(i64::try_from(n).unwrap_or(i64::MAX))
            }
        }
    )*};
}

integers!(i32, i64, u16, u64, usize, u128);

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Table {
    /// Without rows.
    pub fn new(columns: &[(&'static str, Type)]) -> Self {
        let column = |&(name, kind)| Column { name, kind };
        Self {
            columns: columns.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, which has a value for every column.
    pub fn push(&mut self, row: Vec<Value>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// A row for which each value stands beside its column's name, so that the two cannot drift apart; for tables of one row.
    pub fn of_row(row: Vec<(&'static str, Value)>) -> Self {
        let kind = |value: &Value| match value {
            Value::Integer(_) => Type::Integer,
            Value::Float(_) => Type::Float,
            Value::Null | Value::Text(_) => Type::Text,
        };
        let columns: Vec<_> = row.iter().map(|(name, v)| (*name, kind(v))).collect();
        let mut table = Self::new(&columns);
        table.push(row.into_iter().map(|(_, value)| value).collect());
        table
    }
}
