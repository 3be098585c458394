//! How a pgbraid lives: it reads its configuration again, it drains and ends, and many clients are with it meanwhile.

mod clients;
mod crowd;
mod drain;
mod reload;
mod systemd;
mod take_over;

use crate::harness::target_is_postgres;

/// These tests need a pgbraid of their own: PostgreSQL's life is not theirs to try.
fn has_no_proxy() -> bool {
    target_is_postgres()
}
