//! Builds a [`Config`] out of the sections and checks what spans several of them: names that must exist, be unique or agree.

use std::collections::{BTreeMap, HashMap};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::did_you_mean;
use super::reader::{Place, Reader, Section, section_prefix};
use super::sections::{METHODS, auth, console, log, merge, pool, server, tls};
use super::tables::table_rule;
use super::value::{self, variable_part};
use super::*;

/// Shards a configuration may name; every connection of a session costs something on each of them.
const SHARDS_MAX: usize = 1024;

const SECTIONS: [&str; 8] = [
    "server", "database", "auth", "tls", "pool", "merge", "log", "console",
];
const ARRAYS: [&str; 3] = ["shard", "table", "user"];

/// The names of the shards, in order, and the words that may stand for them.
pub(super) struct ShardNames(pub(super) Vec<String>);

impl ShardNames {
    /// The shard a key names.
    pub(super) fn read(&self, section: &Section<'_, '_>, key: &'static str) -> Option<usize> {
        let expected = self.expected(section.text(key, "the name of a [[shard]]")?.as_str());
        section.read(key, &expected, |s| self.position(s.text()?))
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|n| n == name)
    }

    fn expected(&self, given: &str) -> String {
        let near = did_you_mean(given, self.0.iter().map(String::as_str));
        let near = near.map_or(String::new(), |n| format!(" (did you mean \"{n}\"?)"));
        format!(
            "the name of a [[shard]], one of: {}{near}",
            self.0.join(", ")
        )
    }
}

/// Reads the whole document. What is returned is of use only when the reader has no mistakes.
pub(super) fn config(reader: &Reader<'_>, document: &DeTable<'_>) -> Option<Config> {
    unknown_sections(reader, document);
    let section = |name| single(reader, document, name);
    let shard_sections = elements(reader, document, "shard");
    let names = ShardNames(
        shard_sections
            .iter()
            .map(|(name, _)| name.clone())
            .collect(),
    );
    let database = database(&section("database"), &names);
    let shards = shards(&shard_sections, &database);
    if shards.is_empty() && !reader.broken {
        let message = "no shard is configured";
        reader.mistake(&Place::Absent, "shard", message, "at least one [[shard]]");
    }
    let auth = auth(&section("auth"));
    let tls = tls(&section("tls"));
    let users = users(reader, &elements(reader, document, "user"), &auth, &tls);
    let known: Vec<&str> = users.iter().map(|u| u.name.as_str()).collect();
    let config = Config {
        server: server(&section("server")),
        tables: tables(&elements(reader, document, "table"), &database, &names),
        console: console(&section("console"), &database.name, &known),
        users,
        auth,
        tls,
        pool: pool(&section("pool")),
        merge: merge(&section("merge")),
        log: log(&section("log")),
        database,
        shards: shards.into_iter().collect::<Option<_>>()?,
        given: reader.given.take(),
    };
    reader.report_unknown_variables(&[&SECTIONS[..], &ARRAYS[..]].concat());
    Some(config)
}

fn unknown_sections(reader: &Reader<'_>, document: &DeTable<'_>) {
    for (key, value) in document {
        let name = key.get_ref().as_ref();
        let table = value.get_ref().is_table();
        let expected = if SECTIONS.contains(&name) {
            if table {
                continue;
            }
            format!("a section, [{name}]")
        } else if ARRAYS.contains(&name) {
            if value.get_ref().is_array() {
                continue;
            }
            format!("a list of sections, [[{name}]], one for each {name}")
        } else {
            let all = SECTIONS.iter().chain(&ARRAYS).copied();
            match did_you_mean(name, all.clone()) {
                Some(near) => format!("{near} (did you mean that?)"),
                None => format!("one of {}", all.collect::<Vec<_>>().join(", ")),
            }
        };
        let message = match (SECTIONS.contains(&name) || ARRAYS.contains(&name), table) {
            (true, true) => "is a single section",
            (true, false) => "is not a section",
            (false, true) => "unknown section",
            (false, false) => "unknown key outside of any section",
        };
        reader.mistake(&Place::File(key.span()), name, message, expected);
    }
}

/// `[name]`, empty when the file has none.
fn single<'r, 'a>(
    reader: &'r Reader<'a>,
    document: &'r DeTable<'a>,
    name: &'static str,
) -> Section<'r, 'a> {
    let entry = document.get_key_value(name);
    let place = entry.map_or(Place::Absent, |(key, _)| Place::File(key.span()));
    let table = entry.and_then(|(_, value)| value.get_ref().as_table());
    let mut section = Section::new(reader, name, table, place);
    section.add_prefix(section_prefix(name));
    section
}

