//! What comments tell the proxy: `/* pgbraid shard=s1 */` before a statement, and the trace that an application's belongs to, anywhere.

use pg_query::protobuf::Token;

use super::ParseError;
use crate::protocol::sqlstate;

/// The shard that a comment before a statement's first word sends it to. All other comments are the application's.
///
/// # Errors
/// 42601 for a comment of pgbraid's that asks for something else.
pub fn shard_by_comment(sql: &str) -> Result<Option<&str>, ParseError> {
    let mut found = None;
    for comment in Leading(sql) {
        let Some(pairs) = pairs_of(comment) else {
            continue;
        };
        for pair in pairs.split_whitespace() {
            match pair.split_once('=') {
                Some(("shard", name)) => found = Some(name.trim_matches('\'')),
                _ => {
                    return Err(ParseError {
                        sqlstate: sqlstate::SYNTAX_ERROR,
                        message: format!("\"{pair}\" in a comment for pgbraid is not known"),
                        position: None,
                    });
                }
            }
        }
    }
    Ok(found)
}

/// The `traceparent` of W3C's Trace Context in a comment, in the form of sqlcommenter: `/*traceparent='00-…-…-01'*/`.
pub fn traceparent(sql: &str) -> Option<&str> {
    const KEY: &str = "traceparent='";
    // Nearly always that is all.
    if !sql.contains(KEY) {
        return None;
    }
    let tokens = pg_query::scan(sql).ok()?.tokens;
    let comments = tokens
        .iter()
        .filter(|t| matches!(t.token(), Token::SqlComment | Token::CComment));
    let mut texts = comments.filter_map(|t| sql.get(t.start as usize..t.end as usize));
    texts.find_map(|text| {
        let (_, rest) = text.split_once(KEY)?;
        rest.split_once('\'').map(|(value, _)| value)
    })
}

/// A statement without the comments before it.
#[cfg(feature = "otlp")]
pub fn behind_comments(sql: &str) -> &str {
    let mut comments = Leading(sql);
    while comments.next().is_some() {}
    comments.0.trim_start()
}

/// What follows the word in `pgbraid key=value`; `None` for prose that begins with it, too.
fn pairs_of(comment: &str) -> Option<&str> {
    let rest = comment.trim().strip_prefix("pgbraid")?;
    let is_word = rest.starts_with(char::is_whitespace);
    let first = rest.split_whitespace().next()?;
    (is_word && first.contains('=')).then_some(rest)
}

/// The comments before the first word, without their marks.
struct Leading<'a>(&'a str);

impl<'a> Iterator for Leading<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let (comment, rest) = match (text.strip_prefix("--"), text.strip_prefix("/*")) {
            (Some(line), _) => line.split_once(['\n', '\r']).unwrap_or((line, "")),
            (_, Some(block)) => {
                let end = end_of_block(block)?;
                (block.get(..end)?, block.get(end + 2..)?)
            }
            _ => return None,
        };
        self.0 = rest;
        Some(comment)
    }
}

/// Where the `*/` stands that ends a block comment; those within it have theirs, too.
fn end_of_block(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    let mut at = 0;
    loop {
        at += text.get(at..)?.find(['*', '/'])?;
        let step = match text.get(at..at + 2) {
            Some("*/") if depth == 1 => return Some(at),
            Some("*/") => {
                depth -= 1;
                2
            }
            Some("/*") => {
                depth += 1;
                2
            }
            _ => 1,
        };
        at += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(sql: &str) -> Option<&str> {
        shard_by_comment(sql).expect("a comment that is understood")
    }

    #[test]
    fn a_comment_before_the_statement_names_a_shard() {
        for sql in [
            "/* pgbraid shard=s1 */ select 1",
            "/*pgbraid shard=s1*/select 1",
            "\n-- pgbraid shard=s1\nselect 1",
            "/* app='x' *//* pgbraid shard='s1' */ select 1",
            "-- é\n /* a /* b */ c */ /* pgbraid shard=s1 */ select 1",
        ] {
            assert_eq!(shard(sql), Some("s1"), "{sql}");
        }
    }

    #[test]
    fn other_comments_are_none_of_ours() {
        for sql in [
            "select 1 /* pgbraid shard=s1 */",
            "select /* pgbraid shard=s1 */ 1",
            "/* traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' */ select 1",
            "/* pgbraid is in front of it */ select 1",
            "/* pgbraids shard=s1 */ select 1",
            "/* pgbraid */ select 1",
            "/* pgbraid shard=s1 select 1",
            "/* never /* closed */ select 1",
            "--",
            "/*",
            "",
        ] {
            assert_eq!(shard(sql), None, "{sql}");
        }
    }

    #[test]
    fn an_applications_trace_is_found_in_comments_only() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for sql in [
            format!("select 1 /*action='a',traceparent='{header}'*/"),
            format!("/* traceparent='{header}' */ select 1"),
            format!("select 1 -- traceparent='{header}'"),
        ] {
            assert_eq!(traceparent(&sql), Some(header), "{sql}");
        }
        for sql in [
            "select 'traceparent=''x'",
            "select $$ traceparent='x' $$",
            "select 1 /* traceparent='x */",
            "select 1",
        ] {
            assert_eq!(traceparent(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_comment_of_ours_with_another_word_is_an_error() {
        for sql in [
            "/* pgbraid shrad=s1 */ select 1",
            "/* pgbraid shard=s1 fast */ select 1",
        ] {
            assert_eq!(
                shard_by_comment(sql).unwrap_err().sqlstate,
                "42601",
                "{sql}"
            );
        }
    }
}
