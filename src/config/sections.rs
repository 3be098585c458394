//! The single sections that stand for themselves: server, auth, tls, pool, merge, log.

use std::time::Duration;

use super::reader::Section;
use super::value::{self, address};
use super::{Auth, AuthMethod, Console, Log, Merge, Pool, Server, ShardRole, Tcp, Tls, TlsMode};

pub(super) fn server(section: &Section<'_, '_>) -> Server {
    let default = Server::default();
    let listen = |key, text: String| {
        let off = key == "http" && text.is_empty();
        if !off && address(&text).is_none() {
            section.mistake(key, format!("is {text:?}"), value::ADDRESS);
        }
        text
    };
    let text = |key| section.read(key, value::ADDRESS, |s| s.text().map(str::to_string));
    let server = Server {
        listen: text("listen").map_or(default.listen, |t| listen("listen", t)),
        http: text("http").map_or(default.http, |t| listen("http", t)),
        http_password: section
            .secret("http_password")
            .unwrap_or(default.http_password),
        unix_socket: section.path("unix_socket"),
        unix_socket_permissions: section
            .read("unix_socket_permissions", value::PERMISSIONS, |s| {
                value::permissions(s.text()?)
            })
            .unwrap_or(default.unix_socket_permissions),
        max_clients: section
            .number("max_clients", 1..1_000_001)
            .map_or(default.max_clients, |n| n as usize),
        login_timeout: section
            .positive_duration("login_timeout")
            .unwrap_or(default.login_timeout),
        client_idle_timeout: section
            .duration("client_idle_timeout")
            .unwrap_or(default.client_idle_timeout),
        // Below 64 KiB ordinary statements would not fit; PostgreSQL itself takes messages up to 1 GiB.
        message_bytes_max: section
            .size("message_bytes_max", 64 << 10..(1 << 30) + 1)
            .map_or(default.message_bytes_max, |n| n as usize),
        reuse_port: section.flag("reuse_port").unwrap_or(default.reuse_port),
        config_refresh: section
            .duration("config_refresh")
            .unwrap_or(default.config_refresh),
        shutdown_wait: section
            .duration("shutdown_wait")
            .unwrap_or(default.shutdown_wait),
        shutdown_grace: section
            .duration("shutdown_grace")
            .unwrap_or(default.shutdown_grace),
        shard_silence_timeout: section
            .duration("shard_silence_timeout")
            .unwrap_or(default.shard_silence_timeout),
        pipeline_parallelism: section
            .number("pipeline_parallelism", 1..1025)
            .map_or(default.pipeline_parallelism, |n| n as usize),
        tcp: tcp(section),
    };
    // Port 0 is "any free port", so two of them do not clash.
    if server.listen == server.http && !server.listen.ends_with(":0") {
        section.mistake(
            "http",
            "is the address of server.listen",
            "another port, or \"\" for none",
        );
    }
    section.finish();
    server
}

/// The same keys towards clients and towards shards.
fn tcp(section: &Section<'_, '_>) -> Tcp {
    let default = Tcp::default();
    // What Linux takes. It counts whole seconds.
    let seconds = |key, default: Duration| {
        let Some(found) = section.duration(key) else {
            return default;
        };
        let whole = found.subsec_nanos() == 0 && found <= Duration::from_secs(32_767);
        if !whole {
            let expected = "whole seconds up to 32767s, or \"0\" for the operating system's";
            section.mistake(key, format!("is {found:?}"), expected);
        }
        found
    };
    Tcp {
        keepalives_idle: seconds("tcp_keepalives_idle", default.keepalives_idle),
        keepalives_interval: seconds("tcp_keepalives_interval", default.keepalives_interval),
        keepalives_count: section
            .number("tcp_keepalives_count", 0..128)
            .map_or(default.keepalives_count, |n| n as u32),
        user_timeout: section
            .duration("tcp_user_timeout")
            .unwrap_or(default.user_timeout),
    }
}

/// How clients prove who they are.
pub(super) const METHODS: [(&str, AuthMethod); 3] = [
    ("scram", AuthMethod::Scram),
    ("cert", AuthMethod::Cert),
    ("trust", AuthMethod::Trust),
];

pub(super) fn auth(section: &Section<'_, '_>) -> Auth {
    let roles = [
        ("client", ShardRole::Client),
        ("service", ShardRole::Service),
    ];
    let auth = Auth {
        method: section.choice("method", &METHODS).unwrap_or_default(),
        shard_role: section.choice("shard_role", &roles).unwrap_or_default(),
        query: section.text("query", "a SELECT of name, password and valid until"),
    };
    if let Some(query) = &auth.query {
        let expected = "a SELECT with the user's name as $1";
        if !query.contains("$1") {
            section.mistake("query", "does not ask for $1", expected);
        }
        if auth.method != AuthMethod::Scram {
            let message = "is only asked where passwords are";
            section.mistake("query", message, "auth.method = \"scram\"");
        }
    }
    section.finish();
    auth
}

pub(super) fn tls(section: &Section<'_, '_>) -> Tls {
    let words = [
        ("disable", TlsMode::Disable),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
    ];
    let mode = section
        .choice("mode", &words)
        .unwrap_or(Tls::default().mode);
    let tls = Tls {
        mode,
        cert: section.file("cert"),
        key: section.file("key"),
        client_ca: section.file("client_ca"),
    };
    if tls.client_ca.is_some() && mode == TlsMode::Disable {
        let message = "has no effect while tls.mode is \"disable\"";
        section.mistake("client_ca", message, "tls.mode = \"require\" or \"prefer\"");
    }
    for (key, what) in [("cert", "certificate chain"), ("key", "private key")] {
        if mode != TlsMode::Disable && !section.has(key) {
            section.missing(
                key,
                &format!("the PEM file of the {what} (tls.mode is not \"disable\")"),
            );
        }
    }
    section.finish();
    tls
}

