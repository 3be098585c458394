//! A cheap upper bound of how deep the tree of a text will be, before anything recursive looks at it.

/// Words behind which an expression starts anew at the same depth of the tree (the parser keeps AND and OR lists flat).
const RESTART: [&str; 7] = ["and", "or", "when", "then", "where", "from", "select"];

/// Words that nest clauses rather than expressions: chains of them lean to the left.
const CLAUSE: [&str; 8] = [
    "join",
    "union",
    "intersect",
    "except",
    "case",
    "else",
    "with",
    "explain",
];

#[derive(Default, Clone, Copy)]
struct Level {
    clauses: usize,
    expression: usize,
}

/// Estimates the depth: for each open parenthesis the operators and words since the last comma, summed over the nesting.
pub(super) fn estimate(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut outer = 0;
    let mut stack: Vec<Level> = Vec::new();
    let mut level = Level::default();
    let mut deepest = 0;
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        i = match b {
            b'\'' | b'"' => after_quoted(bytes, i),
            b'-' if bytes.get(i + 1) == Some(&b'-') => after_line(bytes, i),
            b'/' if bytes.get(i + 1) == Some(&b'*') => after_comment(bytes, i),
            b'$' => after_dollar(text, i),
            b'(' | b'[' => {
                outer += level.clauses + level.expression + 1;
                stack.push(std::mem::take(&mut level));
                i + 1
            }
            b')' | b']' => {
                if let Some(above) = stack.pop() {
                    outer -= above.clauses + above.expression + 1;
                    // What was in parentheses hangs below the next operator of the same chain.
                    level = above;
                    level.expression += 1;
                }
                i + 1
            }
            b',' | b';' => {
                level.expression = 0;
                i + 1
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => after_word(text, i, &mut level),
            b'0'..=b'9' | b'.' | b' ' | b'\t' | b'\r' | b'\n' => i + 1,
            _ => {
                level.expression += 1;
                i + 1
            }
        };
        deepest = deepest.max(outer + level.clauses + level.expression);
    }
    deepest
}

fn after_word(text: &str, start: usize, level: &mut Level) -> usize {
    let bytes = text.as_bytes();
    let mut end = start;
    while bytes
        .get(end)
        .is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'$' || *b >= 0x80)
    {
        end += 1;
    }
    let word = text.get(start..end).unwrap_or("");
    // E'…' knows backslash escapes; the other prefixes read like plain strings.
    if word.eq_ignore_ascii_case("e") && bytes.get(end) == Some(&b'\'') {
        return after_escape_string(bytes, end);
    }
    if RESTART.iter().any(|w| word.eq_ignore_ascii_case(w)) {
        level.expression = 0;
    } else if CLAUSE.iter().any(|w| word.eq_ignore_ascii_case(w)) {
        level.clauses += 1;
        level.expression = 0;
    } else {
        level.expression += 1;
    }
    end
}

fn after_quoted(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    memchr::memchr(quote, &bytes[start + 1..]).map_or(bytes.len(), |n| start + n + 2)
}

fn after_escape_string(bytes: &[u8], start: usize) -> usize {
    let mut i = start + 1;
    while let Some(&b) = bytes.get(i) {
        match b {
            b'\\' => i += 2,
            b'\'' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

fn after_line(bytes: &[u8], start: usize) -> usize {
    memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |n| start + n + 1)
}

/// Skips a block comment; they nest.
fn after_comment(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut i = start;
    while i < bytes.len() {
        match bytes.get(i..i + 2) {
            Some(b"/*") => {
                depth += 1;
                i += 2;
            }
            Some(b"*/") => {
                depth = depth.saturating_sub(1);
                i += 2;
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    bytes.len()
}

/// Skips a dollar-quoted string; a parameter (`$1`) or stray dollar is one byte.
fn after_dollar(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut end = start + 1;
    while bytes
        .get(end)
        .is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80)
    {
        end += 1;
    }
    if bytes.get(end) != Some(&b'$') || bytes.get(start + 1).is_some_and(u8::is_ascii_digit) {
        return start + 1;
    }
    let (Some(tag), Some(rest)) = (text.get(start..=end), text.get(end + 1..)) else {
        return start + 1;
    };
    rest.find(tag)
        .map_or(text.len(), |n| end + 1 + n + tag.len())
}

#[cfg(test)]
mod tests {
    use super::estimate;

    #[test]
    fn chains_and_parentheses_add_up_lists_do_not() {
        assert!(
            estimate("select a, b, c from t where x = 1 and y = 2 and z in (1, 2, 3, 4, 5, 6)")
                < 15
        );
        assert!(estimate("select 1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1") > 14);
        assert!(estimate(&"(".repeat(500)) >= 500);
        assert!(
            estimate(
                "select ')', (((1))), $$((((((((((((((((((((((($$, '((((((((((((((((((((((((((((((((((((('"
            ) < 20
        );
    }
}
