//! The kinds: what is done before, the last bytes, and the end.

use crate::harness::client::{
    bind, describe_or_close, execute, frame, parse, query, startup, sync, untagged,
};

/// What has been sent is all of it; the client then goes, or stays and has given everything up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// The socket is closed.
    Close,
    /// Terminate, then the socket is closed.
    Terminate,
    /// The socket is closed when so many messages have been read.
    CloseBehind(usize),
    /// The same, with Terminate behind the unread rest.
    TerminateBehind(usize),
    /// A cancel request, and the socket is closed when it is answered.
    Cancel,
    /// A cancel request, and the socket is closed at once.
    CancelAndClose,
    /// A shard ends the session.
    Killed,
    /// It stays, and idles.
    Stay,
}

pub struct Leaving {
    pub name: &'static str,
    /// Simple Queries before, each answered.
    pub before: &'static [&'static str],
    /// The last bytes.
    pub bytes: fn() -> Vec<u8>,
    pub end: End,
}

const BIG: &str = "select id, repeat(pad, 100) from big";
const COPY_IN: &str = "copy left_behind from stdin";
const SLEEP: &str = "select pg_sleep(30), count(*) from orders";

fn nothing() -> Vec<u8> {
    Vec::new()
}

fn pipeline() -> Vec<u8> {
    [
        parse("left_p", "select id from orders order by id", &[]),
        bind("left_c", "left_p", &[], &[]),
        execute("left_c", 3),
    ]
    .concat()
}

fn long_pipeline() -> Vec<u8> {
    let one = [
        parse("", "insert into users values (1)", &[]),
        bind("", "", &[], &[]),
        execute("", 0),
        parse("", "select count(*) from orders", &[]),
        bind("", "", &[], &[]),
        describe_or_close(b'D', b'P', ""),
        execute("", 0),
    ];
    one.concat().repeat(20)
}

fn failed_pipeline() -> Vec<u8> {
    [
        parse("", "select 1 / 0 from users", &[]),
        bind("", "", &[], &[]),
        execute("", 0),
        parse("", "notify left_behind", &[]),
        bind("", "", &[], &[]),
        execute("", 0),
    ]
    .concat()
}

const fn row(
    name: &'static str,
    before: &'static [&'static str],
    bytes: fn() -> Vec<u8>,
    end: End,
) -> Leaving {
    Leaving {
        name,
        before,
        bytes,
        end,
    }
}

const BLOCK: &[&str] = &[
    "begin isolation level repeatable read",
    "set local timezone to 'Asia/Tokyo'",
    "notify left_behind, 'from a block'",
    "select pg_advisory_xact_lock(7112)",
    "insert into users values (1)",
    "select count(*) from orders",
];
const FAILED: &[&str] = &[
    "begin",
    "notify left_behind, 'failed'",
    "select count(1 / (id - 17)) from orders",
];

