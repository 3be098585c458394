//! What the pools need done while nobody asks for it: connections opened ahead of need, and names of shards that lead elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::catalog::CatalogWatch;
use super::connector::Connector;
use super::pool::ShardPool;
use super::roles::Roles;
use crate::config::Live;

/// How often pools are looked at for connections that have gone.
const FILL_INTERVAL: Duration = Duration::from_secs(1);
/// After a shard could not be reached: statements try sooner, and tell why.
const FILL_PAUSE: Duration = Duration::from_secs(5);
/// How often to look whether names are to be followed again.
const OFF_INTERVAL: Duration = Duration::from_secs(5);

/// Starts the upkeep of all pools, until `stop`.
pub fn start(
    live: Arc<Live>,
    roles: Arc<Roles>,
    catalog: Arc<CatalogWatch>,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        let pools = roles.configured().data().iter();
        let filled = join_all(pools.map(|pool| keep_filled(pool, &live)));
        let names = roles
            .connectors()
            .enumerate()
            .map(|(shard, connector)| follow_name(shard, connector, &roles, &catalog, &live));
        let followed = join_all(names);
        tokio::select! {
            () = stop.cancelled() => {}
            _ = join(filled, followed) => {}
        }
    });
}

/// Keeps `pool.min_size` connections open, as the role that the configuration names.
async fn keep_filled(pool: &ShardPool, live: &Live) {
    loop {
        let settings = live.snapshot();
        let count = settings.pool.min_size.min(settings.pool.size);
        let pause = match pool.fill(count).await {
            Ok(()) => FILL_INTERVAL,
            Err(error) => {
                tracing::debug!(shard = error.shard(), %error, "no connection ahead of need");
                FILL_PAUSE
            }
        };
        sleep(pause).await;
    }
}

/// Looks a shard's name up every `pool.dns_interval`. Where an address is gone, so are the connections to it, one by one as they come
/// back: a server that has been replaced may well go on answering.
async fn follow_name(
    shard: usize,
    connector: &Connector,
    roles: &Roles,
    catalog: &CatalogWatch,
    live: &Live,
) {
    let mut known = Known::default();
    loop {
        let interval = live.now().pool.dns_interval;
        if !interval.is_zero() && known.has_lost_one(connector).await {
            tracing::info!(shard = %connector.name, "its name leads elsewhere: its connections are replaced");
            roles.retire(shard);
            catalog.reconnect();
        }
        sleep(if interval.is_zero() {
            OFF_INTERVAL
        } else {
            interval
        })
        .await;
    }
}

/// Where a name led when it was last looked up.
#[derive(Debug, Default)]
struct Known {
    host: String,
    addresses: Vec<SocketAddr>,
}

impl Known {
    /// Looks up; true when an address is not among the name's any more.
    async fn has_lost_one(&mut self, connector: &Connector) -> bool {
        let host = connector.settings().host.clone();
        // A name server that does not answer is no news of the shard.
        let Some(addresses) = connector.addresses().await else {
            return false;
        };
        let lost = self.host == host && self.addresses.iter().any(|a| !addresses.contains(a));
        *self = Self { host, addresses };
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::super::mock;
    use super::super::socket::hosts;
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_is_noticed_once() {
        let mut config = (*mock::config(&[1], 1)).clone();
        config.shards[0].host = "follow.test".into();
        let connector = Connector::all(&config).remove(0);
        let mut known = Known::default();
        let lead = |address: &str| hosts::lead("follow.test", address.parse().unwrap());
        lead("127.0.0.2");
        assert!(!known.has_lost_one(&connector).await);
        assert!(!known.has_lost_one(&connector).await);
        lead("127.0.0.3");
        assert!(known.has_lost_one(&connector).await);
        assert!(!known.has_lost_one(&connector).await);
        // An address has nothing to be followed.
        config.shards[0].host = "127.0.0.4".into();
        assert!(connector.renew(&config));
        assert!(!known.has_lost_one(&connector).await);
    }
}
