//! Runs the transcripts of `tests/wire/*.txt` on pgbraid and, unchanged, on PostgreSQL itself; see `tests/wire/README.md`.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::harness::client::{
    Message, bind, cstr, describe_or_close, execute, flush, frame, parse, query, startup, sync,
    untagged,
};
use crate::harness::{
    Client, Config, Pgbraid, assert_target_sound, cluster, target, target_is_postgres,
};

#[test]
fn transcripts_hold_on_postgresql() {
    run_all(cluster().oracle, false);
}

#[test]
fn transcripts_hold_on_pgbraid() {
    run_all(target(), false);
    assert_target_sound();
}

#[test]
fn transcripts_hold_with_one_shard() {
    if !target_is_postgres() {
        run_all(Pgbraid::start(Config::one_shard(cluster())).port, true);
    }
}

#[test]
fn a_statement_met_before_has_its_errors_at_the_same_position() {
    if target_is_postgres() {
        return;
    }
    let mut client = Client::connect(target(), "app", "app").expect("a session");
    let sql = "   select id from users where ctid = '(0,1)'";
    let mut position = || {
        let reply = client.query(sql);
        let error = reply.error.expect("a refusal");
        error.field(b'P').expect("a position")
    };
    let place = sql.find("ctid").map_or(0, |at| at + 1).to_string();
    assert_eq!([position(), position()], [place.clone(), place]);
}

#[test]
fn wrong_password_and_unknown_user_look_alike() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::launch(&Config::new(cluster()).scram());
    let accepted = || Client::connect(pgbraid.port, "guarded", "secret").ok();
    crate::harness::eventually("a login with the right password", accepted);
    let wrong = login_shape(pgbraid.port, "guarded");
    let unknown = login_shape(pgbraid.port, "nobody");
    assert_eq!(wrong, unknown);
    assert!(
        wrong.last().is_some_and(|l| l.contains("28P01")),
        "{wrong:?}"
    );
    let salt = |user| first_challenge(pgbraid.port, user);
    assert_eq!(salt("nobody"), salt("nobody"), "a salt that changes tells");
    assert_ne!(
        salt("nobody"),
        salt("nobody2"),
        "one salt for all unknown users tells"
    );
    assert_eq!(salt("guarded").len(), salt("nobody1").len());
}

/// What a login with a wrong password sees, names and random parts taken out.
pub fn login_shape(port: u16, user: &str) -> Vec<String> {
    let mut client = Client::open(port).expect("connection");
    client
        .send(&startup(&[("user", user), ("database", "app")]))
        .expect("sent");
    let mut shape = vec![render(&client.receive().expect("SASL"))];
    client.send(&sasl_first()).expect("sent");
    let challenge = client.receive().expect("challenge");
    shape.push(format!("{} {}", challenge.tag as char, challenge.body[3]));
    let nonce = cstr(&challenge.body[4..]);
    let nonce = nonce.split(',').next().expect("r=");
    let proof = format!("c=biws,{nonce},p={}=", "A".repeat(43));
    client.send(&frame(b'p', proof.as_bytes())).expect("sent");
    shape.push(render(&client.receive().expect("verdict")).replace(user, "USER"));
    shape
}

fn sasl_first() -> Vec<u8> {
    let first = b"n,,n=,r=rOprNGfwEbeRWgbNEkqO";
    let length = u32::try_from(first.len()).expect("short").to_be_bytes();
    frame(b'p', &[b"SCRAM-SHA-256\0", &length[..], first].concat())
}

/// Salt and iterations that a user is challenged with.
pub fn first_challenge(port: u16, user: &str) -> String {
    let mut client = Client::open(port).expect("connection");
    client
        .send(&startup(&[("user", user), ("database", "app")]))
        .expect("sent");
    client.receive().expect("SASL");
    client.send(&sasl_first()).expect("sent");
    let challenge = cstr(&client.receive().expect("challenge").body[4..]);
    let (_, salt) = challenge.split_once(',').expect("r=…,s=…,i=…");
    salt.to_string()
}

fn run_all(port: u16, one_shard: bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("tests/wire")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    let mut failures = String::new();
    let mut count = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("a transcript");
        for section in format!("\n{text}").split("\n== ").skip(1) {
            count += 1;
            if one_shard && section.contains("\n# several shards only: ") {
                continue;
            }
            if port == cluster().oracle && section.contains("\n# pgbraid only: ") {
                continue;
            }
            let outcome = run(section, port);
            let refusable = section.contains("\n# may be refused: ");
            if let Err(problem) = outcome
                && !(refusable && problem.contains("ErrorResponse ERROR 0A000"))
            {
                let file = file.file_name().expect("a file").to_string_lossy();
                let name = section.lines().next().unwrap_or_default();
                writeln!(failures, "--- {file}: {name}\n{problem}").expect("a String takes all");
            }
        }
    }
    assert!(count >= 50, "{count} transcripts");
    assert!(failures.is_empty(), "\n{failures}");
}