pub const KINDS: &[Leaving] = &[
    row("terminate", &[], nothing, End::Terminate),
    row("close", &[], nothing, End::Close),
    row("terminate in a block", BLOCK, nothing, End::Terminate),
    row("close in a block", BLOCK, nothing, End::Close),
    row(
        "terminate in a failed block",
        FAILED,
        nothing,
        End::Terminate,
    ),
    row("close in a failed block", FAILED, nothing, End::Close),
    row(
        "close behind a savepoint",
        &["begin", "savepoint a", "drop table users"],
        nothing,
        End::Close,
    ),
    row(
        "terminate behind an implicit block that failed",
        &["notify left_behind, 'x'; select 1 / 0"],
        nothing,
        End::Terminate,
    ),
    row(
        "close in the middle of a result",
        &[],
        || query(BIG),
        End::CloseBehind(3),
    ),
    row(
        "terminate in the middle of a result",
        &[],
        || query(BIG),
        End::TerminateBehind(3),
    ),
    row(
        "close in the middle of a result in a block",
        BLOCK,
        || query(BIG),
        End::CloseBehind(2),
    ),
    row("close before the result", &[], || query(BIG), End::Close),
    row(
        "close in the middle of a message of several statements",
        &[],
        || {
            query(
                "insert into users values (1); select pg_sleep(0.2); listen more; select count(*) from orders",
            )
        },
        End::Close,
    ),
    row(
        "close between two statements of one message",
        &[],
        // More than is kept back while a shard pauses.
        || {
            query(
                "insert into users values (1); select repeat('x', 20000) from orders; select pg_sleep(30)",
            )
        },
        End::CloseBehind(2),
    ),
    row(
        "close with many queries unread",
        &[],
        || query("select id from orders").repeat(50),
        End::Close,
    ),
    row(
        "terminate with many queries unread",
        &[],
        || query("select id from orders").repeat(50),
        End::TerminateBehind(1),
    ),
    row(
        "close in a pipeline without Sync",
        &[],
        pipeline,
        End::Close,
    ),
    row(
        "close with a portal half read",
        &[],
        pipeline,
        End::CloseBehind(2),
    ),
    row(
        "terminate with a portal half read",
        &[],
        pipeline,
        End::TerminateBehind(2),
    ),
    row(
        "close with a portal half read in a block",
        BLOCK,
        pipeline,
        End::CloseBehind(5),
    ),
    row("close in a long pipeline", &[], long_pipeline, End::Close),
    row(
        "terminate in a long pipeline",
        &[],
        long_pipeline,
        End::TerminateBehind(5),
    ),
    row(
        "close in a pipeline that failed",
        &[],
        failed_pipeline,
        End::Close,
    ),
    row(
        "terminate in a pipeline that failed",
        &[],
        || [failed_pipeline(), sync()].concat(),
        End::TerminateBehind(2),
    ),
    row(
        "close in the middle of COPY in",
        &[],
        || [query(COPY_IN), frame(b'd', b"XX\n")].concat(),
        End::CloseBehind(1),
    ),
    row(
        "terminate in the middle of COPY in",
        &[],
        || [query(COPY_IN), frame(b'd', b"XX\nYY\n")].concat(),
        End::TerminateBehind(1),
    ),
    row(
        "close behind a COPY in that failed",
        &[],
        || [query(COPY_IN), frame(b'f', b"no\0")].concat(),
        End::CloseBehind(2),
    ),
    row(
        "close in the middle of COPY out",
        &["insert into users select generate_series(1, 200000)"],
        || query("copy users to stdout"),
        End::CloseBehind(3),
    ),
    row(
        "terminate in the middle of COPY out",
        &["insert into users select generate_series(1, 200000)"],
        || query("copy users to stdout"),
        End::TerminateBehind(3),
    ),
    row("close after a cancel", &[], || query(SLEEP), End::Cancel),
    row(
        "close together with a cancel",
        &[],
        || query(SLEEP),
        End::CancelAndClose,
    ),
    row(
        "close after a cancel in a block",
        BLOCK,
        || query(SLEEP),
        End::Cancel,
    ),
    row(
        "close in a sleeping block of code",
        &[],
        || query("do $$ begin perform pg_sleep(30); end $$"),
        End::Close,
    ),
    row(
        "close while waiting for a lock",
        &[],
        || query("select pg_advisory_lock(7199)"),
        End::Close,
    ),
    row(
        "close with half a message",
        &[],
        || query(BIG)[..20].to_vec(),
        End::Close,
    ),
    row(
        "a message that is none",
        &[],
        || frame(b'!', b"x"),
        End::CloseBehind(1),
    ),
    row(
        "a length that cannot be",
        &[],
        || b"Q\0\0\0\x01".to_vec(),
        End::CloseBehind(1),
    ),
    row(
        "a startup packet once more",
        &[],
        || startup(&[("user", "app")]),
        End::CloseBehind(1),
    ),
    row(
        "an SSLRequest once more",
        &[],
        || untagged(80_877_103, &[]),
        End::CloseBehind(1),
    ),
    row(
        "close in the middle of notifications",
        &[],
        || query("notify left_behind, 'a'").repeat(200),
        End::CloseBehind(50),
    ),
    row(
        "close right behind LISTEN",
        &[],
        || query("listen left_behind_too"),
        End::Close,
    ),
    row(
        "close right behind CREATE",
        &[],
        || query("create temp table left_too as select generate_series(1, 100000) as a"),
        End::Close,
    ),
    row("a shard ends it", &[], nothing, End::Killed),
    row("a shard ends it in a block", BLOCK, nothing, End::Killed),
    row(
        "stay behind DISCARD ALL",
        &["discard all"],
        nothing,
        End::Stay,
    ),
    row(
        "stay and give up one by one",
        &[
            "drop table users, left_behind",
            "unlisten *",
            "select pg_advisory_unlock_all()",
            "deallocate all",
            "reset all",
        ],
        nothing,
        End::Stay,
    ),
    row(
        "stay behind a rollback",
        &[
            "discard all",
            "begin; listen left_behind; create temp table users (a int); select pg_advisory_xact_lock(7110); set timezone to 'Asia/Tokyo'",
            "rollback",
        ],
        nothing,
        End::Stay,
    ),
    row(
        "stay behind an error",
        &[
            "discard all",
            "listen left_behind; create temp table users (a int); select 1 / 0",
        ],
        nothing,
        End::Stay,
    ),
];