/// The elements of `[[kind]]` with their names; a name can be overridden by `PGBRAID_KIND_<n>_NAME` only.
fn elements<'r, 'a>(
    reader: &'r Reader<'a>,
    document: &'r DeTable<'a>,
    kind: &'static str,
) -> Vec<(String, Section<'r, 'a>)> {
    let Some(DeValue::Array(array)) = document.get(kind).map(Spanned::get_ref) else {
        return Vec::new();
    };
    let numbered = array.iter().enumerate();
    numbered
        .map(|(i, element)| {
            let place = Place::File(element.span());
            if !element.get_ref().is_table() {
                let message = format!("is of type {}", element.get_ref().type_str());
                let expected = format!("a section, [[{kind}]]");
                reader.mistake(&place, kind, message, expected);
            }
            let mut section = Section::new(reader, kind, element.get_ref().as_table(), place);
            section.set_label(format!("{kind}.{}", i + 1));
            section.add_prefix(format!("{}{}_", section_prefix(kind), i + 1));
            let name = section.required("name", &format!("the name of the {kind}"));
            if let Some(name) = &name {
                section.set_label(format!("{kind}.{name}"));
                section.add_prefix(format!("{}{}_", section_prefix(kind), variable_part(name)));
            }
            (name.unwrap_or_default(), section)
        })
        .collect()
}

fn database(section: &Section<'_, '_>, names: &ShardNames) -> Database {
    let name = section.required("name", "the name of the database that clients connect to");
    let home = names.read(section, "home");
    let words = [("refuse", 0), ("reference", 1), ("home", 2)];
    let undeclared = match section.choice("undeclared", &words) {
        Some(1) => Undeclared::Reference,
        Some(2) => Undeclared::Home(home.unwrap_or(0)),
        _ => Undeclared::Refuse,
    };
    if section.has("home") && !matches!(undeclared, Undeclared::Home(_)) {
        section.mistake(
            "home",
            "is given without undeclared = \"home\"",
            "undeclared = \"home\", or no home",
        );
    }
    let function = section.choice("function", &FUNCTIONS);
    let refresh = section.positive_duration("catalog_refresh");
    section.finish();
    Database {
        name: name.unwrap_or_default(),
        function: function.unwrap_or(FunctionName::Postgres),
        undeclared,
        catalog_refresh: refresh.unwrap_or(Database::default().catalog_refresh),
    }
}

pub(super) const FUNCTIONS: [(&str, FunctionName); 5] = [
    ("postgres", FunctionName::Postgres),
    ("modulo", FunctionName::Modulo),
    ("hive", FunctionName::Hive),
    ("range", FunctionName::Range),
    ("list", FunctionName::List),
];

fn shards(sections: &[(String, Section<'_, '_>)], database: &Database) -> Vec<Option<Shard>> {
    let mut names = HashMap::new();
    let mut servers = HashMap::new();
    let shards: Vec<Option<Shard>> = sections
        .iter()
        .map(|(name, section)| {
            unique(&mut names, name, section, "shard");
            let shard = shard(name, section, database)?;
            let server = (shard.host.clone(), shard.port, shard.dbname.clone());
            // Reading a database twice would give each of its rows twice.
            if let Some(other) = servers.insert(server, name.clone()) {
                let message = format!("is the same database as shard {other}");
                section.mistake(
                    "host",
                    message,
                    "another host, port or dbname for each shard",
                );
            }
            Some(shard)
        })
        .collect();
    if let (Some((_, last)), true) = (sections.last(), shards.len() > SHARDS_MAX) {
        let message = format!("there are {} shards", shards.len());
        last.mistake("name", message, format!("at most {SHARDS_MAX}"));
    }
    shards
}

fn shard(name: &str, section: &Section<'_, '_>, database: &Database) -> Option<Shard> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.chars().all(word) {
        // It labels metrics and names environment variables.
        section.mistake(
            "name",
            format!("is {name:?}"),
            "letters, digits, '-' and '_'",
        );
    }
    let host = section.required(
        "host",
        "a host name, an address, or the folder of a unix socket",
    );
    if let Some(host) = &host {
        let looks_numeric = value::all_digits_and_dots(host) && host.contains('.');
        let bad_address = looks_numeric && host.parse::<std::net::Ipv4Addr>().is_err();
        if bad_address || host.contains(char::is_whitespace) && !host.starts_with('/') {
            let expected = "a host name, an address, or the folder of a unix socket";
            section.mistake("host", format!("is {host:?}"), expected);
        }
    }
    let modes = [
        ("disable", SslMode::Disable),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    let port = section.number("port", 1..65_536).unwrap_or(5432);
    let dbname = section.text("dbname", "the name of a database");
    let user = section.required("user", "the role pgbraid logs in as");
    let password = section
        .secret("password")
        .unwrap_or_else(|| Secret::new(""));
    let sslmode = section.choice("sslmode", &modes).unwrap_or(SslMode::Prefer);
    let sslrootcert = section.file("sslrootcert");
    if sslrootcert.is_some() && matches!(sslmode, SslMode::Disable | SslMode::Prefer) {
        let message = "has no effect under this sslmode";
        section.mistake(
            "sslrootcert",
            message,
            "sslmode = \"verify-full\" or \"verify-ca\" beside it",
        );
    }
    section.finish();
    Some(Shard {
        name: name.to_string(),
        host: host?,
        port: u16::try_from(port).ok()?,
        dbname: dbname.unwrap_or_else(|| database.name.clone()),
        user: user?,
        password,
        sslmode,
        sslrootcert,
    })
}