fn run(section: &str, port: u16) -> Result<(), String> {
    let lines: Vec<&str> = section
        .lines()
        .skip(1)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect();
    let starts_bare = ["> Startup", "> SSLRequest", "> GSSENCRequest", "> Bytes"];
    let bare = starts_bare.iter().any(|s| lines[0].starts_with(s));
    let mut client = match bare {
        true => Client::open(port).map_err(|e| e.to_string())?,
        false => Client::connect(port, "app", "app")?,
    };
    let mut packet = Vec::new();
    let mut early = None;
    for line in lines {
        if let Some(message) = line.strip_prefix("> ") {
            packet.extend(encode(message, &client));
            continue;
        }
        let (sign, expected) = line.split_once(' ').unwrap_or((line, ""));
        // All messages up to the next expectation travel as one packet. A server that has closed meanwhile says so below.
        client.send(&std::mem::take(&mut packet)).ok();
        match sign {
            "<" => expect(&mut client, expected, &mut early)?,
            "<?" => {
                let message = client.receive().map_err(|e| e.to_string())?;
                if same(expected, &render(&message)).is_err() {
                    early = Some(message);
                }
            }
            _ => panic!("no line of a transcript: {line}"),
        }
    }
    Ok(())
}

fn expect(client: &mut Client, expected: &str, early: &mut Option<Message>) -> Result<(), String> {
    if let Some(byte) = expected.strip_prefix("byte ") {
        let given = client.receive_byte().map_err(|e| e.to_string())? as char;
        return same(byte, &given.to_string());
    }
    if expected == "closed" {
        return match client.drain(crate::harness::PATIENCE) {
            (messages, true) if messages.iter().all(is_fatal) && messages.len() < 2 => Ok(()),
            (messages, ended) => Err(format!(
                "expected the end (ended: {ended}), got {messages:?}"
            )),
        };
    }
    if expected == "end" {
        return match client.drain(crate::harness::PATIENCE) {
            (messages, true) if messages.is_empty() => Ok(()),
            (messages, ended) => Err(format!(
                "expected the end (ended: {ended}), got {messages:?}"
            )),
        };
    }
    if expected == "nothing" {
        return match client.drain(Duration::from_millis(200)) {
            (messages, false) if messages.is_empty() => Ok(()),
            (messages, ended) => Err(format!(
                "expected silence (ended: {ended}), got {messages:?}"
            )),
        };
    }
    loop {
        let message = match early.take() {
            Some(message) => Ok(message),
            None => client.receive(),
        };
        let message = message.map_err(|e| format!("expected: {expected}\ngiven:    {e}"))?;
        // Servers may report settings at any time.
        if message.tag == b'S' && !expected.starts_with("ParameterStatus") {
            continue;
        }
        let given = match message.tag {
            b'A' if client.key.starts_with(&message.body[..4]) => {
                render(&message).replacen("other", "own", 1)
            }
            _ => render(&message),
        };
        if message.tag == b'K' {
            client.key = message.body;
        }
        return same(expected, &given);
    }
}

fn is_fatal(message: &Message) -> bool {
    message.tag == b'E' && message.field(b'V').as_deref() == Some("FATAL")
}

/// Compares, where `expected` may end in `*`.
fn same(expected: &str, given: &str) -> Result<(), String> {
    let holds = match expected.strip_suffix('*') {
        Some(start) => given.starts_with(start),
        None => given == expected,
    };
    match holds {
        true => Ok(()),
        false => Err(format!("expected: {expected}\ngiven:    {given}")),
    }
}

fn encode(message: &str, client: &Client) -> Vec<u8> {
    let (kind, rest) = message.split_once(' ').unwrap_or((message, ""));
    let words: Vec<&str> = rest.split(' ').collect();
    let name = |at: usize| match words.get(at) {
        Some(&"_") | None => "",
        Some(name) => *name,
    };
    match kind {
        "Startup" => startup_of(&words),
        "SSLRequest" => untagged(80_877_103, &[]),
        "GSSENCRequest" => untagged(80_877_104, &[]),
        "CancelRequest" => untagged(80_877_102, &client.key),
        "Query" => query(rest),
        "Parse" => {
            let (options, sql) = options_of(&words[1..]);
            let oids = list(&options, "oids").map(|o| o.parse().expect("an OID"));
            parse(name(0), &sql, &oids.collect::<Vec<_>>())
        }
        "Bind" => {
            let (options, _) = options_of(&words[2..]);
            let format = list(&options, "format").next().map_or(0, number);
            let parameters = list(&options, "params").map(|p| match p {
                "NULL" => (format, None),
                hex if format == 1 => (format, Some(bytes(hex))),
                text => (format, Some(text.as_bytes().to_vec())),
            });
            let results: Vec<i16> = list(&options, "results").map(number).collect();
            bind(name(0), name(1), &parameters.collect::<Vec<_>>(), &results)
        }
        "Describe" => describe_or_close(b'D', words[0].as_bytes()[0], name(1)),
        "Close" => describe_or_close(b'C', words[0].as_bytes()[0], name(1)),
        "Execute" => execute(name(0), words[1].parse().expect("a number")),
        "Sync" => sync(),
        "Flush" => flush(),
        "Terminate" => frame(b'X', &[]),
        "Frame" => frame(words[0].as_bytes()[0], &bytes(words.get(1).unwrap_or(&""))),
        "Bytes" => bytes(rest),
        other => panic!("no such message: {other}"),
    }
}

