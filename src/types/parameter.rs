//! Values of parameters as sharding keys and row counts: the text and binary forms of a few types, and arrays of them.
//!
//! What cannot be read here is `None`, never an error: the caller then assumes nothing, and PostgreSQL judges the value.

use super::oid;

/// A value in the form a client sent it.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// OID of its type.
    pub type_oid: u32,
    /// 0 text, 1 binary.
    pub format: i16,
    /// The value itself.
    pub bytes: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// An int2, int4 or int8.
    pub fn integer(self) -> Option<i64> {
        match (self.format, self.type_oid) {
            (0, oid::INT2) => self.text()?.parse::<i16>().ok().map(i64::from),
            (0, oid::INT4) => self.text()?.parse::<i32>().ok().map(i64::from),
            (0, oid::INT8) => self.text()?.parse().ok(),
            (1, oid::INT2) => Some(i16::from_be_bytes(self.bytes.try_into().ok()?).into()),
            (1, oid::INT4) => Some(i32::from_be_bytes(self.bytes.try_into().ok()?).into()),
            (1, oid::INT8) => Some(i64::from_be_bytes(self.bytes.try_into().ok()?)),
            _ => None,
        }
    }

    /// A text or varchar, or an untyped literal standing for one.
    pub fn string(self) -> Option<&'a str> {
        match self.type_oid {
            oid::TEXT | oid::VARCHAR | oid::UNKNOWN => std::str::from_utf8(self.bytes).ok(),
            _ => None,
        }
    }

    /// A uuid.
    pub fn uuid(self) -> Option<[u8; 16]> {
        match (self.format, self.type_oid) {
            (0, oid::UUID) => parse_uuid(self.text()?),
            (1, oid::UUID) => self.bytes.try_into().ok(),
            _ => None,
        }
    }

    /// Days since 2000-01-01. In text only the ISO form, which every DateStyle reads alike.
    pub fn date(self) -> Option<i32> {
        match (self.format, self.type_oid) {
            (0, oid::DATE) => parse_iso_date(self.text()?),
            (1, oid::DATE) => Some(i32::from_be_bytes(self.bytes.try_into().ok()?)),
            _ => None,
        }
    }

    fn text(self) -> Option<&'a str> {
        let text = std::str::from_utf8(self.bytes).ok()?;
        Some(text.trim_matches(|c: char| c.is_ascii_whitespace()))
    }

    /// The elements of an array; those that are NULL are left out, since `= ANY` never finds them.
    pub fn elements(self) -> Option<Vec<Vec<u8>>> {
        match self.format {
            0 => text_elements(std::str::from_utf8(self.bytes).ok()?),
            1 => binary_elements(self.bytes),
            _ => None,
        }
    }
}

/// The type of an array's elements, for arrays of types that can be keys.
pub fn element_type(array: u32) -> Option<u32> {
    Some(match array {
        oid::INT2_ARRAY => oid::INT2,
        oid::INT4_ARRAY => oid::INT4,
        oid::INT8_ARRAY => oid::INT8,
        oid::TEXT_ARRAY => oid::TEXT,
        oid::VARCHAR_ARRAY => oid::VARCHAR,
        oid::UUID_ARRAY => oid::UUID,
        oid::DATE_ARRAY => oid::DATE,
        _ => return None,
    })
}

/// 32 hexadecimal digits with PostgreSQL's usual hyphens or none.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    let hyphens = [8, 13, 18, 23];
    let digits: Vec<u8> = match bytes.len() {
        32 => bytes.to_vec(),
        36 if hyphens.iter().all(|&i| bytes[i] == b'-') => {
            bytes.iter().copied().filter(|b| *b != b'-').collect()
        }
        _ => return None,
    };
    let digits = std::str::from_utf8(&digits)
        .ok()
        .filter(|d| d.len() == 32)?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

/// `YYYY-MM-DD` as days since 2000-01-01.
pub fn parse_iso_date(text: &str) -> Option<i32> {
    let mut parts = text.split('-');
    let mut part = |digits: std::ops::RangeInclusive<usize>| -> Option<i64> {
        let part = parts.next()?;
        let plain = digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        part.parse().ok().filter(|_| plain)
    };
    let (year, month, day) = (part(4..=7)?, part(2..=2)?, part(2..=2)?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let month_days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some()
        || !(1..=month_days).contains(&day)
        || !(1..=5_800_000).contains(&year)
    {
        return None;
    }
    i32::try_from(days_from_civil(year, month, day) - days_from_civil(2000, 1, 1)).ok()
}

/// Days of the proleptic Gregorian calendar, counted in 400-year eras of years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
}

fn binary_elements(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = bytes;
    let mut word = || -> Option<i32> {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        Some(i32::from_be_bytes(*head))
    };
    let dimensions = word()?;
    let (_flags, _element) = (word()?, word()?);
    let mut count: usize = usize::from(dimensions > 0);
    for _ in 0..usize::try_from(dimensions).ok().filter(|d| *d <= 6)? {
        count = count.checked_mul(usize::try_from(word()?).ok()?)?;
        word()?;
    }
    let mut elements = Vec::new();
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        if let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) {
            let (element, tail) = rest.split_at_checked(length)?;
            rest = tail;
            elements.push(element.to_vec());
        }
    }
    rest.is_empty().then_some(elements)
}

