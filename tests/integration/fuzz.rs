//! Any bytes at all in front of a live pgbraid: connections may end, the process and all other sessions go on, and how bytes
//! are cut into packets changes nothing.

use crate::harness::client::{
    bind, describe_or_close, execute, frame, parse, query, startup, sync,
};
use crate::harness::{
    Client, Config, Message, Pgbraid, Random, cluster, target, target_is_postgres,
};

#[test]
fn random_bytes_before_login_harm_nobody() {
    survives(1, |random, client| {
        let valid = startup(&[
            ("user", "app"),
            ("database", "app"),
            ("client_encoding", "UTF8"),
        ]);
        let bytes = match random.below(4) {
            0 => random.bytes(300),
            // A right length and code in front of anything.
            1 => {
                let rest = random.bytes(200);
                let length = u32::try_from(rest.len() + 8).expect("short").to_be_bytes();
                let codes = [196_608_u32, 80_877_102, 80_877_103, 80_877_104, 196_610];
                let code = codes[random.below(codes.len())].to_be_bytes();
                [&length[..], &code, &rest].concat()
            }
            _ => mutated(random, valid),
        };
        client.send(&bytes).ok();
    });
}

#[test]
fn random_bytes_after_login_harm_nobody() {
    survives(2, |random, client| {
        client
            .send(&startup(&[("user", "app"), ("database", "app")]))
            .expect("sent");
        if client.until_ready().is_err() {
            return;
        }
        for _ in 0..4 {
            let bytes = match random.below(4) {
                0 => random.bytes(400),
                1 => {
                    let tags = b"QPBEDCSHXFdcfp~";
                    let tag = tags[random.below(tags.len())];
                    frame(tag, &random.bytes(120))
                }
                _ => {
                    let valid = some_message(random);
                    mutated(random, valid)
                }
            };
            // It may have ended the connection already.
            client.send(&bytes).ok();
        }
        client.send(&sync()).ok();
    });
}

fn some_message(random: &mut Random) -> Vec<u8> {
    match random.below(7) {
        0 => query("select count(*) from users where id < 10"),
        1 => parse("s", "select id from users where id = $1", &[20]),
        2 => bind("", "s", &[(0, Some(b"17".to_vec()))], &[0, 1]),
        3 => describe_or_close(b'D', b'P', ""),
        4 => execute("", 2),
        5 => describe_or_close(b'C', b'S', "s"),
        _ => query("select 1; select 2"),
    }
}

/// Some bytes changed, taken out or put in.
fn mutated(random: &mut Random, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[at] = random.next() as u8,
            1 if bytes.len() > 1 => {
                bytes.remove(at);
            }
            _ => bytes.insert(at, random.next() as u8),
        }
    }
    bytes
}

fn survives(seed: u64, attack: impl Fn(&mut Random, &mut Client)) {
    if target_is_postgres() {
        return;
    }
    let mut pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut witness = pgbraid.client();
    let mut random = Random::new(seed);
    for _ in 0..400 {
        let mut client = Client::open(pgbraid.port).expect("connection");
        attack(&mut random, &mut client);
        drop(client);
    }
    pgbraid.assert_alive();
    pgbraid.assert_no_panic();
    assert_eq!(witness.query("select count(*) from users").value(), "300");
    assert_eq!(
        pgbraid.client().query("select count(*) from users").value(),
        "300"
    );
}

#[test]
fn how_bytes_are_cut_into_packets_changes_nothing() {
    let login = startup(&[("user", "app"), ("database", "app")]);
    let work = [
        query("select id, name from users where id < 4 order by id"),
        parse("s", "select id from users where id = $1", &[20]),
        bind("", "s", &[(0, Some(b"17".to_vec()))], &[1]),
        describe_or_close(b'D', b'P', ""),
        execute("", 0),
        sync(),
        query("select nope"),
    ]
    .concat();
    let whole = answer(&[&login], &[&work]);
    assert!(whole.len() > 12);
    for at in 1..login.len() {
        let (head, tail) = login.split_at(at);
        assert_eq!(answer(&[head, tail], &[&work]), whole, "login cut at {at}");
    }
    for at in 1..work.len() {
        let (head, tail) = work.split_at(at);
        assert_eq!(answer(&[&login], &[head, tail]), whole, "cut at {at}");
    }
    let bytes: Vec<&[u8]> = work.chunks(1).collect();
    assert_eq!(answer(&[&login], &bytes), whole, "byte by byte");
}

/// What comes back up to the third ReadyForQuery behind the login's.
fn answer(login: &[&[u8]], work: &[&[u8]]) -> Vec<Message> {
    let mut client = Client::open(target()).expect("connection");
    login.iter().for_each(|b| client.send(b).expect("sent"));
    client.until_ready().expect("login");
    work.iter().for_each(|b| client.send(b).expect("sent"));
    (0..3)
        .flat_map(|_| client.until_ready().expect("an answer"))
        .collect()
}
