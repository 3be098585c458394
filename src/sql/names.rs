//! The names that a function's source contains: enough to say which tables and functions it may use, whatever it does.

use pg_query::protobuf::{KeywordKind, Token};

/// Longest name; PostgreSQL cuts longer ones.
const NAME_BYTES_MAX: usize = 63;

/// Words of statements that change something, or run a text that only the moment knows.
const REFUSED: [&str; 30] = [
    "alter",
    "analyze",
    "call",
    "cluster",
    "comment",
    "commit",
    "copy",
    "create",
    "deallocate",
    "delete",
    "discard",
    "do",
    "drop",
    "execute",
    "grant",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "notify",
    "prepare",
    "refresh",
    "reset",
    "revoke",
    "rollback",
    "set",
    "truncate",
    "unlisten",
    "update",
];

/// Names and operators in the source of a function in SQL or PL/pgSQL, each once, as PostgreSQL stores them; words of the
/// language are among them, for tables may have their names. `None` where they do not tell what the function does.
pub fn names_in_source(source: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    each_name(source, |name, keyword| {
        let told = !(keyword && REFUSED.contains(&&*name)) && name.len() <= NAME_BYTES_MAX;
        names.push(name);
        told
    })?;
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// The same of any text and in its order, repeated as they are there. `None` where one is hidden by escapes.
pub fn names_in_order(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    each_name(text, |name, _| {
        // A longer one would be cut.
        let whole = name.len() <= NAME_BYTES_MAX;
        names.push(name);
        whole
    })?;
    Some(names)
}

/// Calls `f` with each name or operator and whether it is a word of the language, until it returns false.
fn each_name(source: &str, mut f: impl FnMut(String, bool) -> bool) -> Option<()> {
    let scanned = pg_query::scan(source).ok()?;
    for token in &scanned.tokens {
        let start = usize::try_from(token.start).ok()?;
        let text = source.get(start..usize::try_from(token.end).ok()?)?;
        let keyword = token.keyword_kind != KeywordKind::NoKeyword as i32;
        let name = match Token::try_from(token.token).ok()? {
            Token::SqlComment | Token::CComment => continue,
            Token::Uident | Token::Usconst => return None,
            Token::Sconst => match is_moment(text) {
                true => "now".to_owned(),
                false => continue,
            },
            Token::Ident if text.starts_with('"') => unquoted(text)?,
            _ => text.to_ascii_lowercase(),
        };
        if !f(name, keyword) {
            return None;
        }
    }
    Some(())
}

fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\"\"", "\""))
}

/// A constant that, cast to a date or time, is the moment it is read at.
fn is_moment(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["now", "today", "tomorrow", "yesterday"]
        .iter()
        .any(|m| text.contains(m))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_postgresql_stores_them() {
        let names = names_in_source(
            "declare n int := 0; -- from hidden\nbegin select COUNT(*) into n from \"My \"\"T\", Users; return n === 1; end",
        )
        .expect("plain");
        for name in ["n", "count", "My \"T", "users", "===", "select"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
        assert!(!names.iter().any(|n| n == "hidden"));
    }

    #[test]
    fn what_changes_data_or_runs_texts_is_not_told() {
        for source in [
            "begin execute 'select 1'; end",
            "insert into t values (1)",
            "select set_config('a', 'b', false); set a = b",
            "select U&\"\\0061\"",
            "select 'unterminated",
        ] {
            assert_eq!(names_in_source(source), None, "{source}");
        }
    }

    #[test]
    fn the_clock_is_a_name_too() {
        let names = names_in_source("select 'today'::date").expect("plain");
        assert!(names.iter().any(|n| n == "now"));
    }
}
