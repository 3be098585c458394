//! Pipelines of many small statements, each with its own Sync: the client gets what one PostgreSQL answers, in the same order, however
//! the messages are cut and whatever runs side by side.

use std::thread;
use std::time::Duration;

use crate::harness::client::{
    bind, columns, describe_or_close, execute, flush, frame, parse, query, sync,
};
use crate::harness::{Client, Message, Random, cluster, target, target_is_postgres};

/// Statements with one int8 parameter; what they are called.
pub const NAMED: [(&str, &str); 8] = [
    ("point", "select id, name, score from users where id = $1"),
    (
        "some",
        "select line, sku, price from lineitem where order_id = $1 order by line",
    ),
    (
        "long",
        "select id, repeat(pad, 1500) from big where id = $1",
    ),
    (
        "fails",
        "select id, 100 / (id - 7) from users where id = $1",
    ),
    (
        "fails_late",
        "select line, 10 / (line - 3) from lineitem where order_id = $1 order by line",
    ),
    (
        "all",
        "select count(*), sum(score) from users where id < $1",
    ),
    ("label", "select label from tags where id = $1"),
    (
        "setting",
        "select id || current_setting('application_name') from users where id = $1",
    ),
];

/// One small SELECT with its Sync.
pub fn unit(name: &str, id: i64) -> Vec<u8> {
    let id = id.to_string().into_bytes();
    [
        bind("", name, &[(0, Some(id))], &[]),
        execute("", 0),
        sync(),
    ]
    .concat()
}

/// A session with the statements prepared.
pub fn prepared(mut client: Client) -> Client {
    for (name, sql) in NAMED {
        client
            .send(&[parse(name, sql, &[20]), sync()].concat())
            .expect("sent");
        client.until_ready().expect("prepared");
    }
    client
}

fn connect(port: u16) -> Client {
    let parameters = [
        ("user", "app"),
        ("database", "app"),
        ("application_name", "x"),
    ];
    prepared(Client::connect_with(port, &parameters, "app").expect("login"))
}

/// One of what clients send, mostly reads that may run side by side.
fn piece(random: &mut Random) -> Vec<u8> {
    let id = 1 + random.below(320) as i64;
    let value = [(0, Some(id.to_string().into_bytes()))];
    match random.below(100) {
        0..50 => {
            let name = random.one_of(&["point", "point", "point", "some", "fails", "label"]);
            unit(name, id)
        }
        50..58 => {
            let name = random.one_of(&["long", "fails_late", "setting", "all"]);
            let formats: &[i16] = random.one_of(&[&[][..], &[0], &[1]]);
            let described = match random.chance(50) {
                true => describe_or_close(b'D', b'P', ""),
                false => Vec::new(),
            };
            [
                bind("", name, &value, formats),
                described,
                execute("", 0),
                sync(),
            ]
            .concat()
        }
        58..68 => [
            parse("", NAMED[random.below(5)].1, &[20]),
            bind("", "", &value, &[]),
            describe_or_close(b'D', b'P', ""),
            execute("", 0),
            sync(),
        ]
        .concat(),
        68..76 => query(&format!("select id, name from users where id = {id}")),
        76..80 => query(&format!(
            "  select id, 5 / (id - {id}) from users where id = {id}"
        )),
        n => other(n, id, &value, random),
    }
}

/// What ends a run side by side.
fn other(n: usize, id: i64, value: &[(i16, Option<Vec<u8>>)], random: &mut Random) -> Vec<u8> {
    match n {
        80..82 => query(&format!("set application_name = 'a{}'", id % 3)),
        82 => query("select nothing from users where id = 3"),
        83..86 => [
            query("begin"),
            unit("point", id),
            match random.chance(30) {
                true => query("select nothing"),
                false => Vec::new(),
            },
            unit("some", id),
            query("commit"),
        ]
        .concat(),
        86 => [parse("point", "select 1", &[]), sync()].concat(),
        87 => [describe_or_close(b'D', b'S', "some"), sync()].concat(),
        88 => query("select 1; select 2"),
        89 => unit("missing", id),
        90 => [
            bind("", "point", value, &[]),
            execute("", 0),
            bind("", "fails", value, &[]),
            execute("", 0),
            sync(),
        ]
        .concat(),
        91 => [bind("", "some", value, &[]), execute("", 2), sync()].concat(),
        92 => [flush(), unit("point", id)].concat(),
        93 => unit("", id),
        94 => sync(),
        95 => query("show application_name"),
        96 => frame(b'd', b"no copy"),
        97 => [describe_or_close(b'C', b'S', "missing"), sync()].concat(),
        98 => [bind("", "point", &[], &[]), execute("", 0), sync()].concat(),
        _ => query("select count(*) from users u join events e on e.user_id = u.id"),
    }
}

/// What a client may rely on of a message.
fn essence(message: &Message) -> String {
    match message.tag {
        b'E' => {
            let field = |code| message.field(code).unwrap_or_default();
            format!("E {} {} at {}", field(b'C'), field(b'M'), field(b'P'))
        }
        b'T' => format!("T {:?}", columns(&message.body)),
        tag => format!("{} {:?}", char::from(tag), message.body),
    }
}

/// The replies to a pipeline that is sent in pieces, message by message.
fn replies(port: u16, pipeline: &[u8], pieces: &[usize]) -> Vec<String> {
    let mut client = connect(port);
    let mut writer = client.writer();
    let ready = count_ready(pipeline);
    let mut out = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut rest = pipeline;
            for length in pieces.iter().cycle() {
                let (piece, tail) = rest.split_at((*length).min(rest.len()));
                writer.send(piece).expect("sent");
                rest = tail;
                match (rest.is_empty(), length % 5) {
                    (true, _) => return,
                    (false, 0) => thread::sleep(Duration::from_millis(1)),
                    _ => {}
                }
            }
        });
        for _ in 0..ready {
            let batch = client.until_ready().expect("the connection holds");
            let failed = batch.iter().any(|m| m.tag == b'E');
            // One server may find out before it confirms or describes, several only behind that; which rows come before the one that
            // fails is for each server's planner to choose.
            let counts =
                |m: &&Message| m.tag != b'S' && !(failed && matches!(m.tag, b'2' | b'T' | b'D'));
            out.extend(batch.iter().filter(counts).map(essence));
        }
    });
    out
}

fn count_ready(pipeline: &[u8]) -> usize {
    let (mut rest, mut count) = (pipeline, 0);
    while let [tag, a, b, c, d, ..] = *rest {
        count += usize::from(matches!(tag, b'S' | b'Q'));
        rest = &rest[1 + u32::from_be_bytes([a, b, c, d]) as usize..];
    }
    count
}

#[test]
fn random_pipelines_are_answered_as_one_server_does() {
    if target_is_postgres() {
        return;
    }
    for seed in 1..=40 {
        let random = &mut Random::new(seed);
        let length = random.one_of(&[2, 10, 60, 250]);
        let pipeline = (0..length).flat_map(|_| piece(random)).collect::<Vec<u8>>();
        let pieces: Vec<usize> = (0..20)
            .map(|_| random.one_of(&[1, 23, 60, 400, 5000, 1_000_000]))
            .collect();
        let expected = replies(cluster().oracle, &pipeline, &pieces);
        let found = replies(target(), &pipeline, &pieces);
        let difference = expected.iter().zip(&found).position(|(e, f)| e != f);
        if let Some(at) = difference {
            panic!(
                "seed {seed}, message {at}:\n  expected {}\n  found    {}",
                expected[at], found[at]
            );
        }
        assert_eq!(expected.len(), found.len(), "seed {seed}");
    }
}