pub(super) fn pool(section: &Section<'_, '_>) -> Pool {
    let default = Pool::default();
    let count = |key, default| {
        section
            .number(key, 1..10_001)
            .map_or(default, |n| n as usize)
    };
    let duration = |key, default| section.positive_duration(key).unwrap_or(default);
    let pool = Pool {
        size: count("size", default.size),
        min_size: section
            .number("min_size", 0..10_001)
            .map_or(default.min_size, |n| n as usize),
        merge_size: count("merge_size", default.merge_size),
        idle_timeout: duration("idle_timeout", default.idle_timeout),
        max_lifetime: duration("max_lifetime", default.max_lifetime),
        queue_timeout: duration("queue_timeout", default.queue_timeout),
        connect_timeout: duration("connect_timeout", default.connect_timeout),
        dns_interval: section
            .duration("dns_interval")
            .unwrap_or(default.dns_interval),
        tcp: tcp(section),
    };
    if pool.min_size > pool.size {
        let message = format!("is {}, more than pool.size", pool.min_size);
        section.mistake("min_size", message, format!("at most {}", pool.size));
    }
    section.finish();
    pool
}

pub(super) fn merge(section: &Section<'_, '_>) -> Merge {
    let default = Merge::default();
    let most = i64::MAX as u64;
    let merge = Merge {
        memory_max: section
            .size("memory_max", 1 << 20..most)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(default.memory_max),
        max_staged_bytes: section
            .size("max_staged_bytes", 1 << 20..most)
            .unwrap_or(default.max_staged_bytes),
    };
    section.finish();
    merge
}

/// Fewer statements than one in so many need not be traced.
const TRACE_EVERY_MAX: u64 = 1 << 30;

pub(super) fn log(section: &Section<'_, '_>) -> Log {
    let default = Log::default();
    let expected =
        "error, warn, info, debug, trace or off, or such a list as \"info,pgbraid::planner=debug\"";
    let level = section.read("level", expected, |s| {
        s.text().filter(|t| is_log_level(t)).map(str::to_string)
    });
    let json = section.choice("format", &[("human", false), ("json", true)]);
    let slow_query = section.duration("slow_query");
    let levels = ["off", "error", "warn", "info", "debug", "trace"].map(|l| (l, l));
    let refusals = section.choice("refusals", &levels);
    let form = "an address such as \"http://127.0.0.1:4318/v1/traces\", or \"\" for none";
    let is_address = |t: &&str| t.is_empty() || t.starts_with("http://");
    let traces = section.read("traces", form, |s| {
        s.text().filter(is_address).map(str::to_string)
    });
    let traces = traces.unwrap_or(default.traces);
    if !traces.is_empty() && !cfg!(feature = "otlp") {
        let message = "needs a pgbraid that was built with the feature otlp";
        section.mistake(
            "traces",
            message,
            "no such key, or cargo build --features otlp",
        );
    }
    let trace_every = section.number("trace_every", 0..TRACE_EVERY_MAX);
    section.finish();
    Log {
        level: level.unwrap_or(default.level),
        json: json.unwrap_or(default.json),
        slow_query: slow_query.unwrap_or(default.slow_query),
        refusals: refusals.map_or(default.refusals, str::to_owned),
        traces,
        trace_every: trace_every.unwrap_or(default.trace_every),
    }
}

/// `database` is the one proper, `known` are the names of `[[user]]`.
pub(super) fn console(section: &Section<'_, '_>, database: &str, known: &[&str]) -> Console {
    let default = Console::default();
    let name = section.read("database", "a name that is no database's", |s| {
        s.text().map(str::to_string)
    });
    let name = name.unwrap_or(default.database);
    if name == database && !name.is_empty() {
        let message = "is the name of database.name";
        section.mistake("database", message, "another name, or \"\" for no console");
    }
    let users = |key| {
        let form = "names of [[user]] with commas between";
        let list = section.read(key, form, |s| s.text().map(str::to_string));
        let list = list.unwrap_or_default();
        let names = list.split(',').map(str::trim).filter(|n| !n.is_empty());
        let names: Vec<String> = names.map(str::to_string).collect();
        for name in &names {
            // Where anybody may log in there need be no list.
            if !known.is_empty() && !known.contains(&name.as_str()) {
                let message = format!("names {name:?}, which is no [[user]]");
                section.mistake(key, message, form);
            }
        }
        names
    };
    let console = Console {
        database: name,
        admin_users: users("admin_users"),
        stats_users: users("stats_users"),
    };
    section.finish();
    console
}

/// `level` or `module=level`, with commas between.
pub fn is_log_level(text: &str) -> bool {
    let level = |word: &str| {
        let word = word.to_ascii_lowercase();
        ["off", "error", "warn", "info", "debug", "trace"].contains(&word.as_str())
    };
    let module = |word: &str| {
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        !word.is_empty() && word.chars().all(name)
    };
    text.split(',')
        .map(str::trim)
        .all(|directive| match directive.split_once('=') {
            Some((target, word)) => module(target) && level(word),
            None => level(directive),
        })
}
