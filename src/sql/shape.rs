//! What statements that differ in their literals have in common: `a = 5` and `a = 6` are both `a = $1`.
//!
//! Only literals right behind a comparison count. A parameter there has the type of what it is compared with, as an untyped literal has,
//! and it changes neither a column's type nor its name; anywhere else (a type's modifier, an ordinal in ORDER BY, a select list) a literal's
//! value may decide what a statement returns. A text with anything unusual in it (comments, dollar quotes, strings with a prefix or
//! continued on the next line, several statements) has no shape.

/// A SELECT with parameters for the literals it compares with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The statement's text with `$1`, `$2` … in their places.
    pub text: String,
    /// The literals in their order.
    pub values: Vec<Literal>,
}

/// A literal that a parameter stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// Of a number's type in any case.
    Integer(String),
    /// A string without its quotes: of no type by itself, as a parameter is.
    String(String),
}

/// Longer integers are not of the type int8.
const DIGITS_MAX: usize = 18;

/// The shape of one SELECT without a semicolon; `None` where it has no such literal, or anything unusual.
pub fn shape(sql: &str) -> Option<Shape> {
    let word = sql.trim_start().get(..6)?;
    if !word.eq_ignore_ascii_case("select") {
        return None;
    }
    let mut reader = Reader {
        sql,
        at: 0,
        compared: false,
        copied: 0,
        shape: Shape {
            text: String::with_capacity(sql.len() + 8),
            values: Vec::new(),
        },
    };
    while let Some(&byte) = sql.as_bytes().get(reader.at) {
        reader.token(byte)?;
    }
    if reader.shape.values.is_empty() {
        return None;
    }
    reader.shape.text.push_str(&sql[reader.copied..]);
    Some(reader.shape)
}

struct Reader<'a> {
    sql: &'a str,
    at: usize,
    /// The token before was a comparison.
    compared: bool,
    /// Up to here the text has been copied.
    copied: usize,
    shape: Shape,
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

fn is_operator(byte: u8) -> bool {
    b"+-*/<>=~!@#%^&|`?".contains(&byte)
}

