//! Reads keys out of the parsed file, environment variables first, and gathers every mistake on the way.
//!
//! A key exists because something asks a [`Section`] for it: whatever nobody asked for is reported as unknown, so code and
//! check cannot drift apart.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Secret;
use super::mistake::{Mistake, did_you_mean};
use super::scalar::{Scalar, scalar};
use super::value;

/// Where a value came from.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Bytes of the file.
    File(Range<usize>),
    /// An environment variable.
    Variable(String),
    /// Nowhere: a section that the file does not have.
    Absent,
}

/// One file being read.
pub(super) struct Reader<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) mistakes: RefCell<Vec<Mistake>>,
    /// Every key asked for, as `pool.size`.
    pub(super) known_keys: RefCell<BTreeSet<String>>,
    /// What is given of single sections, see [`super::Config::given`].
    pub(super) given: RefCell<BTreeMap<String, String>>,
    /// Every variable that would have been looked at.
    known_variables: RefCell<BTreeSet<String>>,
    /// The file does not parse: keys may be missing because of that.
    pub(super) broken: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        file: &'a Path,
        text: &'a str,
        environment: &'a BTreeMap<String, String>,
    ) -> Self {
        Self {
            file,
            text,
            environment,
            mistakes: RefCell::default(),
            known_keys: RefCell::default(),
            given: RefCell::default(),
            known_variables: RefCell::default(),
            broken: false,
        }
    }

    /// Notes a mistake at a place.
    pub(super) fn mistake(
        &self,
        place: &Place,
        key: &str,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let mut mistake = Mistake {
            file: self.file.to_path_buf(),
            line: 0,
            column: 0,
            key: key.to_string(),
            message: message.into(),
            expected: expected.into(),
            excerpt: None,
            width: 1,
        };
        match place {
            Place::Variable(name) => {
                mistake.file = PathBuf::from("environment");
                mistake.key.clone_from(name);
            }
            Place::File(span) => self.locate(&mut mistake, span),
            Place::Absent => {}
        }
        self.mistakes.borrow_mut().push(mistake);
    }

    fn locate(&self, mistake: &mut Mistake, span: &Range<usize>) {
        let floor = |at: usize| {
            let at = at.min(self.text.len());
            (0..=at)
                .rev()
                .find(|i| self.text.is_char_boundary(*i))
                .unwrap_or(0)
        };
        let start = floor(span.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        mistake.line = before.matches('\n').count() + 1;
        mistake.column = self.text[line_start..start].chars().count() + 1;
        let end = floor(span.end).clamp(start, line_start + line.len().max(start - line_start));
        mistake.width = self.text[start..end].chars().count().max(1);
        mistake.excerpt = (!may_hold_secret(line)).then(|| line.to_string());
    }

    /// Reports `PGBRAID_…` variables under a section's name that no key has.
    pub(super) fn report_unknown_variables(&self, sections: &[&str]) {
        let known = self.known_variables.borrow();
        for (name, value) in self.environment {
            let ours = sections
                .iter()
                .any(|s| name.starts_with(&section_prefix(s)));
            if !ours || known.contains(name) || is_service_link(name, value) {
                continue;
            }
            let near = did_you_mean(name, known.iter().map(String::as_str));
            let expected = near.map_or_else(
                || {
                    "a variable named after a section and a key, such as PGBRAID_SERVER_LISTEN"
                        .into()
                },
                |near| format!("did you mean {near}?"),
            );
            self.mistake(
                &Place::Variable(name.clone()),
                "",
                "overrides no key",
                expected,
            );
        }
    }

    /// The variable's value, noted as one that is looked at.
    pub(super) fn variable(&self, name: &str) -> Option<&'a str> {
        self.known_variables.borrow_mut().insert(name.to_string());
        let value = self.environment.get(name)?;
        (!is_service_link(name, value)).then_some(value)
    }
}

/// A line that may show a password stays out of messages and logs, also where its key is misspelt.
fn may_hold_secret(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or(line);
    let key = key
        .rsplit(['{', ','])
        .next()
        .unwrap_or(key)
        .trim()
        .to_ascii_lowercase();
    let line = line.to_ascii_lowercase();
    ["pass", "secret", "scram-"]
        .iter()
        .any(|word| line.contains(word))
        || did_you_mean(&key, ["password"]).is_some()
}

