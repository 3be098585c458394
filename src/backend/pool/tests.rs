//! Pools over shards of this process' own.

use std::future::poll_fn;

use super::*;
use crate::backend::connections::Connections;
use crate::backend::mock::{self, Answer, KEY, Mock};
use crate::backend::raw_conn::Event;
use crate::backend::roles::{Defaults, Roles};
use crate::backend::scram::ClientKeys;
use crate::config::Secret;

const FIRST: &[ShardId] = &[ShardId(0)];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// The pools of the configured roles, with what holds for all roles.
#[derive(Clone)]
struct Tested(Arc<Roles>);

impl Deref for Tested {
    type Target = Pools;
    fn deref(&self) -> &Pools {
        self.0.configured()
    }
}

impl Tested {
    fn new(ports: &[u16], size: usize) -> Self {
        Self(Roles::new(&mock::config(ports, size)))
    }

    fn usage(&self) -> Vec<Usage> {
        self.0.usage()
    }

    /// The pools of another role.
    fn role(&self, name: &str) -> Arc<Pools> {
        let login = |_, _: &ClientKeys| Login {
            user: name.into(),
            password: Secret::new("p"),
            keys: Default::default(),
            settings: Arc::from([]),
        };
        let defaults = Defaults {
            parameters: Vec::new(),
            settings: Arc::from([]),
        };
        self.0
            .enter(
                name,
                defaults,
                (Instant::now(), 1),
                ClientKeys::default(),
                login,
            )
            .pools
    }
}

async fn shards(count: usize, size: usize) -> (Vec<Arc<Mock>>, Tested) {
    let mut mocks = Vec::new();
    for _ in 0..count {
        mocks.push(Mock::start().await);
    }
    let ports: Vec<u16> = mocks.iter().map(|m| m.port).collect();
    (mocks, Tested::new(&ports, size))
}

async fn one(pools: &Pools) -> Lease {
    pools.acquire(FIRST, soon()).await.unwrap().remove(0)
}

async fn ask(lease: &mut Lease) -> Result<u32, BackendError> {
    lease.query("SELECT 1");
    let mut rows = 0;
    while lease.outstanding() > 0 {
        if let Event::Rows(run) = poll_fn(|cx| lease.poll_event(Some(1), cx)).await? {
            rows += run.rows;
        }
    }
    Ok(rows)
}

/// Waits until the other side has seen it.
async fn until(condition: impl Fn() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "it never happened");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The configuration of one shard at this port of another address, and pools of this size.
fn moved(host: &str, port: u16, size: usize) -> crate::config::Config {
    let mut config = (*mock::config(&[port], size)).clone();
    config.shards[0].host = host.to_owned();
    config
}

