//! What the doctor has to say: differences, each with the statements that mend it, and what it could not look at.

use std::fmt::Write;

use serde::Serialize;

/// Longest definition quoted in a message, in characters.
const QUOTED_MAX: usize = 60;
/// Longest statement in a table, in characters.
const STATEMENT_MAX: usize = 100;

/// One thing that is not on a shard as it is on the others, or should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The shard that differs.
    pub shard: String,
    /// `index public.orders_day`
    pub object: String,
    /// In which way.
    pub message: String,
    /// Statements are refused over it, or would come out wrong.
    pub must: bool,
    /// What mends it, in this order; empty where no statement does.
    pub mend: Vec<Mend>,
    /// What else is to be known, such as why there is no statement.
    pub note: Option<String>,
    /// Schema and name of the table it is about.
    #[serde(skip)]
    pub table: Option<(String, String)>,
}

/// A statement, and where to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// Name of the shard.
    pub shard: String,
    /// Without a semicolon.
    pub statement: String,
}

/// Everything the doctor found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// In the order in which they are best mended.
    pub findings: Vec<Finding>,
    /// What it could not look at, and why.
    pub not_looked_at: Vec<String>,
    /// What it did look at, in words.
    pub looked_at: Vec<String>,
}

impl Finding {
    /// One without statements yet.
    pub fn new(shard: &str, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            shard: shard.to_owned(),
            object: object.into(),
            message: message.into(),
            must: false,
            mend: Vec::new(),
            note: None,
            table: None,
        }
    }

    /// Adds statements to run on the shard itself.
    #[must_use]
    pub fn mended_by(mut self, statements: impl IntoIterator<Item = String>) -> Self {
        let here = self.shard.clone();
        let mends = statements.into_iter().map(|statement| Mend {
            shard: here.clone(),
            statement,
        });
        self.mend.extend(mends);
        self
    }

    /// Says something more.
    #[must_use]
    pub fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Says which table it is about.
    #[must_use]
    pub fn of_table(mut self, schema: &str, name: &str) -> Self {
        self.table = Some((schema.to_owned(), name.to_owned()));
        self
    }

    /// Says that answers depend on it.
    #[must_use]
    pub fn must(mut self) -> Self {
        self.must = true;
        self
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.must {
            true => "MUST BE MENDED",
            false => "differs       ",
        };
        let Self {
            shard,
            object,
            message,
            ..
        } = self;
        write!(f, "{kind} shard {shard}: {object}: {message}")?;
        if let Some(note) = &self.note {
            write!(f, "\n    {note}")?;
        }
        for mend in &self.mend {
            write!(f, "\n    on {}:  {};", mend.shard, mend.statement)?;
        }
        Ok(())
    }
}

impl Report {
    /// For people: every difference, then a line that says how much was looked at.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        for finding in &self.findings {
            let _ = writeln!(out, "{finding}");
        }
        for what in &self.not_looked_at {
            let _ = writeln!(out, "not looked at  {what}");
        }
        let looked = self.looked_at.join(", ");
        let must = self.findings.iter().filter(|f| f.must).count();
        let _ = match (self.findings.len(), self.not_looked_at.is_empty()) {
            (0, true) => write!(out, "ok: {looked}"),
            (0, false) => write!(out, "no difference in what could be looked at: {looked}"),
            (n, _) => write!(
                out,
                "{n} difference{}, {must} of them must be mended; looked at: {looked}",
                if n == 1 { "" } else { "s" }
            ),
        };
        out
    }
}

/// A definition short enough for a line.
pub fn quoted(text: &str) -> String {
    shortened(text, QUOTED_MAX)
}

/// A statement short enough for a line, without the comments in front of it.
pub fn statement_line(text: &str) -> String {
    let lines = text.lines();
    let own = lines.skip_while(|l| l.trim().is_empty() || l.trim_start().starts_with("--"));
    shortened(&own.collect::<Vec<_>>().join(" "), STATEMENT_MAX)
}

fn shortened(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_print_with_what_mends_them() {
        let finding = Finding::new("s2", "index public.i", "is missing")
            .mended_by(["CREATE INDEX i ON public.t USING btree (a)".to_owned()]);
        assert_eq!(
            finding.to_string(),
            "differs        shard s2: index public.i: is missing\n    on s2:  CREATE INDEX i ON public.t USING btree (a);"
        );
        let report = Report {
            findings: vec![finding.must()],
            ..Report::default()
        };
        assert!(report.text().contains("1 difference, 1 of them"));
    }

    #[test]
    fn long_definitions_are_cut_between_characters() {
        assert_eq!(statement_line("-- why\n\nselect 1,\n  2"), "select 1, 2");
        assert_eq!(quoted("a\n  b"), "a b");
        assert_eq!(
            quoted(&"ä".repeat(70)),
            format!("{} …", "ä".repeat(QUOTED_MAX))
        );
    }
}
