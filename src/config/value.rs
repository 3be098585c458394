//! The forms of single values: durations, sizes, addresses, SQL names. Pure text in, value out.

use std::time::Duration;

/// What [`duration`] takes, for messages.
pub(super) const DURATION: &str =
    "a duration such as \"10s\", \"500ms\", \"5min\", \"1h\" or \"2d\"";
/// What [`size`] takes, for messages.
pub(super) const SIZE: &str = "a size such as \"64KiB\", \"256MiB\" or \"1GiB\"";
/// What [`address`] takes, for messages.
pub(super) const ADDRESS: &str = "host:port, such as \"127.0.0.1:6432\" or \"[::1]:6432\"";

/// What [`permissions`] takes, for messages.
pub(super) const PERMISSIONS: &str = "permissions as chmod has them, such as \"0777\" or \"0770\"";

/// Reads permissions of a file: three octal digits, with a zero before them or not.
pub(super) fn permissions(text: &str) -> Option<u32> {
    let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let bits = u32::from_str_radix(text, 8).ok()?;
    (octal && matches!(text.len(), 3 | 4) && bits <= 0o777).then_some(bits)
}

/// Reads a whole number with PostgreSQL's units of time; 0 needs none.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let micros: u64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        "" if number == 0 => 0,
        _ => return None,
    };
    number.checked_mul(micros).map(Duration::from_micros)
}

/// Reads a number of bytes. As in PostgreSQL the units are powers of 1024, with or without the `i`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let shift = match unit {
        "" | "B" => 0,
        "kB" | "KB" | "KiB" => 10,
        "MB" | "MiB" => 20,
        "GB" | "GiB" => 30,
        "TB" | "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Splits `host:port`. A host with colons must be in brackets; they are taken off.
pub(super) fn address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .filter(|h| h.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => host,
    };
    let plain = !text.starts_with('[');
    let bad = host.is_empty()
        || host.contains(char::is_whitespace)
        || plain && host.contains([':', '/', '[', ']', '*'])
        || plain && all_digits_and_dots(host) && host.parse::<std::net::Ipv4Addr>().is_err();
    (!bad).then_some((host, port))
}

/// A host that looks like an IPv4 address must be one: `127.0.0.256` is a typing mistake, not a name.
pub(super) fn all_digits_and_dots(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Reads a name as SQL does: parts between dots, folded to lower case unless in double quotes.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn sql_name(text: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, tail) = identifier(rest)?;
        parts.push(part);
        let tail = tail.trim_start();
        match tail.strip_prefix('.') {
            Some(next) => rest = next.trim_start(),
            None if tail.is_empty() => return Ok(parts),
            None => return Err(format!("has `{tail}` behind the name")),
        }
    }
}

/// One identifier and what follows it.
fn identifier(text: &str) -> Result<(String, &str), String> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted_identifier(quoted)?,
        None => {
            let end = text.find(|c| !is_name_char(c)).unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            if name.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
                return Err(format!("starts with `{}`", &name[..1]));
            }
            // Only ASCII letters are folded, as PostgreSQL does under UTF-8.
            (name.to_ascii_lowercase(), rest)
        }
    };
    match name.len() {
        0 => Err("has an empty name in it".into()),
        1..=63 => Ok((name, rest)),
        // PostgreSQL would cut it silently; a name that matches nothing is no help here.
        n => Err(format!("has {n} bytes, PostgreSQL's names have at most 63")),
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// What stands up to the closing quote (a doubled quote is one), and the rest.
fn quoted_identifier(text: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Ok((name, &text[at + 1..]));
        }
    }
    Err("has an opening quote without a closing one".into())
}

/// The part of an environment variable's name that stands for `name`: `public."Order Items"` is `PUBLIC_ORDER_ITEMS`.
pub(super) fn variable_part(name: &str) -> String {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("_")
        .to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("5 min"), Some(Duration::from_secs(300)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for bad in [
            "10",
            "s",
            "-1s",
            "1.5s",
            "10m",
            "99999999999999999999d",
            "99999999999d",
            "",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("256MiB"), Some(256 << 20));
        assert_eq!(size("256MB"), Some(256 << 20));
        assert_eq!(size("1 GiB"), Some(1 << 30));
        assert_eq!(size("512"), Some(512));
        for bad in ["MiB", "1mib", "-1", "1.5GiB", "99999999999TiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!(permissions("0770"), Some(0o770));
        assert_eq!(permissions("700"), Some(0o700));
        for bad in ["", "77", "0888", "1777", "+770", "0o770", "rwx"] {
            assert_eq!(permissions(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(address("127.0.0.1:6432"), Some(("127.0.0.1", 6432)));
        assert_eq!(address("[::1]:6432"), Some(("::1", 6432)));
        assert_eq!(address("db.example:0"), Some(("db.example", 0)));
        for bad in [
            "6432",
            ":6432",
            "::1:6432",
            "h:70000",
            "h:",
            "127.0.0.256:1",
            "*:6432",
            "a b:1",
            "[x]:1",
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_fold_and_quotes_keep() {
        let name = |text| sql_name(text).map(|p| p.join("|"));
        assert_eq!(name("Public.Orders").as_deref(), Ok("public|orders"));
        assert_eq!(
            name(r#"public."Order Items""#).as_deref(),
            Ok("public|Order Items")
        );
        assert_eq!(name(r#""a.b""c" . D"#).as_deref(), Ok("a.b\"c|d"));
        for bad in [
            "",
            ".",
            "a.",
            "1a",
            "a b",
            r#""a"#,
            r#""""#,
            "a,b",
            &"x".repeat(64),
        ] {
            assert!(sql_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_spell_names_in_capitals() {
        assert_eq!(
            variable_part(r#"public."Order Items""#),
            "PUBLIC_ORDER_ITEMS"
        );
        assert_eq!(variable_part("s1-east"), "S1_EAST");
    }
}