/// `PGBRAID_POOL_` for `pool`.
pub(super) fn section_prefix(section: &str) -> String {
    format!("PGBRAID_{}_", section.to_ascii_uppercase())
}

/// Kubernetes puts variables such as `PGBRAID_SERVER_PORT=tcp://10.0.0.1:6432` into every container of a namespace that has a
/// service of that name; they are nobody's configuration.
fn is_service_link(name: &str, value: &str) -> bool {
    value.starts_with("tcp://")
        || value.starts_with("udp://")
        || name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP"))
}

/// One table of the file: `[pool]`, an element of `[[shard]]`, or none at all where the file leaves it out.
pub(super) struct Section<'r, 'a> {
    pub(super) reader: &'r Reader<'a>,
    kind: &'static str,
    label: String,
    prefixes: Vec<String>,
    table: Option<&'r DeTable<'a>>,
    place: Place,
    known: RefCell<Vec<&'static str>>,
}

impl<'r, 'a> Section<'r, 'a> {
    pub(super) fn new(
        reader: &'r Reader<'a>,
        kind: &'static str,
        table: Option<&'r DeTable<'a>>,
        place: Place,
    ) -> Self {
        Self {
            reader,
            kind,
            label: kind.to_string(),
            prefixes: Vec::new(),
            table,
            place,
            known: RefCell::default(),
        }
    }

    /// Lets variables that start so override this section's keys.
    pub(super) fn add_prefix(&mut self, prefix: String) {
        self.prefixes.push(prefix);
    }

    /// Names the section in messages: `shard.s1`.
    pub(super) fn set_label(&mut self, label: String) {
        self.label = label;
    }

    /// The value of a key, from the environment or the file.
    fn find(&self, key: &'static str) -> Option<(Scalar<'r>, Place)> {
        self.note(key);
        for prefix in self.prefixes.iter().rev() {
            let name = format!("{prefix}{}", key.to_ascii_uppercase());
            if let Some(value) = self.reader.variable(&name) {
                return Some((Scalar::Variable(value), Place::Variable(name)));
            }
        }
        let value = self.raw(key)?;
        Some((scalar(value.get_ref()), Place::File(value.span())))
    }

    fn note(&self, key: &'static str) {
        self.known.borrow_mut().push(key);
        self.reader
            .known_keys
            .borrow_mut()
            .insert(format!("{}.{key}", self.kind));
    }

    /// The value in the file, for keys that hold more than a scalar.
    pub(super) fn raw(&self, key: &'static str) -> Option<&'r Spanned<DeValue<'a>>> {
        self.note(key);
        self.table?.get(key)
    }

