//! COPY … TO STDOUT gives the bytes that one PostgreSQL gives: every type, every option, strings that are hard to write.

use std::process::Command;

use crate::harness::client::{bind, execute, parse, query, sync};
use crate::harness::cluster::find_binaries;
use crate::harness::random::Random;
use crate::harness::{Client, Message, assert_target_sound, cluster, target};

/// Options of the three formats.
const OPTIONS: [&str; 6] = [
    "",
    "(header, delimiter ';', null 'nil')",
    "(format csv)",
    "(format csv, header, force_quote *, null 'null')",
    "(format csv, quote '''', escape '\\', delimiter '|')",
    "(format binary)",
];

/// What a COPY sends, without ReadyForQuery.
fn copied(client: &mut Client, sql: &str, extended: bool) -> Vec<Message> {
    let bytes = match extended {
        false => query(sql),
        true => [
            parse("", sql, &[]),
            bind("", "", &[], &[]),
            execute("", 1),
            sync(),
        ]
        .concat(),
    };
    client.send(&bytes).expect("sent");
    let mut messages = client.until_ready().expect("session lost");
    messages.retain(|m| m.tag != b'S');
    messages.pop();
    messages
}

/// In any order, where the statement has none: the head stays in front, and the trailer of the binary format behind.
fn sorted(mut messages: Vec<Message>) -> Vec<Message> {
    const SIGNATURE: usize = 19;
    let data = |m: &Message| m.tag == b'd';
    let Some(first) = messages.iter().position(data) else {
        return messages;
    };
    let end = messages
        .iter()
        .rposition(data)
        .map_or(first, |last| last + 1);
    if messages[first].body.starts_with(b"PGCOPY\n") {
        let body = messages[first].body.split_off(SIGNATURE);
        let tuple = Message { tag: b'd', body };
        messages.insert(first + 1, tuple);
        messages[first + 1..end].sort_by(|a, b| a.body.cmp(&b.body));
    } else {
        messages[first..end].sort_by(|a, b| a.body.cmp(&b.body));
    }
    messages
}

struct Both {
    oracle: Client,
    target: Client,
}

impl Both {
    fn connect() -> Self {
        let client = |port| Client::connect(port, "app", "app").expect("a session");
        Self {
            oracle: client(cluster().oracle),
            target: client(target()),
        }
    }

    /// Compares all messages byte by byte.
    fn compare(&mut self, sql: &str, ordered: bool) {
        for extended in [false, true] {
            let arrange = |m| if ordered { m } else { sorted(m) };
            let expected = arrange(copied(&mut self.oracle, sql, extended));
            let given = arrange(copied(&mut self.target, sql, extended));
            assert!(
                expected.iter().any(|m| m.tag == b'C'),
                "{sql}: {expected:?}"
            );
            let differs = expected.iter().zip(&given).find(|(e, g)| e != g);
            if let Some((expected, given)) = differs {
                panic!(
                    "{sql}\nexpected: {} {}\ngiven:    {} {}",
                    expected.tag as char,
                    expected.body.escape_ascii(),
                    given.tag as char,
                    given.body.escape_ascii()
                );
            }
            assert_eq!(expected.len(), given.len(), "{sql}");
        }
    }

    /// The columns of a table whose binary form is the same on all servers: arrays of enums name the type's OID.
    fn columns(&mut self, table: &str) -> String {
        let sql = format!(
            "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute \
             where attrelid = '{table}'::regclass and attnum > 0 and atttypid <> all \
             (select typarray from pg_type where typtype = 'e' and typarray <> 0)"
        );
        self.oracle.query(&sql).value()
    }
}

#[test]
fn every_type_is_copied_as_postgresql_does() {
    let mut both = Both::connect();
    let columns = both.columns("alltypes");
    for options in OPTIONS {
        let listed = match options.contains("binary") {
            true => &columns,
            false => "*",
        };
        let sql = format!("copy (select {listed} from alltypes order by id) to stdout {options}");
        both.compare(&sql, true);
        let listed = match options.contains("binary") {
            true => format!("({columns})"),
            false => String::new(),
        };
        both.compare(
            &format!("copy alltypes {listed} to stdout {options}"),
            false,
        );
        for table in [
            "users",
            "countries",
            "empty_s",
            "empty_r",
            "\"Order Items\"",
            "events_2023",
        ] {
            both.compare(&format!("copy {table} to stdout {options}"), false);
        }
        let routed =
            format!("copy (select {columns} from alltypes where id = 7) to stdout {options}");
        both.compare(&routed, true);
    }
    assert_target_sound();
}

