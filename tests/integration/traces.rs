//! Traces over OTLP, as a collector on loopback receives them: which spans there are, what is in them, and what never is.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::client::{bind, execute, parse, sync};
use crate::harness::{Client, Config, Pgbraid, cluster, eventually, free_port, target_is_postgres};

/// A span as it came.
#[derive(Debug, Clone, Default)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    start: u64,
    end: u64,
    strings: HashMap<String, String>,
    numbers: HashMap<String, i64>,
    failed: bool,
}

/// A collector that keeps what it gets.
#[derive(Default)]
struct Collector {
    spans: Mutex<Vec<Span>>,
    bytes: Mutex<Vec<u8>>,
}

impl Collector {
    fn start() -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let collector = Arc::new(Self::default());
        let kept = collector.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                thread::spawn(move || kept.serve(stream));
            }
        });
        (collector, format!("http://{address}/v1/traces"))
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("descriptor"));
        let mut writer = stream;
        while let Some(body) = request(&mut reader) {
            self.bytes.lock().expect("bytes").extend_from_slice(&body);
            self.spans.lock().expect("spans").extend(spans(&body));
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// The spans of the trace that has a span for which this is true, once it is there.
    fn trace(&self, what: &str, is_root: impl Fn(&Span) -> bool) -> (Span, Vec<Span>) {
        eventually(what, || {
            let spans = self.spans.lock().expect("spans").clone();
            let root = spans.iter().find(|s| is_root(s))?.clone();
            let parts = spans.into_iter().filter(|s| s.parent == root.id);
            let parts = parts.collect();
            Some((root, parts))
        })
    }

    fn by_text(&self, text: &str) -> (Span, Vec<Span>) {
        self.trace(text, |s| {
            s.strings
                .get("db.query.text")
                .is_some_and(|t| t.contains(text))
        })
    }
}

/// The body of a POST to `/v1/traces`; `None` where the connection ends.
fn request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|n| *n > 0)?;
    assert!(first.starts_with("POST /v1/traces "), "{first}");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        assert!(!line.starts_with("transfer-encoding"), "{line}");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

/// A field of a protobuf message: varints and fixed numbers as such, all others as bytes.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let fixed = |message: &mut &[u8], n: usize| {
            let mut value = [0; 8];
            value[..n].copy_from_slice(&message[..n]);
            *message = &message[n..];
            u64::from_le_bytes(value)
        };
        let field = match key & 7 {
            0 => Field::Number(varint(&mut message)),
            1 => Field::Number(fixed(&mut message, 8)),
            5 => Field::Number(fixed(&mut message, 4)),
            2 => {
                let length = varint(&mut message) as usize;
                let (bytes, rest) = message.split_at(length);
                message = rest;
                Field::Bytes(bytes)
            }
            wire => panic!("wire type {wire}"),
        };
        found.push((key >> 3, field));
    }
    found
}

/// The messages in field `number`.
fn messages(message: &[u8], number: u64) -> Vec<&[u8]> {
    let all = fields(message).into_iter();
    let found = all.filter_map(|(n, field)| match field {
        Field::Bytes(bytes) if n == number => Some(bytes),
        _ => None,
    });
    found.collect()
}

/// Of an ExportTraceServiceRequest: resource_spans, scope_spans, spans.
fn spans(body: &[u8]) -> Vec<Span> {
    let resources = messages(body, 1).into_iter();
    let scopes = resources.flat_map(|r| messages(r, 2));
    scopes.flat_map(|s| messages(s, 2)).map(span).collect()
}

fn span(message: &[u8]) -> Span {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut span = Span::default();
    for (number, field) in fields(message) {
        match (number, field) {
            (1, Field::Bytes(id)) => span.trace = hex(id),
            (2, Field::Bytes(id)) => span.id = hex(id),
            (4, Field::Bytes(id)) => span.parent = hex(id),
            (5, Field::Bytes(name)) => span.name = text(name),
            (7, Field::Number(time)) => span.start = time,
            (8, Field::Number(time)) => span.end = time,
            (9, Field::Bytes(pair)) => {
                let key = text(messages(pair, 1)[0]);
                for (kind, value) in fields(messages(pair, 2)[0]) {
                    match (kind, value) {
                        (1, Field::Bytes(value)) => {
                            span.strings.insert(key.clone(), text(value));
                        }
                        (3, Field::Number(value)) => {
                            span.numbers.insert(key.clone(), value as i64);
                        }
                        _ => {}
                    }
                }
            }
            (15, Field::Bytes(status)) => {
                let codes = fields(status);
                span.failed = codes
                    .iter()
                    .any(|(n, f)| *n == 3 && matches!(f, Field::Number(2)));
            }
            _ => {}
        }
    }
    span
}

