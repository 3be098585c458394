//! A value of the file or the environment before it is checked.

use toml::de::DeValue;

/// A value before it is checked.
pub(super) enum Scalar<'v> {
    Text(&'v str),
    Integer(i64),
    Boolean(bool),
    /// Always text: it may stand for any of the above.
    Variable(&'v str),
    /// The name of a TOML type that no scalar key takes.
    Other(&'static str),
}

pub(super) fn scalar<'r>(value: &'r DeValue<'_>) -> Scalar<'r> {
    match value {
        DeValue::String(text) => Scalar::Text(text),
        DeValue::Boolean(b) => Scalar::Boolean(*b),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Scalar::Other("integer beyond 64 bits"), Scalar::Integer),
        other => Scalar::Other(other.type_str()),
    }
}

impl<'v> Scalar<'v> {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) | Self::Variable(text) => (*text).to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(is) => is.to_string(),
            Self::Other(_) => String::new(),
        }
    }

    pub(super) fn text(&self) -> Option<&'v str> {
        match self {
            Scalar::Text(text) | Scalar::Variable(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn integer(&self) -> Option<u64> {
        match self {
            Scalar::Integer(n) => u64::try_from(*n).ok(),
            Scalar::Variable(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// What was found, for a message; never the value of a secret.
    pub(super) fn describe(&self, key: &str) -> String {
        match self {
            Scalar::Text(_) | Scalar::Variable(_) if key == "password" => "is not right".into(),
            Scalar::Text("") | Scalar::Variable("") => "is empty".into(),
            Scalar::Text(text) | Scalar::Variable(text) => format!("is {text:?}"),
            Scalar::Integer(n) => format!("is the number {n}"),
            Scalar::Boolean(b) => format!("is {b}"),
            Scalar::Other(kind) => format!("is of type {kind}"),
        }
    }
}
