//! Reads the case files.

use std::fs;
use std::path::Path;

/// What pgbraid may do with a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Answer as the oracle does.
    Same,
    /// As the oracle, which fails with this SQLSTATE.
    State(String),
    /// Refuse: 0A000 with a hint.
    Refused,
    /// Either of both.
    SameOrRefused,
}

/// A statement with its directives.
#[derive(Debug, Clone)]
pub struct Case {
    pub file: String,
    pub name: String,
    pub sql: String,
    pub expect: Expect,
    /// (type name, text of the value); `?` leaves the type to the server.
    parameters: Vec<(String, Option<String>)>,
    /// LIMIT without a total order: the rows are some of those that this statement has.
    pub subset_of: Option<String>,
    /// Values differ from run to run: only their shape is compared.
    pub volatile: bool,
    /// An error's message and position are not determined.
    pub any_message: bool,
    pub only_simple: bool,
    pub only_extended: bool,
    pub before: Vec<String>,
    pub after: Vec<String>,
}

/// All cases of all files.
pub fn load() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/equivalence");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("tests/equivalence")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .collect();
    files.sort();
    let wanted = std::env::var("PGBRAID_TEST_CASE").unwrap_or_default();
    let cases = files.iter().flat_map(|file| read(file));
    cases.filter(|c| c.name.contains(&wanted)).collect()
}

fn read(file: &Path) -> Vec<Case> {
    let text = fs::read_to_string(file).expect("a case file");
    let name = file.file_name().expect("a file").to_string_lossy();
    let mut cases = Vec::new();
    for block in format!("\n{text}").split("\n-- name: ").skip(1) {
        cases.push(parse(&name, block));
    }
    cases
}

fn parse(file: &str, block: &str) -> Case {
    let (name, rest) = block.split_once('\n').expect("a statement below its name");
    let mut case = Case {
        file: file.into(),
        name: name.trim().into(),
        sql: String::new(),
        expect: Expect::Same,
        parameters: Vec::new(),
        subset_of: None,
        volatile: false,
        any_message: false,
        only_simple: false,
        only_extended: false,
        before: Vec::new(),
        after: Vec::new(),
    };
    let mut sql = Vec::new();
    for line in rest.lines() {
        match line.strip_prefix("-- ").and_then(|l| l.split_once(": ")) {
            Some((key, value)) if sql.is_empty() => case.direct(key, value.trim()),
            _ => sql.push(line),
        }
    }
    case.sql = sql
        .join("\n")
        .trim()
        .trim_end_matches(';')
        .trim()
        .to_string();
    assert!(!case.sql.is_empty(), "{file}: {name} has no statement");
    case
}

impl Case {
    fn direct(&mut self, key: &str, value: &str) {
        match (key, value) {
            ("expect", "same") => self.expect = Expect::Same,
            ("expect", "refused") => self.expect = Expect::Refused,
            ("expect", "same-or-refused") => self.expect = Expect::SameOrRefused,
            ("expect", state) if state.len() == 5 => self.expect = Expect::State(state.into()),
            ("params", json) => {
                self.parameters = serde_json::from_str(json)
                    .unwrap_or_else(|e| panic!("{}: params: {e}", self.name));
            }
            ("subset-of", sql) => self.subset_of = Some(sql.into()),
            ("compare", "shape") => self.volatile = true,
            ("compare", "sqlstate") => self.any_message = true,
            ("only", "simple") => self.only_simple = true,
            ("only", "extended") => self.only_extended = true,
            ("before", sql) => self.before.push(sql.into()),
            ("after", sql) => self.after.push(sql.into()),
            ("note", _) => {}
            _ => panic!(
                "{}: {}: no such directive: {key}: {value}",
                self.file, self.name
            ),
        }
    }

    /// The statement with its parameters as literals.
    pub fn simple_sql(&self) -> String {
        let mut sql = self.sql.clone();
        for (n, (type_name, value)) in self.parameters.iter().enumerate().rev() {
            let cast = match type_name.as_str() {
                "?" => String::new(),
                t => format!("::{t}"),
            };
            let literal = match value {
                None => format!("NULL{cast}"),
                Some(v) => format!("'{}'{cast}", v.replace('\'', "''")),
            };
            sql = sql.replace(&format!("${}", n + 1), &literal);
        }
        sql
    }

    pub fn oids(&self) -> Vec<u32> {
        self.parameters.iter().map(|(t, _)| oid_of(t)).collect()
    }

    /// Values with their formats, in text or, where `binary` and the type is a fixed-size one, in binary form.
    pub fn values(&self, binary: bool) -> Vec<(i16, Option<Vec<u8>>)> {
        let encode = |(t, value): &(String, Option<String>)| {
            let Some(value) = value else {
                return (0, None);
            };
            let bytes = match t.as_str() {
                "int2" if binary => value.parse::<i16>().ok().map(|v| v.to_be_bytes().to_vec()),
                "int4" if binary => value.parse::<i32>().ok().map(|v| v.to_be_bytes().to_vec()),
                "int8" if binary => value.parse::<i64>().ok().map(|v| v.to_be_bytes().to_vec()),
                "float8" if binary => value.parse::<f64>().ok().map(|v| v.to_be_bytes().to_vec()),
                "text" if binary => Some(value.clone().into_bytes()),
                _ => None,
            };
            match bytes {
                Some(bytes) => (1, Some(bytes)),
                None => (0, Some(value.clone().into_bytes())),
            }
        };
        self.parameters.iter().map(encode).collect()
    }
}

fn oid_of(type_name: &str) -> u32 {
    match type_name {
        "?" => 0,
        "bool" => 16,
        "int8" => 20,
        "int2" => 21,
        "int4" => 23,
        "text" => 25,
        "float8" => 701,
        "varchar" => 1043,
        "date" => 1082,
        "timestamptz" => 1184,
        "numeric" => 1700,
        "uuid" => 2950,
        "int4[]" => 1007,
        "int8[]" => 1016,
        "text[]" => 1009,
        "uuid[]" => 2951,
        "date[]" => 1182,
        other => panic!("no OID known for {other}"),
    }
}