fn started(more: &str) -> (Arc<Collector>, Pgbraid, Client) {
    let (collector, endpoint) = Collector::start();
    let mut config = Config::new(cluster());
    config.more += &format!("\n[log]\ntraces = \"{endpoint}\"\n{more}\n");
    let mut command = Command::new("env");
    // Else spans wait for five seconds.
    command.env("OTEL_BSP_SCHEDULE_DELAY", "100");
    let pgbraid = Pgbraid::launch_by(&mut command, &config, free_port());
    let client = eventually("pgbraid accepts logins", || {
        Client::connect(pgbraid.port, "app", "app").ok()
    });
    (collector, pgbraid, client)
}

#[test]
fn a_statement_is_a_span_with_its_shards_below() {
    if target_is_postgres() {
        return;
    }
    let (collector, pgbraid, mut client) = started("");
    let sql = "select id, name as gathered from users where name <> 'Secret-Word' and id > -4711";
    assert_eq!(client.query(sql).rows.len(), 300);
    let (root, parts) = collector.by_text("as gathered");
    assert_eq!((root.name.as_str(), root.failed), ("SELECT", false));
    assert_eq!(root.parent, "");
    assert_eq!(root.strings["pgbraid.plan"], "push_down");
    assert_eq!(root.strings["db.user"], "app");
    let shown = &root.strings["db.query.text"];
    assert!(shown.contains("name <> $1"), "{shown}");
    let planned = parts.iter().filter(|s| s.name == "plan").count();
    assert_eq!(planned, 1, "{parts:?}");
    let of_shards: Vec<&Span> = parts
        .iter()
        .filter(|s| s.name.starts_with("shard "))
        .collect();
    let mut names: Vec<&str> = of_shards.iter().map(|s| s.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["shard s1", "shard s2", "shard s3"]);
    assert_eq!(
        of_shards
            .iter()
            .map(|s| s.numbers["pgbraid.rows"])
            .sum::<i64>(),
        300
    );
    assert!(of_shards.iter().all(|s| s.numbers["pgbraid.bytes"] > 1000));
    for part in &parts {
        assert_eq!(part.trace, root.trace);
        assert!(
            root.start <= part.start && part.start <= part.end && part.end <= root.end,
            "{part:?} of {root:?}"
        );
    }
    // A cached plan is not made again.
    client.query(sql);
    let all = |c: &Collector| c.spans.lock().expect("spans").clone();
    let second = eventually("the second", || {
        let spans = all(&collector);
        let found = spans.iter().find(|s| {
            s.parent.is_empty()
                && s.id != root.id
                && s.strings["db.query.text"].contains("as gathered")
        });
        found.cloned()
    });
    assert!(
        all(&collector)
            .iter()
            .all(|s| s.parent != second.id || s.name != "plan")
    );
    let sent = collector.bytes.lock().expect("bytes").clone();
    for word in ["Secret-Word", "4711"] {
        let found = sent.windows(word.len()).any(|w| w == word.as_bytes());
        assert!(!found, "{word}");
    }
    pgbraid.assert_no_panic();
}

#[test]
fn steps_and_errors_are_told() {
    if target_is_postgres() {
        return;
    }
    let (collector, _pgbraid, mut client) = started("");
    client.query(
        "select count(*) as in_steps from users where score > (select avg(score) from users)",
    );
    let (root, parts) = collector.by_text("as in_steps");
    assert!(["staged", "gathered"].contains(&root.strings["pgbraid.plan"].as_str()));
    assert!(parts.iter().any(|s| s.name == "merge session"), "{parts:?}");
    assert!(
        parts
            .iter()
            .any(|s| s.numbers.contains_key("pgbraid.stage")),
        "{parts:?}"
    );
    // One that fails.
    client.query("select 1 / (id - id) as failing from users");
    let (root, _) = collector.by_text("as failing");
    assert!(root.failed);
    assert_eq!(root.strings["db.response.status_code"], "22012");
}