#[tokio::test]
async fn a_shard_that_moves_is_followed_and_who_has_a_connection_keeps_it() {
    let (mocks, pools) = shards(2, 4).await;
    let mut kept = one(&pools).await;
    drop(one(&pools).await);
    let current = mock::config(&[mocks[0].port, mocks[1].port], 4);
    let mut new = (*current).clone();
    new.shards[0].port = mocks[1].port;
    pools.0.renew(&current, &new);
    // The idle one ends at once.
    until(|| mocks[0].sessions.load(Ordering::SeqCst) == 1).await;
    assert_eq!(ask(&mut one(&pools).await).await.unwrap(), 1);
    assert_eq!(mocks[1].logins.load(Ordering::SeqCst), 1);
    assert_eq!(ask(&mut kept).await.unwrap(), 1);
    // A cancel goes where the connection goes.
    pools.cancel(&kept.cancel_handle()).await.unwrap();
    assert_eq!(mocks[0].cancels.lock().len(), 1);
    drop(kept);
    until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
    assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_pool_grows_for_those_who_wait() {
    let (mocks, pools) = shards(1, 1).await;
    let current = mock::config(&[mocks[0].port], 1);
    let held = one(&pools).await;
    let (waiting, ()) = tokio::join!(one(&pools), async {
        until(|| pools.usage()[0].waiting == 1).await;
        pools.0.renew(&current, &mock::config(&[mocks[0].port], 2));
    });
    assert_eq!(pools.usage()[0].in_use, 2);
    drop((held, waiting));
    assert_eq!(pools.usage()[0].in_use, 0);
}

#[tokio::test]
async fn a_pool_shrinks_as_connections_come_back() {
    let (mocks, pools) = shards(1, 3).await;
    let current = mock::config(&[mocks[0].port], 3);
    let mut held = vec![one(&pools).await, one(&pools).await, one(&pools).await];
    pools.0.renew(&current, &mock::config(&[mocks[0].port], 1));
    // Who takes the two that are owed stands in the queue.
    tokio::task::yield_now().await;
    held.pop();
    let none = pools.acquire(FIRST, Instant::now() + Duration::from_millis(20));
    assert!(matches!(
        none.await,
        Err(BackendError::PoolExhausted { .. })
    ));
    held.clear();
    let _only = one(&pools).await;
    let none = pools.acquire(FIRST, Instant::now() + Duration::from_millis(20));
    assert!(matches!(
        none.await,
        Err(BackendError::PoolExhausted { .. })
    ));
    until(|| mocks[0].sessions.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn connections_are_opened_ahead_of_need() {
    let (mocks, pools) = shards(1, 3).await;
    pools.data()[0].fill(2).await.unwrap();
    assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 2);
    let held = [one(&pools).await, one(&pools).await, one(&pools).await];
    assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 3);
    drop(held);
    pools.data()[0].fill(3).await.unwrap();
    assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_name_is_looked_up_for_every_connection() {
    use crate::backend::socket::hosts;
    // One port, two addresses: as a server and the one that takes over from it.
    let first = Mock::start_at("127.0.0.2:0").await;
    let second = Mock::start_at(&format!("127.0.0.3:{}", first.port)).await;
    hosts::lead("moves.test", "127.0.0.2".parse().unwrap());
    let pools = Tested(Roles::new(&moved("moves.test", first.port, 2)));
    assert_eq!(ask(&mut one(&pools).await).await.unwrap(), 1);
    hosts::lead("moves.test", "127.0.0.3".parse().unwrap());
    // The old server goes, and its connections with it.
    *first.answer.lock() = Answer::RowThenClose;
    ask(&mut one(&pools).await).await.unwrap();
    until(|| first.sessions.load(Ordering::SeqCst) == 0).await;
    assert_eq!(ask(&mut one(&pools).await).await.unwrap(), 1);
    assert_eq!(second.logins.load(Ordering::SeqCst), 1);
    // Or it stays, and its name leads elsewhere.
    hosts::lead("moves.test", "127.0.0.2".parse().unwrap());
    assert_eq!(ask(&mut one(&pools).await).await.unwrap(), 1);
    assert_eq!(first.logins.load(Ordering::SeqCst), 1);
    pools.0.retire(0);
    until(|| second.sessions.load(Ordering::SeqCst) == 0).await;
    drop(one(&pools).await);
    assert_eq!(first.logins.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_clean_connection_is_lent_again() {
    let (mocks, pools) = shards(1, 4).await;
    for _ in 0..3 {
        let mut lease = one(&pools).await;
        assert_eq!(ask(&mut lease).await.unwrap(), 1);
        assert_eq!(lease.parameter("server_version"), Some("15.2"));
    }
    assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_with_a_reply_outstanding_is_closed() {
    let (mocks, pools) = shards(1, 4).await;
    let mut lease = one(&pools).await;
    lease.query("SELECT 1");
    let _ = poll_fn(|cx| lease.poll_flush(cx)).await;
    drop(lease);
    until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
    assert_eq!(ask(&mut one(&pools).await).await.unwrap(), 1);
    assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_with_an_unread_message_is_closed() {
    let (mocks, pools) = shards(1, 4).await;
    let mut lease = one(&pools).await;
    lease.query("SELECT 1");
    // The row; what follows lies in the buffer.
    let _ = poll_fn(|cx| lease.poll_event(None, cx)).await;
    assert!(!lease.is_clean());
    drop(lease);
    drop(one(&pools).await);
    assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn connections_the_shard_has_closed_are_replaced() {
    let (mocks, pools) = shards(1, 4).await;
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(one(&pools).await);
    }
    *mocks[0].answer.lock() = Answer::RowThenClose;
    for mut lease in leases {
        ask(&mut lease).await.unwrap();
    }
    until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
    assert_eq!(pools.usage()[0].idle, 4);
    *mocks[0].answer.lock() = Answer::Row;
    assert_eq!(ask(&mut one(&pools).await).await.unwrap(), 1);
    assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn an_unreachable_shard_is_reported_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let pools = Tested::new(&[port], 2);
    let asked = Instant::now();
    let refused = pools.acquire(FIRST, soon()).await;
    assert!(
        matches!(refused, Err(BackendError::Unreachable { .. })),
        "{refused:?}"
    );
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_the_shard_says_at_login_is_passed_on() {
    let (mocks, pools) = shards(1, 2).await;
    *mocks[0].greeting.lock() = Some(mock::error(
        true,
        "53300",
        "sorry, too many clients already",
    ));
    let refused = pools.acquire(FIRST, soon()).await;
    let Err(BackendError::Server { error, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.sqlstate(), "53300");
}

#[tokio::test]
async fn passwords_do_not_travel_in_the_clear() {
    let (mocks, pools) = shards(1, 2).await;
    *mocks[0].greeting.lock() = Some(mock::authentication(3, b""));
    let refused = pools.acquire(FIRST, soon()).await.unwrap_err().to_string();
    assert!(refused.contains("without TLS"), "{refused}");
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_is_refused() {
    let (mocks, pools) = shards(1, 2).await;
    let mut greeting = mock::authentication(10, b"SCRAM-SHA-256\0\0");
    greeting.extend(mock::authentication(0, b""));
    *mocks[0].greeting.lock() = Some(greeting);
    let refused = pools.acquire(FIRST, soon()).await;
    assert!(
        matches!(refused, Err(BackendError::Protocol { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn waiting_ends_at_the_deadline_and_is_counted() {
    let (_mocks, pools) = shards(1, 1).await;
    let lease = one(&pools).await;
    let mut waiting = Box::pin(pools.acquire(FIRST, Instant::now() + Duration::from_millis(50)));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let usage = Usage {
        size: 1,
        in_use: 1,
        opening: 0,
        idle: 0,
        waiting: 1,
    };
    assert_eq!(pools.usage(), [usage]);
    assert!(matches!(
        waiting.await,
        Err(BackendError::PoolExhausted { .. })
    ));
    assert_eq!(pools.usage()[0].waiting, 0);
    drop(lease);
    one(&pools).await;
}

#[tokio::test]
async fn many_sessions_over_all_shards_do_not_deadlock() {
    let (_mocks, pools) = shards(3, 2).await;
    let sessions = (0..24).map(|i| {
        let pools = pools.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let wanted: Vec<ShardId> = match (i + round) % 3 {
                    0 => vec![ShardId(0), ShardId(1), ShardId(2)],
                    1 => vec![ShardId(1), ShardId(2)],
                    _ => vec![ShardId(0), ShardId(2)],
                };
                for mut lease in pools.acquire(&wanted, soon()).await.unwrap() {
                    ask(&mut lease).await.unwrap();
                }
            }
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        session.await.unwrap();
    }
    assert!(pools.usage().iter().all(|u| u.in_use == 0 && u.idle <= 2));
}

#[tokio::test]
async fn a_cancel_reaches_the_shard_and_ends_the_connection() {
    let (mocks, pools) = shards(1, 2).await;
    let mut lease = one(&pools).await;
    pools.cancel(&lease.cancel_handle()).await.unwrap();
    assert_eq!(*mocks[0].cancels.lock(), [(0, KEY.to_vec())]);
    assert_eq!(ask(&mut lease).await.unwrap(), 1);
    assert!(!lease.is_clean());
    drop(lease);
    until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_late_cancel_does_not_hit_the_next_holder() {
    let (mocks, pools) = shards(1, 2).await;
    let mut lease = one(&pools).await;
    let handle = lease.cancel_handle();
    ask(&mut lease).await.unwrap();
    drop(lease);
    let next = one(&pools).await;
    pools.cancel(&handle).await.unwrap();
    assert!(mocks[0].cancels.lock().is_empty());
    assert!(next.is_clean());
    assert_eq!(mocks[0].logins.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_shard_that_stays_silent_after_a_cancel_is_given_up() {
    let (mocks, pools) = shards(2, 2).await;
    *mocks[0].answer.lock() = Answer::Silence;
    let mut held = Connections::new(2);
    for lease in pools
        .acquire(&[ShardId(0), ShardId(1)], soon())
        .await
        .unwrap()
    {
        held.put(lease.shard, lease);
    }
    for (_, conn) in held.iter_mut() {
        conn.query("SELECT 1");
    }
    held.recover(&pools, Instant::now() + Duration::from_millis(100))
        .await;
    let clean: Vec<bool> = held.iter_mut().map(|(_, c)| c.is_clean()).collect();
    assert_eq!(clean, [false, true]);
    assert_eq!(mocks[0].cancels.lock().len(), 1);
    // What ended by itself was not cancelled.
    assert!(mocks[1].cancels.lock().is_empty());
    held.release();
    until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_shard_that_dies_behind_a_row_is_lost() {
    let (mocks, pools) = shards(1, 2).await;
    *mocks[0].answer.lock() = Answer::Die;
    let mut lease = one(&pools).await;
    assert!(matches!(
        ask(&mut lease).await,
        Err(BackendError::Lost { .. })
    ));
    assert!(lease.is_poisoned());
}

#[tokio::test]
async fn closing_waits_for_leases_and_turns_others_away() {
    let (mocks, pools) = shards(1, 2).await;
    drop(one(&pools).await);
    let lease = one(&pools).await;
    let closing = tokio::spawn({
        let pools = pools.clone();
        async move { pools.0.close(soon()).await }
    });
    tokio::task::yield_now().await;
    drop(lease);
    closing.await.unwrap();
    until(|| mocks[0].sessions.load(Ordering::SeqCst) == 0).await;
    assert!(pools.acquire(FIRST, soon()).await.is_err());
}

#[tokio::test]
async fn a_roles_connections_are_lent_to_nobody_else() {
    let (mocks, pools) = shards(1, 4).await;
    let (alice, bob) = (pools.role("alice"), pools.role("bob"));
    drop(one(&alice).await);
    drop(one(&bob).await);
    drop(one(&alice).await);
    assert!(bob.acquire_idle(ShardId(0), Instant::now()).is_some());
    assert_eq!(*mocks[0].users.lock(), ["alice", "bob"]);
    assert!(Arc::ptr_eq(&alice, &pools.role("alice")));
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_another_roles() {
    let (mocks, pools) = shards(1, 2).await;
    let (alice, bob) = (pools.role("alice"), pools.role("bob"));
    let held = (one(&alice).await, one(&alice).await);
    let early = bob
        .acquire(FIRST, Instant::now() + Duration::from_millis(20))
        .await;
    assert!(matches!(early, Err(BackendError::PoolExhausted { .. })));
    drop(held);
    let mut lease = one(&bob).await;
    assert_eq!(ask(&mut lease).await.unwrap(), 1);
    until(|| mocks[0].sessions.load(Ordering::SeqCst) == 2).await;
    assert_eq!((pools.usage()[0].in_use, pools.usage()[0].idle), (1, 1));
    assert_eq!(pools.0.retired()[0].idle, 1);
    drop(lease);
}

#[tokio::test]
async fn many_roles_share_few_connections() {
    let (mocks, pools) = shards(2, 3).await;
    let sessions = (0..24).map(|i| {
        let role = pools.role(&format!("role{}", i % 8));
        tokio::spawn(async move {
            for _ in 0..10 {
                let wanted = [ShardId(0), ShardId(1)];
                for mut lease in role.acquire(&wanted, soon()).await.unwrap() {
                    ask(&mut lease).await.unwrap();
                }
            }
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        session.await.unwrap();
    }
    assert!(
        mocks
            .iter()
            .all(|m| m.sessions_max.load(Ordering::SeqCst) <= 3 + 3)
    );
    assert!(pools.usage().iter().all(|u| u.in_use == 0 && u.idle <= 3));
}

#[tokio::test]
async fn roles_without_sessions_and_connections_vanish() {
    let (_mocks, pools) = shards(1, 2).await;
    for n in 0..20 {
        drop(pools.role(&format!("never{n}")));
    }
    assert_eq!(pools.0.count(), 1);
    let used = pools.role("used");
    drop(one(&used).await);
    drop(used);
    drop(pools.role("next"));
    assert_eq!(pools.0.count(), 2);
    let changed = Defaults {
        parameters: vec![("TimeZone".into(), "UTC".into())],
        settings: Arc::from([]),
    };
    let old = pools.role("used");
    let login = |_, _: &ClientKeys| pools.0.configured().shards[0].places.connector.own_login();
    let seen = (Instant::now(), 1);
    let new = pools
        .0
        .enter("used", changed, seen, ClientKeys::default(), login);
    assert!(
        !Arc::ptr_eq(&old, &new.pools),
        "other defaults, other connections"
    );
}
