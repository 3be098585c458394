//! Reads the sources and holds what DESIGN says of them: layers, sizes, and who may name what.

use std::fs;
use std::path::{Path, PathBuf};

/// Layer of each top-level module. Imports point to lower layers, or within the module.
const LAYERS: [(&str, u8); 20] = [
    ("config", 0),
    ("metrics", 0),
    ("progress", 0),
    ("registry", 0),
    ("telemetry", 0),
    ("protocol", 1),
    ("types", 1),
    ("sql", 2),
    ("catalog", 2),
    ("plan", 3),
    ("backend", 4),
    ("executor", 5),
    ("planner", 5),
    ("admin", 6),
    ("server", 7),
    ("demo", 8),
    ("tools", 8),
    ("cli", 9),
    ("main", 10),
    ("lib", 10),
];

/// Imports against the layers, each with its reason.
const IMPORTS_ALLOWED: [(&str, &str); 2] = [
    // A catalog's collation is the plan's: both are pure data, and the plan names ShardId.
    ("catalog", "plan"),
    // Key hashes are computed where the catalog's sharding is known; types name its datum.
    ("types", "catalog"),
];

/// Without the tests at a file's end.
const LINES_MAX: usize = 500;

/// Files that may be longer, each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

struct Source {
    /// As `server/session.rs`.
    path: String,
    /// Without the tests at its end.
    code: String,
}

impl Source {
    fn module(&self) -> &str {
        let first = self.path.split('/').next().expect("a path");
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

#[test]
fn imports_point_downwards() {
    let mut problems = Vec::new();
    for source in sources() {
        let own = source.module();
        let layer = layer_of(own).unwrap_or_else(|| panic!("{}: a layer for it", source.path));
        for (number, line) in code_lines(&source) {
            // What is between quotes is text.
            let line: String = line.replace("\\\"", "").split('"').step_by(2).collect();
            for named in modules_named(&line) {
                let Some(other) = layer_of(named) else {
                    continue;
                };
                let allowed = IMPORTS_ALLOWED.contains(&(own, named));
                if named != own && other >= layer && !allowed {
                    problems.push(format!("{}:{number}: {own} imports {named}", source.path));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    for source in sources().into_iter().chain(read("tests")) {
        let excepted = LONG_FILES.iter().any(|(path, _)| *path == source.path);
        let lines = source.code.lines().count();
        if lines > LINES_MAX && !excepted {
            problems.push(format!("{}: {lines} lines", source.path));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn files_say_what_they_are_for() {
    let missing: Vec<_> = read("src")
        .into_iter()
        .filter(|s| !s.code.starts_with("//!"))
        .map(|s| s.path)
        .collect();
    assert!(missing.is_empty(), "no //! head: {missing:?}");
}

#[test]
fn code_does_not_unwrap_or_leave_things_to_do() {
    refuse(&[".unwrap()", "todo!(", "unimplemented!(", "dbg!("], |_| {
        true
    });
}

#[test]
fn only_sql_names_the_parser() {
    refuse(&["pg_query::", "pg_query "], |path| {
        !path.starts_with("sql")
    });
}

#[test]
fn only_collation_is_unsafe() {
    refuse(
        &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"],
        |path| path != "types/collate.rs",
    );
}

#[test]
fn no_file_names_a_path_of_some_machine() {
    // Put together here, so that this file does not name them.
    let paths = ["/ro_ot/", "/ho_me/", "/wo_rk/", "/Us_ers/"].map(|p| p.replace('_', ""));
    let mut problems = Vec::new();
    let folders = ["src", "tests", "benches", "config", "deploy"];
    let files = folders.iter().flat_map(|f| files_below(&root().join(f)));
    for file in files {
        // Files that are not text have no such lines.
        let text = fs::read_to_string(&file).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if paths.iter().any(|p| line.contains(p)) {
                problems.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Fails where code (not comments, not tests) of the files with `applies` contains one of `texts`.
fn refuse(texts: &[&str], applies: impl Fn(&str) -> bool) {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|s| applies(&s.path)) {
        for (number, line) in code_lines(source) {
            if texts.iter().any(|t| line.contains(t)) {
                problems.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(m, _)| *m == module).map(|(_, l)| *l)
}

/// Top-level modules that a line names: behind `crate::` or, in the binary, `pgbraid::`, also of the form `crate::{a, b::c}`.
fn modules_named(line: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for prefix in ["crate::", "pgbraid::"] {
        for (at, _) in line.match_indices(prefix) {
            let rest = &line[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(list) => named.extend(list.split([',', '}']).map(|m| first_word(m.trim()))),
                None => named.push(first_word(rest)),
            }
        }
    }
    named
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// Numbered lines that are not comments.
fn code_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let numbered = source.code.lines().enumerate().map(|(n, l)| (n + 1, l));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Files of `src`, those of tests only left out.
fn sources() -> Vec<Source> {
    let mut sources = read("src");
    let test_only: Vec<String> = sources.iter().flat_map(modules_of_tests).collect();
    sources.retain(|s| {
        let of = |module: &String| {
            let rest = s.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        !test_only.iter().any(of)
    });
    assert!(sources.len() > 20, "the sources are not where they were");
    sources
}

/// Paths, without `.rs`, of the modules that this one declares for tests only.
fn modules_of_tests(source: &Source) -> Vec<String> {
    let stem = source.path.strip_suffix(".rs").expect("a source file");
    let folder = match stem.rsplit_once('/') {
        Some((folder, "mod")) => format!("{folder}/"),
        None if ["lib", "main"].contains(&stem) => String::new(),
        _ => format!("{stem}/"),
    };
    let lines: Vec<&str> = source.code.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    let declared = pairs.filter_map(|pair| {
        let (_, name) = pair[1].strip_suffix(';')?.rsplit_once("mod ")?;
        Some(format!("{folder}{name}"))
    });
    declared.collect()
}

fn read(folder: &str) -> Vec<Source> {
    let base = root().join(folder);
    let rust = files_below(&base)
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "rs"));
    rust.map(|file| {
        let text = fs::read_to_string(&file).expect("a source file");
        let path = file.strip_prefix(&base).expect("below it");
        Source {
            path: path.to_string_lossy().into_owned(),
            code: without_tests(&text),
        }
    })
    .collect()
}

/// The text up to the first module of tests.
fn without_tests(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |pair: &[&str]| {
        pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{')
    };
    let end = lines.windows(2).position(begins).unwrap_or(lines.len());
    lines[..end].join("\n")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
