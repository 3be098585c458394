//! A statement's text without its literals: what may be shown to operators and written to logs.

use pg_query::protobuf::Token;

/// Longer texts are not looked at: only how they begin is shown.
const SCANNED_BYTES_MAX: usize = 256 << 10;
/// What is shown is cut behind so many bytes.
const SHOWN_BYTES_MAX: usize = 8 << 10;

/// The text with `$n` for every literal (numbered behind its parameters), and without comments, which may hold anything. Also of
/// statements that do not parse: a text is cut into tokens, no more. What cannot be cut is shown by its first word only.
pub fn without_literals(sql: &str) -> String {
    let replaced = (sql.len() <= SCANNED_BYTES_MAX).then(|| replaced(sql));
    match replaced.flatten() {
        Some(text) => cut(text),
        None => format!("{} … ({} bytes)", first_word(sql), sql.len()),
    }
}

fn replaced(sql: &str) -> Option<String> {
    let tokens = pg_query::scan(sql).ok()?.tokens;
    let parameter = |t: &pg_query::protobuf::ScanToken| {
        let text = sql.get(t.start as usize..t.end as usize)?;
        text.strip_prefix('$')?.parse::<u32>().ok()
    };
    let mut number = tokens.iter().filter_map(parameter).max().unwrap_or(0);
    let mut out = String::with_capacity(sql.len());
    let mut copied = 0;
    for token in &tokens {
        let (start, end) = (token.start as usize, token.end as usize);
        let is_literal = matches!(
            token.token(),
            Token::Sconst
                | Token::Usconst
                | Token::Bconst
                | Token::Xconst
                | Token::Iconst
                | Token::Fconst
        );
        let is_comment = matches!(token.token(), Token::SqlComment | Token::CComment);
        if !is_literal && !is_comment {
            continue;
        }
        out.push_str(sql.get(copied..start)?);
        copied = end;
        if is_literal {
            number += 1;
            out.push_str(&format!("${number}"));
        }
    }
    out.push_str(sql.get(copied..)?);
    Some(out.trim().to_owned())
}

fn first_word(sql: &str) -> &str {
    let start = sql.trim_start();
    let end = start.find(|c: char| !c.is_ascii_alphabetic());
    &start[..end.unwrap_or(start.len()).min(20)]
}

fn cut(mut text: String) -> String {
    if text.len() > SHOWN_BYTES_MAX {
        let is_end = |at: &usize| text.is_char_boundary(*at);
        let end = (0..=SHOWN_BYTES_MAX).rev().find(is_end);
        text.truncate(end.unwrap_or(0));
        text.push_str(" …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_literal_is_replaced() {
        for (sql, shown) in [
            (
                "select a from t where b = 'x''y' and c > -5.5 and d = $2 limit 3",
                "select a from t where b = $3 and c > -$4 and d = $2 limit $5",
            ),
            ("SET app.secret = 'abc'", "SET app.secret = $1"),
            (
                "create role x password 'hidden'",
                "create role x password $1",
            ),
            ("do $$begin secret; end$$", "do $1"),
            (
                "select E'\\'x', X'1F', B'01', U&'\\0041'",
                "select $1, $2, $3, $4",
            ),
            // Wrong as it is, it may be somebody's data.
            ("selec 'x' fro", "selec $1 fro"),
            ("/* 'a' */ select 1 -- 2", "select $1"),
            ("select \"ä 1\"", "select \"ä 1\""),
        ] {
            assert_eq!(without_literals(sql), shown);
        }
    }

    #[test]
    fn what_cannot_be_cut_into_tokens_is_not_shown() {
        assert_eq!(without_literals("select 'secret"), "select … (14 bytes)");
        let long = format!("insert into t values ('{}')", "x".repeat(SCANNED_BYTES_MAX));
        let shown = without_literals(&long);
        assert!(shown.starts_with("insert … ("), "{shown}");
        let wide = format!("select {}a", "a, ".repeat(10_000));
        assert!(without_literals(&wide).len() < SHOWN_BYTES_MAX + 10);
    }
}