#[test]
fn prepared_statements_keep_their_parameters_to_themselves() {
    if target_is_postgres() {
        return;
    }
    let (collector, _pgbraid, mut client) = started("");
    let sql = "select name as prepared from users where id = $1::int8 and name <> $2";
    client
        .send(&[parse("p", sql, &[]), sync()].concat())
        .expect("sent");
    client.until_ready().expect("parsed");
    let values = [
        (0, Some(b"7".to_vec())),
        (0, Some(b"Parameter-Value".to_vec())),
    ];
    for _ in 0..3 {
        let unit = [bind("", "p", &values, &[0]), execute("", 0), sync()];
        client.send(&unit.concat()).expect("sent");
        client.until_ready().expect("answered");
    }
    let count = || {
        let spans = collector.spans.lock().expect("spans").clone();
        let roots = spans
            .iter()
            .filter(|s| s.strings.get("db.query.text").is_some_and(|t| t == sql));
        let roots: Vec<Span> = roots.cloned().collect();
        (roots.len() == 3).then(|| (roots, spans.clone()))
    };
    let (roots, spans) = eventually("three of them", count);
    for root in roots {
        assert_eq!(root.strings["pgbraid.plan"], "routed");
        let parts: Vec<&Span> = spans.iter().filter(|s| s.parent == root.id).collect();
        let [part] = parts.as_slice() else {
            panic!("{parts:?}");
        };
        assert!(part.name.starts_with("shard s"), "{part:?}");
        assert_eq!(part.numbers["pgbraid.rows"], 1);
        assert!(part.numbers["pgbraid.bytes"] > 0);
    }
    let sent = collector.bytes.lock().expect("bytes").clone();
    let secret = b"Parameter-Value";
    assert!(!sent.windows(secret.len()).any(|w| w == secret));
}

#[test]
fn a_comment_joins_the_callers_trace_and_its_choice() {
    if target_is_postgres() {
        return;
    }
    let (collector, _pgbraid, mut client) = started("trace_every = 0");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let comment =
        |flag: &str| format!("/*app='x',traceparent='00-{trace}-b7ad6b7169203331-{flag}'*/");
    client.query("select count(*) as own from users");
    client.query(&format!(
        "select count(*) as unsampled from users {}",
        comment("00")
    ));
    client.query("select count(*) as broken from users /*traceparent='00-zz-01'*/");
    client.query(&format!(
        "select count(*) as behind from users {}",
        comment("01")
    ));
    client.query(&format!(
        "{} select count(*) as sampled from users",
        comment("01")
    ));
    let (root, parts) = collector.by_text("as behind");
    assert_eq!(
        (root.trace.as_str(), root.parent.as_str()),
        (trace, "b7ad6b7169203331")
    );
    assert_eq!(
        parts
            .iter()
            .filter(|s| s.name.starts_with("shard "))
            .count(),
        3
    );
    collector.by_text("as sampled");
    // They ran before.
    for sql in ["as own", "as unsampled", "as broken"] {
        let spans = collector.spans.lock().expect("spans").clone();
        let found = spans.iter().any(|s| {
            s.strings
                .get("db.query.text")
                .is_some_and(|t| t.contains(sql))
        });
        assert!(!found, "{sql}");
    }
}

#[test]
fn a_collector_that_is_gone_stops_nothing() {
    if target_is_postgres() {
        return;
    }
    let mut config = Config::new(cluster());
    config.more += &format!(
        "\n[log]\ntraces = \"http://127.0.0.1:{}/v1/traces\"\n",
        free_port()
    );
    let mut pgbraid = Pgbraid::start(config);
    let mut client = pgbraid.client();
    for _ in 0..50 {
        assert_eq!(client.query("select count(*) from users").value(), "300");
    }
    drop(client);
    pgbraid.signal("TERM");
    assert!(pgbraid.wait_for_end().success());
}