fn tables(
    sections: &[(String, Section<'_, '_>)],
    database: &Database,
    names: &ShardNames,
) -> Vec<TableRule> {
    let mut seen: BTreeMap<(String, String), ()> = BTreeMap::new();
    let mut rules = Vec::new();
    for (name, section) in sections {
        let Some(rule) = table_rule(name, section, database, names) else {
            continue;
        };
        if seen
            .insert((rule.schema.clone(), rule.name.clone()), ())
            .is_some()
        {
            section.mistake("name", "is declared twice", "one [[table]] for each table");
        }
        rules.push(rule);
    }
    rules
}

fn users(
    reader: &Reader<'_>,
    sections: &[(String, Section<'_, '_>)],
    auth: &Auth,
    tls: &Tls,
) -> Vec<User> {
    let mut names = HashMap::new();
    let scram = auth.method == AuthMethod::Scram;
    if sections.is_empty() && scram && auth.query.is_none() && !reader.broken {
        let message = "no user is configured, so nobody could log in";
        reader.mistake(
            &Place::Absent,
            "user",
            message,
            "at least one [[user]], or auth.query, or auth.method = \"trust\"",
        );
    }
    let mut cert = auth.method == AuthMethod::Cert;
    let user = |(name, section): &(String, Section<'_, '_>)| {
        unique(&mut names, name, section, "user");
        let method = section.choice("method", &METHODS);
        let scram = method.unwrap_or(auth.method) == AuthMethod::Scram;
        cert |= method == Some(AuthMethod::Cert);
        let password = section.secret("password");
        let expected = "a password or a SCRAM-SHA-256 verifier (auth.method is \"scram\")";
        match &password {
            None if section.has("password") => {}
            None if scram => section.missing("password", expected),
            Some(p) if p.reveal().is_empty() && scram => {
                section.mistake("password", "is empty", expected);
            }
            Some(p) if p.reveal().starts_with("SCRAM-") && !is_verifier(p.reveal()) => {
                let form =
                    "SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, as in pg_authid";
                section.mistake("password", "is not a whole SCRAM-SHA-256 verifier", form);
            }
            _ => {}
        }
        let shard_password = section.secret("shard_password");
        let certificate = section.text("certificate", "the common name (CN) of a certificate");
        section.finish();
        User {
            name: name.clone(),
            password: password.unwrap_or_else(|| Secret::new("")),
            shard_password: shard_password.unwrap_or_else(|| Secret::new("")),
            method,
            certificate,
        }
    };
    let users = sections.iter().map(user).collect();
    if cert && tls.client_ca.is_none() && !reader.broken {
        let message = "is missing: clients are to show certificates";
        let expected = "the PEM file of the authorities that sign them (and a tls.mode)";
        reader.mistake(&Place::Absent, "tls.client_ca", message, expected);
    }
    users
}

/// The form of a verifier as PostgreSQL stores it (manual, chapter "pg_authid").
fn is_verifier(text: &str) -> bool {
    let base64 = |part: &str, bytes: usize| {
        let alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        part.len() >= bytes.div_ceil(3) * 4
            && part.len().is_multiple_of(4)
            && part.chars().all(alphabet)
    };
    let parts = || {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let right = iterations.parse::<u32>().is_ok_and(|n| n > 0)
            && base64(salt, 1)
            && base64(stored, 32)
            && base64(server, 32);
        right.then_some(())
    };
    parts().is_some()
}

fn unique(seen: &mut HashMap<String, ()>, name: &str, section: &Section<'_, '_>, kind: &str) {
    if !name.is_empty() && seen.insert(name.to_string(), ()).is_some() {
        section.mistake(
            "name",
            "is used twice",
            format!("a name of its own for each {kind}"),
        );
    }
}