fn startup_of(words: &[&str]) -> Vec<u8> {
    let pairs: Vec<(&str, &str)> = words
        .iter()
        .map(|w| w.split_once('=').expect("name=value"))
        .collect();
    let (version, pairs) = match pairs[0] {
        ("version", v) => (v, &pairs[1..]),
        _ => ("3.0", &pairs[..]),
    };
    let (major, minor) = version.split_once('.').expect("major.minor");
    let mut bytes = startup(pairs);
    let code = (number(major) as u32) << 16 | number(minor) as u32;
    bytes[4..8].copy_from_slice(&code.to_be_bytes());
    bytes
}

/// Words of the form `known=…` in front, and the rest.
fn options_of<'a>(words: &[&'a str]) -> (Vec<(&'a str, &'a str)>, String) {
    let known = ["oids", "params", "format", "results"];
    let option = |w: &&'a str| w.split_once('=').filter(|(name, _)| known.contains(name));
    let options: Vec<_> = words.iter().map_while(option).collect();
    let rest = words[options.len()..].join(" ");
    (options, rest)
}

fn list<'a>(options: &[(&'a str, &'a str)], name: &str) -> impl Iterator<Item = &'a str> {
    let value = options.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    value.into_iter().flat_map(|v| v.split(','))
}

fn number(text: &str) -> i16 {
    text.parse().expect("a number")
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("two hex digits")
    };
    digits.chunks(2).map(byte).collect()
}

/// A backend message as transcripts write it.
fn render(m: &Message) -> String {
    let number = |at: usize| i32::from_be_bytes(m.body[at..at + 4].try_into().expect("4 bytes"));
    match m.tag {
        b'R' => match number(0) {
            0 => "AuthenticationOk".into(),
            10 => format!("AuthenticationSASL {}", cstr(&m.body[4..])),
            n => format!("Authentication {n}"),
        },
        b'S' => {
            let name = cstr(&m.body);
            format!("ParameterStatus {name} {}", cstr(&m.body[name.len() + 1..]))
        }
        b'K' => "BackendKeyData".into(),
        b'Z' => format!("ReadyForQuery {}", m.body[0] as char),
        b'T' => {
            let columns = crate::harness::Reply::of(std::slice::from_ref(m)).columns;
            let column =
                |c: &crate::harness::client::Column| format!("{}:{}:{}", c.name, c.oid, c.format);
            let columns: Vec<_> = columns.iter().map(column).collect();
            format!("RowDescription {}", columns.join(","))
        }
        b'D' => {
            let value = |v: &Option<Vec<u8>>| match v {
                None => "NULL".to_string(),
                Some(v) => v.escape_ascii().to_string(),
            };
            let values: Vec<_> = m.values().iter().map(value).collect();
            format!("DataRow {}", values.join("|"))
        }
        b'C' => format!("CommandComplete {}", cstr(&m.body)),
        b'E' | b'N' => {
            let field = |code| m.field(code).unwrap_or_default();
            let kind = if m.tag == b'E' { "Error" } else { "Notice" };
            let (severity, state, text) = (field(b'V'), field(b'C'), field(b'M'));
            format!("{kind}Response {severity} {state} {text}")
        }
        b'A' => {
            let channel = cstr(&m.body[4..]);
            let payload = cstr(&m.body[5 + channel.len()..]);
            format!("NotificationResponse other {channel} {payload}")
        }
        b't' => {
            let count = u16::from_be_bytes([m.body[0], m.body[1]]) as usize;
            let oids: Vec<_> = (0..count).map(|n| number(2 + 4 * n).to_string()).collect();
            format!("ParameterDescription {}", oids.join(","))
        }
        b'v' => format!(
            "NegotiateProtocolVersion {}.{} {}",
            number(0) >> 16,
            number(0) & 0xffff,
            String::from_utf8_lossy(&m.body[8..])
                .replace('\0', " ")
                .trim()
        ),
        b'1' => "ParseComplete".into(),
        b'2' => "BindComplete".into(),
        b'3' => "CloseComplete".into(),
        b'n' => "NoData".into(),
        b's' => "PortalSuspended".into(),
        b'I' => "EmptyQueryResponse".into(),
        b'H' => format!("CopyOutResponse {}", m.body.escape_ascii()),
        b'd' => format!("CopyData {}", m.body.escape_ascii()),
        b'c' => "CopyDone".into(),
        tag => format!("{} {}", tag as char, m.body.escape_ascii()),
    }
}