    /// Where a key's value is; the section's head when it has none.
    pub(super) fn place(&self, key: &'static str) -> Place {
        self.find(key)
            .map_or(self.place.clone(), |(_, place)| place)
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// Notes a mistake about a key, at its value.
    pub(super) fn mistake(
        &self,
        key: &'static str,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let label = format!("{}.{key}", self.label);
        self.reader
            .mistake(&self.place(key), &label, message, expected);
    }

    /// Notes that a key without a default is absent.
    pub(super) fn missing(&self, key: &'static str, expected: &str) {
        if !self.reader.broken {
            self.mistake(key, "is missing", expected);
        }
    }

    /// Reads a key; `None` when it is absent, or wrong and reported.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        expected: &str,
        take: impl Fn(&Scalar<'r>) -> Option<T>,
    ) -> Option<T> {
        let (found, _) = self.find(key)?;
        let taken = take(&found);
        match taken {
            None => self.mistake(key, found.describe(key), expected),
            Some(_) if self.label == self.kind && !self.kind.contains('.') => {
                let given = format!("{}.{key}", self.label);
                self.reader.given.borrow_mut().insert(given, found.shown());
            }
            Some(_) => {}
        }
        taken
    }

    pub(super) fn text(&self, key: &'static str, expected: &str) -> Option<String> {
        self.read(key, expected, |s| {
            s.text().filter(|t| !t.is_empty()).map(str::to_string)
        })
    }

    /// A text that must be there.
    pub(super) fn required(&self, key: &'static str, expected: &str) -> Option<String> {
        if !self.has(key) {
            self.missing(key, expected);
        }
        self.text(key, expected)
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", |s| match s {
            Scalar::Boolean(b) => Some(*b),
            Scalar::Variable("true" | "on" | "1") => Some(true),
            Scalar::Variable("false" | "off" | "0") => Some(false),
            _ => None,
        })
    }

    pub(super) fn number(&self, key: &'static str, range: Range<u64>) -> Option<u64> {
        let expected = format!(
            "a whole number from {} to {}, without quotes",
            range.start,
            range.end - 1
        );
        self.read(key, &expected, |s| {
            s.integer().filter(|n| range.contains(n))
        })
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        self.read(key, value::DURATION, |s| match s {
            Scalar::Integer(0) => Some(Duration::ZERO),
            other => value::duration(other.text()?),
        })
    }

    /// A duration that cannot be zero.
    pub(super) fn positive_duration(&self, key: &'static str) -> Option<Duration> {
        let found = self.duration(key)?;
        if found.is_zero() {
            self.mistake(
                key,
                "is zero",
                format!("{}, more than zero", value::DURATION),
            );
        }
        Some(found)
    }

    pub(super) fn size(&self, key: &'static str, range: Range<u64>) -> Option<u64> {
        let expected = format!(
            "{}, from {} bytes to {}",
            value::SIZE,
            range.start,
            range.end - 1
        );
        self.read(key, &expected, |s| {
            let bytes = match s {
                Scalar::Integer(_) => s.integer(),
                other => value::size(other.text()?),
            };
            bytes.filter(|n| range.contains(n))
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<String> = words.iter().map(|(w, _)| format!("\"{w}\"")).collect();
        let given = self
            .find(key)
            .and_then(|(s, _)| s.text().map(str::to_string));
        let near = given.and_then(|g| did_you_mean(&g, words.iter().map(|(w, _)| *w)));
        let expected = match near {
            Some(near) => format!("one of {} (did you mean \"{near}\"?)", names.join(", ")),
            None => format!("one of {}", names.join(", ")),
        };
        self.read(key, &expected, |s| {
            let text = s.text()?;
            words.iter().find(|(w, _)| *w == text).map(|(_, v)| *v)
        })
    }

    /// A file that must be readable; a relative path starts at the configuration's folder.
    pub(super) fn file(&self, key: &'static str) -> Option<PathBuf> {
        let path = self.resolve(&self.text(key, "the path of a file")?);
        if let Err(error) = std::fs::File::open(&path) {
            let message = format!("names {}: {error}", path.display());
            self.mistake(key, message, "the path of a file that can be read");
        }
        Some(path)
    }

    /// A path that need not lead anywhere; empty is none.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        let text = self.read(key, "a path", |s| s.text().map(str::to_string))?;
        (!text.is_empty()).then(|| self.resolve(&text))
    }

    fn resolve(&self, path: &str) -> PathBuf {
        self.reader
            .file
            .parent()
            .unwrap_or(Path::new(""))
            .join(path)
    }

    /// A literal, `env:NAME` or `file:PATH`.
    pub(super) fn secret(&self, key: &'static str) -> Option<Secret> {
        let expected = "a text, \"env:NAME\" or \"file:PATH\"";
        let text = self.read(key, expected, |s| s.text().map(str::to_string))?;
        let given = format!("{}.{key}", self.label);
        self.reader.given.borrow_mut().remove(&given);
        if let Some(name) = text.strip_prefix("env:") {
            let value = self.reader.variable(name);
            if value.is_none() {
                let message = format!("names the environment variable {name}, which is not set");
                self.mistake(
                    key,
                    message,
                    format!("{name} in the environment of pgbraid"),
                );
            }
            return value.map(Secret::new);
        }
        let Some(path) = text.strip_prefix("file:") else {
            return Some(Secret::new(text));
        };
        let path = self.resolve(path);
        match std::fs::read_to_string(&path) {
            // Editors and `echo` end a file with a newline that is no part of the password.
            Ok(content) => Some(Secret::new(content.trim_end_matches(['\r', '\n']))),
            Err(error) => {
                let message = format!("names the file {}: {error}", path.display());
                self.mistake(key, message, "a file that pgbraid can read");
                None
            }
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let keys: BTreeSet<&str> = known.iter().copied().collect();
            let list = keys.iter().copied().collect::<Vec<_>>().join(", ");
            let expected = match did_you_mean(name, keys) {
                Some(near) => format!("{near} (did you mean that?); known keys: {list}"),
                None => format!("one of {list}"),
            };
            let place = Place::File(key.span());
            let label = format!("{}.{name}", self.label);
            self.reader.mistake(&place, &label, "unknown key", expected);
        }
    }
}
