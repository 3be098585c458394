//! How a pgbraid lives: it reads its configuration again, it drains and ends, and many clients are with it meanwhile.

mod clients;
mod crowd;
mod drain;
mod reload;
mod systemd;
mod take_over;

use crate::harness::{Client, target_is_postgres};

/// These tests need a pgbraid of their own: PostgreSQL's life is not theirs to try.
fn has_no_proxy() -> bool {
    target_is_postgres()
}

/// Statements by themselves and in a transaction, over one shard and over all of them; every answer is checked.
fn work(client: &mut Client, number: usize) -> Result<(), String> {
    let id = (1 + number * 31 % 300).to_string();
    let one_row = format!("select id from users where id = {id}");
    let all_rows = "select count(*) from users";
    for (sql, value) in [
        (&*one_row, &*id),
        (all_rows, "300"),
        ("begin", ""),
        (all_rows, "300"),
        (&one_row, &id),
        ("commit", ""),
    ] {
        let reply = client.try_query(sql).map_err(|e| format!("{sql}: {e}"))?;
        if reply.error.is_some() || !value.is_empty() && reply.value() != value {
            return Err(format!("{sql}: {}", reply.complaint()));
        }
    }
    Ok(())
}