/// An array literal: `{1,NULL,"a \"b\""}`, nested ones flattened. Explicit bounds (`[0:1]={…}`) are not read.
fn text_elements(text: &str) -> Option<Vec<Vec<u8>>> {
    let bytes = text
        .trim_matches(|c: char| c.is_ascii_whitespace())
        .as_bytes();
    let mut elements = Vec::new();
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth > 0 => {}
            c if c.is_ascii_whitespace() => {}
            _ if depth <= 0 => return None,
            b'"' => {
                let (element, end) = quoted_element(bytes, at + 1)?;
                elements.push(element);
                at = end;
            }
            _ => {
                let (element, end) = bare_element(bytes, at)?;
                elements.extend(element);
                at = end;
            }
        }
        at += 1;
        if depth == 0 && at < bytes.len() {
            return None;
        }
    }
    (depth == 0 && !bytes.is_empty()).then_some(elements)
}

/// The element whose text begins at `at` inside quotes, and the place of the closing quote.
fn quoted_element(bytes: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut element = Vec::new();
    loop {
        match *bytes.get(at)? {
            b'"' => return Some((element, at)),
            b'\\' => {
                at += 1;
                element.push(*bytes.get(at)?);
            }
            byte => element.push(byte),
        }
        at += 1;
    }
}

/// The unquoted element at `at` (`None` for NULL), and the place of its last byte.
fn bare_element(bytes: &[u8], at: usize) -> Option<(Option<Vec<u8>>, usize)> {
    let length = bytes[at..].iter().position(|b| b",{}\"\\".contains(b))?;
    // What else may hide here (a backslash, a quote inside) is left to PostgreSQL.
    if !b",}".contains(&bytes[at + length]) {
        return None;
    }
    let text = bytes[at..at + length].trim_ascii_end();
    let null = text.eq_ignore_ascii_case(b"null");
    Some(((!null).then(|| text.to_vec()), at + length - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(text: &str) -> Option<Vec<String>> {
        let all = text_elements(text)?;
        Some(
            all.into_iter()
                .map(|e| String::from_utf8(e).unwrap())
                .collect(),
        )
    }

    #[test]
    fn array_literals_are_read() {
        let read = |text| elements(text).map(|e| e.join("|"));
        for (text, expected) in [
            ("{}", ""),
            ("{1,2,3}", "1|2|3"),
            (" { 1 , NULL , null , 3 } ", "1|3"),
            (r#"{"a b","NULL","x\"y","p\\q",z}"#, r#"a b|NULL|x"y|p\q|z"#),
            ("{{1,2},{3,4}}", "1|2|3|4"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "1", "{1", "[0:1]={1,2}", "{1}}", r"{a\,b}", "{1}{2}"] {
            assert_eq!(elements(text), None, "{text}");
        }
    }

    #[test]
    fn binary_arrays_are_read() {
        let mut array = Vec::new();
        for word in [1, 1, 20, 2, 1, -1, 8] {
            array.extend_from_slice(&i32::to_be_bytes(word));
        }
        array.extend_from_slice(&7_i64.to_be_bytes());
        let expected = vec![7_i64.to_be_bytes().to_vec()];
        assert_eq!(binary_elements(&array), Some(expected));
        assert_eq!(binary_elements(&array[..array.len() - 1]), None);
        let empty: Vec<u8> = [0, 0, 20]
            .iter()
            .flat_map(|w: &i32| w.to_be_bytes())
            .collect();
        assert_eq!(binary_elements(&empty), Some(vec![]));
    }

    #[test]
    fn dates_count_from_2000() {
        for (text, days) in [
            ("2000-01-01", Some(0)),
            ("1999-12-31", Some(-1)),
            ("2026-11-21", Some(9821)),
            ("2024-02-29", Some(8825)),
            ("2023-02-29", None),
            ("2023-2-9", None),
            ("01/02/2023", None),
            ("2023-02-09 BC", None),
        ] {
            assert_eq!(parse_iso_date(text), days, "{text}");
        }
    }

    #[test]
    fn numbers_outside_their_type_are_not_read() {
        let read = |type_oid, text: &str| {
            let (format, bytes) = (0, text.as_bytes());
            Encoded {
                type_oid,
                format,
                bytes,
            }
            .integer()
        };
        assert_eq!(read(oid::INT8, " -12 "), Some(-12));
        assert_eq!(read(oid::INT2, "40000"), None);
        assert_eq!(read(oid::INT4, "0x10"), None);
        assert_eq!(read(oid::NUMERIC, "1"), None);
    }

    #[test]
    fn uuids_are_read_in_their_usual_forms() {
        let uuid = 0x1234_5678_9abc_def0_1234_5678_9abc_def0_u128.to_be_bytes();
        assert_eq!(
            parse_uuid("12345678-9ABC-def0-1234-56789abcdef0"),
            Some(uuid)
        );
        assert_eq!(parse_uuid("123456789abcdef0123456789abcdef0"), Some(uuid));
        assert_eq!(parse_uuid("+23456789abcdef0123456789abcdef0"), None);
        assert_eq!(parse_uuid("1234-56789abc-def0-1234-56789abcdef0"), None);
    }
}
