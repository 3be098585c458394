//! Mistakes in a configuration and how they are shown: every one with its place, its key and what was expected.

use std::fmt;
use std::path::PathBuf;

/// One mistake. `line` and `column` are 1-based; line 0 means that it has no place in the file (an environment
/// variable, a file that cannot be read).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file read.
    pub file: PathBuf,
    /// 1-based, 0 without a place.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    /// `pool.size`, `shard.s1.port`, or the name of an environment variable.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub expected: String,
    /// The line of the file, unless it may show a secret.
    pub excerpt: Option<String>,
    /// Characters to underline.
    pub width: usize,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if self.key.is_empty() {
            write!(f, ": {}", self.message)?;
        } else {
            write!(f, ": {}: {}", self.key, self.message)?;
        }
        if let (Some(excerpt), true) = (&self.excerpt, self.line > 0) {
            let gutter = self.line.to_string();
            let indent: String = excerpt
                .chars()
                .take(self.column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(f, "\n  {gutter} | {excerpt}")?;
            write!(
                f,
                "\n  {:pad$} | {indent}{}",
                "",
                "^".repeat(self.width.max(1)),
                pad = gutter.len()
            )?;
        }
        if !self.expected.is_empty() {
            write!(f, "\n  expected: {}", self.expected)?;
        }
        Ok(())
    }
}

/// Every mistake found, never only the first, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Mistake>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            writeln!(f, "{mistake}")?;
        }
        match self.0.len() {
            1 => write!(f, "1 mistake in the configuration"),
            n => write!(f, "{n} mistakes in the configuration"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// The candidate a misspelt word was most likely meant to be.
pub(super) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (edit_distance(word, c), c))
        // A third of the letters may differ: `pasword` is close to `password`, `foo` to nothing.
        .filter(|(distance, c)| *distance <= 1 + c.len().min(word.len()) / 4)
        .min()
        .map(|(_, c)| c)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        let keys = ["password", "port", "host", "sslmode"];
        assert_eq!(did_you_mean("pasword", keys), Some("password"));
        assert_eq!(did_you_mean("prot", keys), Some("port"));
        assert_eq!(did_you_mean("colour", keys), None);
    }

    #[test]
    fn a_mistake_points_at_its_place() {
        let mistake = Mistake {
            file: "a.toml".into(),
            line: 12,
            column: 8,
            key: "pool.size".into(),
            message: "is 0".into(),
            expected: "a whole number, at least 1".into(),
            excerpt: Some("size = 0".into()),
            width: 1,
        };
        let shown = "a.toml:12:8: pool.size: is 0\n  12 | size = 0\n     |        ^\n  expected: a whole number, at least 1";
        assert_eq!(mistake.to_string(), shown);
    }
}