impl Reader<'_> {
    /// The end of the run of bytes from `at` on for which `f` holds.
    fn run(&self, f: impl Fn(u8) -> bool) -> usize {
        let rest = &self.sql.as_bytes()[self.at..];
        self.at + rest.iter().position(|b| !f(*b)).unwrap_or(rest.len())
    }

    fn token(&mut self, byte: u8) -> Option<()> {
        let end = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => {
                self.at += 1;
                return Some(());
            }
            b'\'' => return self.string(),
            b'0'..=b'9' => return self.number(),
            b'"' => self.quoted(b'"')?,
            b'$' | b';' | 0 => return None,
            _ if is_name(byte) => self.run(is_name),
            _ if is_operator(byte) => return self.operator(),
            _ => self.at + 1,
        };
        self.at = end;
        self.compared = false;
        Some(())
    }

    fn operator(&mut self) -> Option<()> {
        let end = self.run(is_operator);
        let operator = &self.sql[self.at..end];
        if operator.contains("--") || operator.contains("/*") {
            return None;
        }
        // `name := value` passes an argument.
        let assigns = self.sql[..self.at].ends_with(':');
        self.compared = !assigns && matches!(operator, "=" | "<" | ">" | "<=" | ">=" | "<>" | "!=");
        self.at = end;
        Some(())
    }

    /// The end of a quoted token; a doubled quote stands for itself.
    fn quoted(&self, quote: u8) -> Option<usize> {
        let bytes = self.sql.as_bytes();
        let mut at = self.at + 1;
        loop {
            at += bytes.get(at..)?.iter().position(|b| *b == quote)? + 1;
            if bytes.get(at) != Some(&quote) {
                return Some(at);
            }
            at += 1;
        }
    }

    fn string(&mut self) -> Option<()> {
        let end = self.quoted(b'\'')?;
        let prefixed =
            self.sql[..self.at].ends_with(|c: char| !c.is_ascii() || is_name(c as u8) || c == '&');
        let continued = self.sql[end..].trim_start().starts_with('\'');
        if prefixed || continued {
            return None;
        }
        let value = self.sql[self.at + 1..end - 1].replace("''", "'");
        self.literal(end, Literal::String(value));
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        // All that could belong to a number, or be wrong behind one.
        let end = self.run(|b| is_name(b) || b == b'.');
        let text = &self.sql[self.at..end];
        let is_integer = text.len() <= DIGITS_MAX && text.bytes().all(|b| b.is_ascii_digit());
        match is_integer {
            true => self.literal(end, Literal::Integer(text.to_owned())),
            false => {
                self.at = end;
                self.compared = false;
            }
        }
        Some(())
    }

    fn literal(&mut self, end: usize, value: Literal) {
        if std::mem::take(&mut self.compared) {
            self.shape.values.push(value);
            let number = self.shape.values.len();
            self.shape.text.push_str(&self.sql[self.copied..self.at]);
            self.shape.text.push_str(&format!("${number}"));
            self.copied = end;
        }
        self.at = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(sql: &str) -> Option<(String, Vec<String>)> {
        let text = |literal| match literal {
            Literal::Integer(value) => value,
            Literal::String(value) => format!("'{value}'"),
        };
        shape(sql).map(|s| (s.text, s.values.into_iter().map(text).collect()))
    }

    fn found(text: &str, values: &[&str]) -> Option<(String, Vec<String>)> {
        Some((text.into(), values.iter().map(|v| (*v).into()).collect()))
    }

    #[test]
    fn literals_behind_comparisons_become_parameters() {
        assert_eq!(
            of("select a, 1 from t where a=42 and b <> 'it''s' or \"c=1\" >= 7::int limit 5"),
            found(
                "select a, 1 from t where a=$1 and b <> $2 or \"c=1\" >= $3::int limit 5",
                &["42", "'it's'", "7"]
            )
        );
    }

    #[test]
    fn other_literals_stay() {
        for sql in [
            "select 1, 'a' from t order by 1 limit 3",
            "select f(a := 5, b => 6), a = 5.0, b = 1e3, c = .5, d = 1.5, e =-1, f = 0x1f from t",
            "select a = 1234567890123456789 from t",
            "select a::varchar(3) from t where b in (1, 2) and c @> '{1}' and d ~ 'x'",
            "update t set a = 5",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
    }

    #[test]
    fn the_unusual_has_no_shape() {
        for sql in [
            "select a from t where a = 5; select 1",
            "select a from t where a = 5 -- comment",
            "select a from t where a = 5 /* comment */",
            "select a from t where a = $1 and b = 5",
            "select a from t where b = 5 and a = $$x$$",
            "select a from t where b = 5 and a = E'x'",
            "select a from t where b = 5 and a = U&'x'",
            "select a from t where a = 'x'\n'y'",
            "select a from t where a = 5 and b = 'open",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
    }

    /// PostgreSQL's own scanner cuts the text at the same places.
    fn tokens(sql: &str) -> Option<Vec<(usize, usize, bool)>> {
        let scanned = pg_query::scan(sql).ok()?;
        let constant = |token: i32| {
            use pg_query::protobuf::Token;
            token == Token::Iconst as i32 || token == Token::Sconst as i32
        };
        let tokens = scanned.tokens.iter();
        Some(
            tokens
                .map(|t| (t.start as usize, t.end as usize, constant(t.token)))
                .collect(),
        )
    }

    proptest! {
        #[test]
        fn what_is_cut_out_is_a_token_behind_a_comparison(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "a", "b1", "\"q\"", " ", " ", "=", "<", ">", "<=", "<>", "!=", "-", "+", "@", ":", "::", "(", ")", ",", ".", "5",
                    "42", "1.5", "'s'", "'it''s'", "e", "E", "U&", "''", "\n", "|", "?", "in", "$", "x'", "--", "/*", "*/", "é", "'é'",
                ]),
                0..14,
            )
        ) {
            let sql = format!("select {}", parts.concat());
            if let Some(shape) = shape(&sql) {
                let Some(tokens) = tokens(&sql) else {
                    // PostgreSQL refuses the text as it is.
                    return Ok(());
                };
                let mut rebuilt = shape.text.clone();
                let mut places = Vec::new();
                for (n, value) in shape.values.iter().enumerate() {
                    let mark = format!("${}", n + 1);
                    let at = rebuilt.find(&mark).expect("its mark");
                    let literal = match value {
                        Literal::String(value) => format!("'{}'", value.replace('\'', "''")),
                        Literal::Integer(value) => value.clone(),
                    };
                    places.push((at, at + literal.len()));
                    rebuilt.replace_range(at..at + mark.len(), &literal);
                }
                prop_assert_eq!(&rebuilt, &sql);
                for (start, end) in places {
                    let index = tokens.iter().position(|t| (t.0, t.1) == (start, end));
                    prop_assert!(index.is_some_and(|i| tokens[i].2 && i > 0), "{sql}: no token at {start}");
                    let before = tokens[index.unwrap_or(1) - 1];
                    let operator = &sql[before.0..before.1];
                    prop_assert!(["=", "<", ">", "<=", ">=", "<>", "!="].contains(&operator), "{sql}: behind {operator}");
                }
            }
        }
    }
}
