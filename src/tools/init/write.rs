//! The text of a first configuration.

use std::fmt::Write;

use super::super::server_url::sslmode_word;
use super::keys::Key;
use super::{Draft, Finding, word};
use crate::config::{Config, FunctionName, Shard};
use crate::sql::quote_identifier;

const HEAD: &str = "\
# Written by pgbraid init from what lies on the shards; read it before you rely on it. Every other key there is, with its default and
# why: config/pgbraid.toml of pgbraid's sources. Passwords are taken from the environment.
";

/// One table with what the rows say of it.
type Table = ((String, String), Finding);

/// The file.
pub(super) fn draft(config: &Config, tables: &[Table]) -> Draft {
    let function = favourite(tables);
    let passwords = Passwords::of(&config.shards);
    let mut text = format!(
        "{HEAD}\n[database]\nname = {}\nfunction = \"{}\"\n",
        string(&config.database.name),
        word(function)
    );
    // Writing to a String cannot fail.
    for (n, shard) in config.shards.iter().enumerate() {
        let _ = write!(
            text,
            "\n[[shard]]\nname = {}\nhost = {}\nport = {}\ndbname = {}\nuser = {}\n",
            string(&shard.name),
            string(&shard.host),
            shard.port,
            string(&shard.dbname),
            string(&shard.user)
        );
        if let Some(variable) = &passwords.of_shards[n] {
            let _ = writeln!(text, "password = {}", string(&format!("env:{variable}")));
        }
        if let Some(mode) = sslmode_word(shard.sslmode) {
            let _ = writeln!(text, "sslmode = \"{mode}\"");
        }
        if let Some(path) = &shard.sslrootcert {
            let _ = writeln!(text, "sslrootcert = {}", string(&path.to_string_lossy()));
        }
    }
    let (mut declared, mut asked) = (0, 0);
    for (name, finding) in tables.iter().filter(|(_, f)| !is_open(f)) {
        text.push_str(&section(config, name, finding, function));
        declared += 1;
    }
    for (name, finding) in tables {
        if let Finding::Open { why, guess } = finding {
            text.push_str(&question(name, why, guess.as_ref(), function));
            asked += 1;
        }
    }
    let user = config.shards.first().map_or("app", |s| s.user.as_str());
    let _ = write!(
        text,
        "\n# Who may log in to pgbraid. One entry a role of the shards: statements run there as the role that the client has logged in as.\n[[user]]\nname = {}\npassword = {}\n",
        string(user),
        string(&format!("env:{}", passwords.of_user))
    );
    Draft {
        text,
        declared,
        asked,
        variables: passwords.variables(),
    }
}

fn is_open(finding: &Finding) -> bool {
    matches!(finding, Finding::Open { .. })
}

/// The function that most tables are spread by.
fn favourite(tables: &[Table]) -> FunctionName {
    let functions = || {
        tables.iter().filter_map(|(_, finding)| match finding {
            Finding::Sharded { key, .. } => Some(key.function),
            _ => None,
        })
    };
    let votes = |function| functions().filter(|f| *f == function).count();
    let all = [
        FunctionName::Hive,
        FunctionName::Modulo,
        FunctionName::Postgres,
    ];
    all.into_iter()
        .max_by_key(|f| votes(*f))
        .unwrap_or(FunctionName::Postgres)
}

fn section(
    config: &Config,
    name: &(String, String),
    finding: &Finding,
    function: FunctionName,
) -> String {
    let mut text = format!("\n[[table]]\nname = {}\n", table_name(name));
    let _ = match finding {
        Finding::Reference { rows } => writeln!(
            text,
            "# The same {rows} row{} on every shard.\nreference = true",
            if *rows == 1 { "" } else { "s" }
        ),
        Finding::Home { shard } => {
            let home = config.shards.get(*shard).map_or("", |s| s.name.as_str());
            writeln!(text, "# On no other shard.\nhome = {}", string(home))
        }
        Finding::Sharded { key, others } => {
            let _ = writeln!(
                text,
                "# {} rows looked at, all where {} puts them.",
                key.rows,
                word(key.function)
            );
            if !others.is_empty() {
                let others: Vec<String> = others
                    .iter()
                    .map(|k| format!("{} by {}", k.column, word(k.function)))
                    .collect();
                let _ = writeln!(text, "# As good: {}.", others.join(", "));
            }
            text.push_str(&key_lines(key, function));
            Ok(())
        }
        Finding::Open { .. } => Ok(()),
    };
    text
}

fn key_lines(key: &Key, function: FunctionName) -> String {
    let mut text = format!("key = {}\n", string(&identifier(&key.column)));
    if key.function != function {
        text.push_str(&format!("function = \"{}\"\n", word(key.function)));
    }
    text
}

