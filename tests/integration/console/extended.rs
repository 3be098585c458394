//! The console in the extended protocol, which drivers speak by themselves.

use super::{config, console, done, rows, state};
use crate::harness::client::{bind, describe_or_close, execute, parse, sync};
use crate::harness::{Client, Message, Pgbraid, Reply, target_is_postgres};

fn ask(client: &mut Client, messages: &[Vec<u8>]) -> Vec<Message> {
    client.send(&messages.concat()).expect("sent");
    client.send(&sync()).expect("sent");
    client.until_ready().expect("an answer")
}

fn tags(messages: &[Message]) -> String {
    messages.iter().map(|m| char::from(m.tag)).collect()
}

#[test]
fn a_prepared_command_answers_as_often_as_it_is_executed() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut ops = console(&pgbraid, "ops");
    let sql = "SHOW SHARDS ORDER BY name";
    let expected = rows(&mut ops, sql);
    let prepared = ask(
        &mut ops,
        &[parse("s", sql, &[]), describe_or_close(b'D', b'S', "s")],
    );
    assert_eq!(tags(&prepared), "1tTZ");
    for formats in [&[][..], &[1]] {
        let bound = bind("", "s", &[], formats);
        let messages = ask(
            &mut ops,
            &[
                bound,
                describe_or_close(b'D', b'P', ""),
                execute("", 2),
                execute("", 0),
            ],
        );
        assert_eq!(tags(&messages), "2TDDsDCZ");
        let reply = Reply::of(&messages);
        let at = |name: &str| {
            let mut columns = reply.columns.iter();
            columns.position(|c| c.name == name).expect("a column")
        };
        for (row, expected) in reply.rows.iter().zip(&expected) {
            let port = row[at("port")].clone().expect("a port");
            let port = match formats {
                [] => String::from_utf8(port).expect("text"),
                _ => i64::from_be_bytes(port.try_into().expect("8 bytes")).to_string(),
            };
            assert_eq!(port, expected["port"]);
            let name = row[at("name")].clone().expect("a name");
            assert_eq!(name, expected["name"].as_bytes());
        }
    }
    let closed = ask(&mut ops, &[describe_or_close(b'C', b'S', "s")]);
    assert_eq!(tags(&closed), "3Z");
    let gone = ask(&mut ops, &[bind("", "s", &[], &[])]);
    assert_eq!(state(&Reply::of(&gone)), "26000");
}

#[test]
fn commands_without_rows_are_carried_out_once() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut ops = console(&pgbraid, "ops");
    let run = |client: &mut Client, sql: &str| {
        let messages = [
            parse("", sql, &[]),
            bind("", "", &[], &[]),
            describe_or_close(b'D', b'P', ""),
            execute("", 0),
        ];
        ask(client, &messages)
    };
    let paused = run(&mut ops, "PAUSE s2");
    assert_eq!(tags(&paused), "12nCZ");
    assert_eq!(Reply::of(&paused).tag, "PAUSE");
    assert_eq!(rows(&mut ops, "SHOW SHARDS WHERE paused = 1").len(), 1);
    done(&mut ops, "RESUME", "RESUME");
    assert_eq!(tags(&run(&mut ops, "-- nothing")), "12nIZ");
    // Who may only look may not steer this way either.
    let mut exporter = console(&pgbraid, "exporter");
    assert_eq!(state(&Reply::of(&run(&mut exporter, "PAUSE"))), "42501");
    assert!(rows(&mut exporter, "SHOW SHARDS WHERE paused = 1").is_empty());
}

#[test]
fn what_fails_is_told_once_and_all_up_to_sync_is_ignored() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let mut ops = console(&pgbraid, "ops");
    let show = "SHOW VERSION";
    for (messages, expected) in [
        (vec![parse("", "SELECT 1", &[])], "42601"),
        (vec![parse("", "SHOW VERSION; PAUSE", &[])], "42601"),
        (vec![parse("", show, &[23])], "0A000"),
        (
            vec![
                parse("", "SHOW POOLS WHERE sv_idle = $1", &[]),
                bind("", "", &[], &[]),
                execute("", 0),
            ],
            "0A000",
        ),
        (
            vec![
                parse("", show, &[]),
                bind("", "", &[(0, Some("1".into()))], &[]),
            ],
            "0A000",
        ),
        (
            vec![
                parse("", show, &[]),
                bind("", "", &[], &[2]),
                execute("", 0),
            ],
            "22023",
        ),
        (
            vec![
                parse("", show, &[]),
                bind("", "", &[], &[0, 1]),
                execute("", 0),
            ],
            "08P01",
        ),
        (
            vec![
                parse("", "SHOW NOTHING", &[]),
                describe_or_close(b'D', b'S', ""),
            ],
            "42601",
        ),
        (vec![execute("nowhere", 0)], "34000"),
        (vec![describe_or_close(b'D', b'P', "nowhere")], "34000"),
        (
            vec![parse("twice", show, &[]), parse("twice", show, &[])],
            "42P05",
        ),
    ] {
        // Nothing behind it is carried out.
        let more = [
            parse("", "PAUSE", &[]),
            bind("", "", &[], &[]),
            execute("", 0),
        ];
        let answer = ask(&mut ops, &[messages.concat(), more.concat()]);
        let errors = answer.iter().filter(|m| m.tag == b'E').count();
        assert_eq!(errors, 1, "{expected}: {answer:?}");
        assert_eq!(state(&Reply::of(&answer)), expected);
        assert!(rows(&mut ops, "SHOW SHARDS WHERE paused = 1").is_empty());
    }
}

#[test]
fn portals_end_with_sync_and_names_are_limited() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = Pgbraid::start(config());
    let (mut ops, show) = (console(&pgbraid, "ops"), "SHOW VERSION");
    ask(&mut ops, &[parse("", show, &[]), bind("p", "", &[], &[])]);
    assert_eq!(
        state(&Reply::of(&ask(&mut ops, &[execute("p", 0)]))),
        "34000"
    );
    let many: Vec<_> = (0..300)
        .map(|n| parse(&format!("n{n}"), show, &[]))
        .collect();
    assert_eq!(state(&Reply::of(&ask(&mut ops, &many))), "54000");
    assert_eq!(rows(&mut ops, show).len(), 1);
}