#[test]
fn settings_of_the_session_show_in_what_is_copied() {
    let mut both = Both::connect();
    let settings = "set datestyle to 'German, DMY'; set intervalstyle to iso_8601; set bytea_output to escape; \
                    set extra_float_digits to 0; set timezone to 'Asia/Tokyo'; set xmloption to content";
    both.oracle.query(settings);
    both.target.query(settings);
    both.compare("copy alltypes to stdout", false);
    both.compare("copy alltypes (id, tstz, iv, bin, f8) to stdout csv", false);
    both.compare(
        "copy (select id, tstz, d, bin, f8, f4 from alltypes order by id) to stdout",
        true,
    );
    assert_target_sound();
}

#[test]
fn any_string_is_written_as_postgresql_does() {
    let mut both = Both::connect();
    let mut random = Random::new(20_261_122);
    for _ in 0..80 {
        let rows: Vec<String> = (1..=25)
            .map(|id| {
                let values = [literal(&mut random), literal(&mut random)];
                format!("({id}, {}, {})", values[0], values[1])
            })
            .collect();
        let columns = random.one_of(&["s.v, s.w", "s.v", "s.w, s.v, s.v"]);
        let from = format!(
            "users u join (values {}) s(id, v, w) on u.id = s.id",
            rows.join(", ")
        );
        let options = options(&mut random);
        both.compare(
            &format!("copy (select {columns} from {from} order by u.id) to stdout ({options})"),
            true,
        );
    }
    assert_target_sound();
}

#[test]
fn pg_dump_gives_the_rows_that_one_server_has() {
    let expected = dumped(cluster().oracle);
    assert!(expected.len() > 700, "{} lines", expected.len());
    assert_eq!(dumped(target()), expected);
    assert_target_sound();
}

/// The lines of a dump, those of the data in order; the first ones name versions and a key.
fn dumped(port: u16) -> Vec<String> {
    let bin = find_binaries().expect("PostgreSQL's programs");
    let tables = [
        "users",
        "countries",
        "events",
        "events_2023",
        "events_2024",
        "alltypes",
        "empty_s",
    ];
    let output = Command::new(bin.join("pg_dump"))
        .args([
            "--data-only",
            "--host=127.0.0.1",
            "--username=app",
            "--dbname=app",
        ])
        .arg(format!("--port={port}"))
        .args(tables.map(|t| format!("--table=public.{t}")))
        .env("PGPASSWORD", "app")
        .output()
        .expect("pg_dump runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("UTF8");
    let mut lines: Vec<_> = text
        .lines()
        .filter(|l| !l.starts_with("--") && !l.starts_with('\\'))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

const PIECES: [&str; 26] = [
    "\\", "\\.", "\\N", "\t", "\n", "\r", "\x08", "\x0b", "\x0c", "\x01", "\x7f", "\"", "'", ",",
    "|", ";", " ", "a", "N", "nil", "é", "日本", "😀", "\\\\", "\"\"", "x,y",
];

fn literal(random: &mut Random) -> String {
    if random.chance(15) {
        return "null::text".into();
    }
    let pieces = random.below(5);
    let text: String = (0..pieces).map(|_| random.one_of(&PIECES)).collect();
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '\\' | '\'' => format!("\\{c}"),
            c if c.is_ascii_control() => format!("\\x{:02x}", c as u32),
            c => c.to_string(),
        })
        .collect();
    format!("e'{escaped}'::text")
}

fn options(random: &mut Random) -> String {
    let mut options = Vec::new();
    let delimiter = random.one_of(&["\\t", ",", "|", ";", "\\x01", "\\x0b", "\\x08", " ", "*"]);
    let is_csv = random.chance(50);
    if random.chance(60) {
        options.push(format!("delimiter e'{delimiter}'"));
    }
    if random.chance(50) {
        let null = random.one_of(&["", "nil", "\\\\N", "a", "NULL", "é"]);
        options.push(format!("null e'{null}'"));
    }
    if random.chance(30) {
        options.push("header".into());
    }
    if is_csv {
        options.push("format csv".into());
        if random.chance(50) {
            options.push(format!(
                "quote e'{}'",
                random.one_of(&["\"", "\\'", "\\x02", "@"])
            ));
        }
        if random.chance(50) {
            options.push(format!(
                "escape e'{}'",
                random.one_of(&["\"", "\\\\", "\\'", "@", "a"])
            ));
        }
        if random.chance(30) {
            options.push(random.one_of(&["force_quote *", "force_quote (v)"]).into());
        }
    } else {
        options.push("format text".into());
    }
    options.join(", ")
}