/// What the reader has to decide; statements over the table are refused until then.
fn question(
    name: &(String, String),
    why: &str,
    guess: Option<&Key>,
    function: FunctionName,
) -> String {
    let guess = match guess {
        Some(key) => key_lines(key, function),
        None => {
            "key = \"?\"   # or: sharded = true (key unknown), reference = true, home = \"s1\"\n"
                .to_owned()
        }
    };
    let mut text = format!(
        "\n# TO DECIDE: {}.{} {why}.\n# [[table]]\n# name = {}\n",
        name.0,
        name.1,
        table_name(name)
    );
    for line in guess.lines() {
        let _ = writeln!(text, "# {line}");
    }
    // A name may hold a line break, which would end the comment.
    let lines = text.lines().skip(1);
    let commented = lines.map(|line| match line.starts_with('#') {
        true => line.to_owned(),
        false => format!("# {line}"),
    });
    format!("\n{}\n", commented.collect::<Vec<_>>().join("\n"))
}

fn table_name((schema, name): &(String, String)) -> String {
    string(&format!("{}.{}", identifier(schema), identifier(name)))
}

/// Quoted only where SQL needs it.
fn identifier(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        true => name.to_owned(),
        false => quote_identifier(name),
    }
}

/// A TOML string.
fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Where passwords come from: never from the file.
struct Passwords {
    of_shards: Vec<Option<String>>,
    of_user: String,
}

impl Passwords {
    fn of(shards: &[Shard]) -> Self {
        let given = |s: &&Shard| !s.password.reveal().is_empty();
        let first = shards.iter().find(given).map(|s| &s.password);
        let same = shards
            .iter()
            .filter(given)
            .all(|s| Some(&s.password) == first);
        let numbered = shards.iter().enumerate();
        let of_shards: Vec<Option<String>> = numbered
            .map(|(n, shard)| {
                given(&shard).then(|| match same {
                    true => "SHARD_PASSWORD".to_owned(),
                    false => format!("SHARD_PASSWORD_{}", n + 1),
                })
            })
            .collect();
        // Clients log in as the first shard's user did so far.
        let of_user = of_shards.first().cloned().flatten();
        Self {
            of_user: of_user.unwrap_or_else(|| "APP_PASSWORD".to_owned()),
            of_shards,
        }
    }

    fn variables(&self) -> Vec<String> {
        let mut all: Vec<String> = self.of_shards.iter().flatten().cloned().collect();
        all.push(self.of_user.clone());
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::super::server_url;
    use super::super::{Options, undeclared};
    use super::*;
    use crate::config::{self, Placement};
    use crate::tools::doctor::Extent;

    fn config() -> Config {
        let options = Options {
            shards: vec![
                "postgres://app:x@a/shop".into(),
                "postgres://app:x@b/shop".into(),
            ],
            name: None,
            extent: Extent::Sample,
            limit: std::time::Duration::from_secs(1),
        };
        undeclared(&options).expect("valid")
    }

    #[test]
    fn a_draft_is_a_configuration() {
        let key = |function| Key {
            column: "UserId".into(),
            function,
            rows: 7,
        };
        let table = |name: &str, finding| (("public".to_owned(), name.to_owned()), finding);
        let open = |guess| Finding::Open {
            why: "has too few rows".into(),
            guess,
        };
        let tables = [
            table("tags", Finding::Reference { rows: 1 }),
            table(
                "Order \"Items\"",
                Finding::Sharded {
                    key: key(FunctionName::Hive),
                    others: vec![key(FunctionName::Modulo)],
                },
            ),
            table("alone", Finding::Home { shard: 1 }),
            table("odd\nname = 7", open(None)),
            table("few", open(Some(key(FunctionName::Hive)))),
        ];
        let draft = draft(&config(), &tables);
        assert_eq!((draft.declared, draft.asked), (3, 2));
        assert_eq!(draft.variables, ["SHARD_PASSWORD"]);
        assert!(!draft.text.contains(":x"), "{}", draft.text);
        let environment = BTreeMap::from([("SHARD_PASSWORD".to_owned(), "x".to_owned())]);
        let read = config::parse(Path::new("draft.toml"), &draft.text, &environment)
            .unwrap_or_else(|e| panic!("{e}\n{}", draft.text));
        assert_eq!(read.shards, config().shards);
        assert_eq!(read.database.function, FunctionName::Hive);
        let placements: Vec<_> = read.tables.iter().map(|t| &t.placement).collect();
        assert!(matches!(
            placements[..],
            [Placement::Reference, Placement::Sharded { key: Some(k), .. }, Placement::Home(1)] if k == "UserId"
        ));
        assert_eq!(read.tables[1].name, "Order \"Items\"");
    }

    #[test]
    fn passwords_that_differ_get_a_variable_each() {
        let shards = [
            "postgres://u:a@h/d",
            "postgres://u@h/d",
            "postgres://u:b@h/d",
        ]
        .map(|url| server_url::parse("s", url).expect("valid"));
        let passwords = Passwords::of(&shards);
        assert_eq!(
            passwords.of_shards,
            [
                Some("SHARD_PASSWORD_1".to_owned()),
                None,
                Some("SHARD_PASSWORD_3".to_owned())
            ]
        );
    }
}
