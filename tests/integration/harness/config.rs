//! pgbraid's configuration for the test schema, with what a test wants to be different.

use std::fmt::Write;

use super::Cluster;

/// Sharded tables and their keys; the other tables are reference tables.
const SHARDED: [(&str, &str); 32] = [
    ("public.users", "id"),
    ("public.events", "user_id"),
    ("public.visits", "user_id"),
    ("public.small_keys", "k"),
    ("public.orders", "id"),
    ("public.lineitem", "order_id"),
    ("public.\\\"Order Items\\\"", "\\\"UserId\\\""),
    ("public.dupes", "id"),
    ("public.empty_s", "id"),
    ("public.lonely", "id"),
    ("public.big", "id"),
    ("public.limits", "id"),
    ("public.by_text", "k"),
    ("public.by_uuid", "k"),
    ("public.by_date", "k"),
    ("public.alltypes", "id"),
    ("public.accounts", "id"),
    ("public.bookings", "account"),
    ("public.parted", "k"),
    ("public.by_code", "code"),
    ("public.numbered", "id"),
    ("public.single_names", "id"),
    ("public.single_words", "id"),
    ("public.orphans", "id"),
    ("public.watched", "id"),
    ("public.part_watched", "k"),
    ("public.notes", "id"),
    ("public.member_notes", "id"),
    ("public.country_notes", "id"),
    ("public.checked_rows", "id"),
    ("public.domain_rows", "id"),
    ("public.numbers_rows", "id"),
];
const REFERENCE: [&str; 6] = [
    "public.hides",
    "public.tags",
    "public.countries",
    "public.empty_r",
    "public.countries_of_accounts",
    "other.users",
];

/// What may differ between the pgbraids that tests start.
#[derive(Clone)]
pub struct Config {
    shards: Vec<u16>,
    /// A shard whose database has another name.
    elsewhere: Option<(usize, String)>,
    pub method: &'static str,
    pub shard_user: &'static str,
    pub shard_password: String,
    /// Lines for the section `[auth]`.
    pub auth: String,
    /// Where the HTTP side listens; empty: nowhere.
    pub http: String,
    /// Lines for the section `[server]`.
    pub server: String,
    /// `[[user]]` of `app` and `guarded`.
    pub users: String,
    /// Sections behind the others.
    pub more: String,
    /// The section `[pool]`.
    pub pool: String,
}

impl Config {
    /// Three shards, trust, clients may be `app` (password `app`) and `guarded` (password `secret`).
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            shards: cluster.shards.to_vec(),
            elsewhere: None,
            method: "trust",
            shard_user: "app",
            shard_password: "app".into(),
            auth: String::new(),
            users: ["app", "guarded"].map(user_of).concat(),
            http: String::new(),
            server: String::new(),
            more: String::new(),
            pool: "[pool]\nsize = 8\n".into(),
        }
    }

    /// The oracle as the only shard.
    pub fn one_shard(cluster: &Cluster) -> Self {
        Self {
            shards: vec![cluster.oracle],
            ..Self::new(cluster)
        }
    }

    /// The shard with this index is reached by another port (a relay's).
    pub fn with_port(mut self, shard: usize, port: u16) -> Self {
        self.shards[shard] = port;
        self
    }

    /// The shard with this index is another database of its server.
    pub fn with_database(mut self, shard: usize, name: &str) -> Self {
        self.elsewhere = Some((shard, name.into()));
        self
    }

    pub fn server(mut self, line: &str) -> Self {
        self.server.push_str(line);
        self.server.push('\n');
        self
    }

    /// The HTTP side listens there.
    pub fn http(mut self, address: &str) -> Self {
        self.http = address.into();
        self
    }

    pub fn pool_size(mut self, size: usize) -> Self {
        self.pool = format!("[pool]\nsize = {size}\n");
        self
    }

    pub fn auth(mut self, line: &str) -> Self {
        self.auth.push_str(line);
        self.auth.push('\n');
        self
    }

    /// One more `[[user]]`; `more` are lines of it.
    pub fn user(mut self, name: &str, password: &str, more: &str) -> Self {
        let user = format!("\n[[user]]\nname = \"{name}\"\npassword = \"{password}\"\n{more}\n");
        self.more.push_str(&user);
        self
    }

    pub fn scram(mut self) -> Self {
        self.method = "scram";
        self
    }

    /// The file's text; it listens on `port`.
    pub fn print(&self, port: u16) -> String {
        let mut out = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\nhttp = \"{}\"\n{}\n\
             [database]\nname = \"app\"\nfunction = \"postgres\"\nundeclared = \"refuse\"\n\n\
             [auth]\nmethod = \"{}\"\n{}\n\n{}\n",
            self.http, self.server, self.method, self.auth, self.pool
        );
        for (n, port) in self.shards.iter().enumerate() {
            let (user, password) = (self.shard_user, &self.shard_password);
            let elsewhere = self.elsewhere.as_ref().filter(|(shard, _)| *shard == n);
            let dbname = elsewhere.map_or("app", |(_, name)| name);
            writeln!(
                out,
                "[[shard]]\nname = \"s{}\"\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"{dbname}\"\nuser = \"{user}\"\npassword = \"{password}\"\n",
                n + 1
            )
            .expect("a String takes all");
        }
        for (table, key) in SHARDED {
            writeln!(out, "[[table]]\nname = \"{table}\"\nkey = \"{key}\"\n")
                .expect("a String takes all");
        }
        for table in REFERENCE {
            writeln!(out, "[[table]]\nname = \"{table}\"\nreference = true\n")
                .expect("a String takes all");
        }
        out + &self.more + &self.users
    }
}

fn user_of(name: &str) -> String {
    let password = if name == "app" { "app" } else { "secret" };
    format!("\n[[user]]\nname = \"{name}\"\npassword = \"{password}\"\n")
}
