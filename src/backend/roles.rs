//! The pools of every role whose sessions run statements at the shards, and what those sessions begin with.
//!
//! A role's pools are made when its first client logs in and go when neither a session nor an open connection is left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::BackendError;
use super::connector::{Connector, Login};
use super::places::Places;
use super::pool::{Pools, Retired, Usage};
use super::raw_conn::RawConn;
use super::scram::ClientKeys;
use crate::config::{Config, Secret, Shard, User};
use crate::plan::ShardId;

/// All roles.
#[derive(Debug)]
pub struct Roles {
    /// Limits that hold for all roles together.
    data: Vec<Arc<Places>>,
    merge: Vec<Arc<Places>>,
    /// The roles that the configuration names for the shards.
    configured: Arc<Pools>,
    others: Mutex<HashMap<Arc<str>, Known>>,
}

/// How a role uses the connections to a shard at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleUsage {
    /// The role's name at the shard.
    pub user: Arc<str>,
    /// Connections that statements run on.
    pub data: Usage,
    /// Merge sessions.
    pub merge: Usage,
    /// How long the first of its statements that wait has waited.
    pub longest_wait: Duration,
}

/// What a new session of a role finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// ParameterStatus values.
    pub parameters: Vec<(String, String)>,
    /// Settings that results depend on, as the first shard has them for the role: every shard's connections begin with them.
    pub settings: Arc<[(String, String)]>,
}

/// A role whose own connections its sessions use.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its connections.
    pub pools: Arc<Pools>,
    /// Read when the pools were made.
    pub defaults: Arc<Defaults>,
    /// What its clients have shown at their logins.
    pub keys: ClientKeys,
    /// When they were last found to be so, and by which catalog.
    pub seen: (Instant, u64),
}

impl Roles {
    /// Must be called inside a runtime.
    pub fn new(config: &Config) -> Arc<Self> {
        let connectors = Connector::all(config);
        let places = |merge: bool, size: usize| -> Vec<Arc<Places>> {
            let connectors = connectors.iter();
            let places = |c: &Arc<Connector>| Places::new(c.clone(), merge, size, &config.pool);
            connectors.map(places).collect()
        };
        let data = places(false, config.pool.size);
        let merge = places(true, config.pool.merge_size);
        let configured = Pools::new(&data, &merge, |_| None);
        Arc::new(Self {
            data,
            merge,
            configured,
            others: Mutex::default(),
        })
    }

    /// Takes over what another configuration says of the shards and the pools. Connections opened otherwise than today end as soon as
    /// nobody has them; who waits goes on waiting. A role that would log in otherwise does so from its next session.
    pub fn renew(&self, current: &Config, new: &Config) {
        for (data, merge) in self.data.iter().zip(&self.merge) {
            // Both have the same.
            let moved = data.connector.renew(new);
            if moved || current.pool != new.pool {
                data.renew(new.pool.size, &new.pool);
                merge.renew(new.pool.merge_size, &new.pool);
            }
        }
        let logins = |config: &Config| -> Vec<_> {
            let login = |s: &Shard| (s.user.clone(), s.password.clone());
            config.shards.iter().map(login).collect()
        };
        let same_logins = logins(current) == logins(new);
        self.others.lock().retain(|role, _| {
            let user = |config: &Config| -> Option<User> {
                config.users.iter().find(|u| *u.name == **role).cloned()
            };
            same_logins && user(current) == user(new)
        });
    }

    /// Ends the connections to a shard that are open now, each as soon as nobody has it.
    pub(super) fn retire(&self, shard: usize) {
        self.data[shard].connector.retire();
        self.data[shard].close_retired();
        self.merge[shard].close_retired();
    }

    /// Connections of one shard in use, or being opened for somebody.
    pub(super) fn in_use(&self, shard: usize) -> usize {
        self.data[shard].usage().in_use + self.merge[shard].usage().in_use
    }

    /// A shard's own.
    pub(super) fn connector(&self, shard: usize) -> &Connector {
        &self.data[shard].connector
    }

    /// The connector of each shard.
    pub(super) fn connectors(&self) -> impl Iterator<Item = &Arc<Connector>> {
        self.data.iter().map(|places| &places.connector)
    }

    /// Connections as the roles that `[[shard]]` names.
    pub fn configured(&self) -> &Arc<Pools> {
        &self.configured
    }

    /// The pools of a role, where there are any.
    pub fn known(&self, role: &str) -> Option<Known> {
        self.others.lock().get(role).cloned()
    }

    /// The pools of a role with these defaults: those that there are, or new ones. Sessions that have begun under other defaults keep
    /// their own pools.
    pub fn enter(
        &self,
        role: &str,
        defaults: Defaults,
        seen: (Instant, u64),
        keys: ClientKeys,
        login: impl Fn(ShardId, &ClientKeys) -> Login,
    ) -> Known {
        let mut others = self.others.lock();
        if let Some(known) = others.get_mut(role)
            && *known.defaults == defaults
        {
            known.seen = seen;
            return known.clone();
        }
        // Every role that comes makes room for itself: what is left is in use, or has connections, whose number is limited.
        others.retain(|_, known| {
            Arc::strong_count(&known.pools) > 1 || known.pools.has_connections()
        });
        let pools = Pools::new(&self.data, &self.merge, |places| {
            Some(Login {
                settings: defaults.settings.clone(),
                ..login(places.connector.id, &keys)
            })
        });
        let known = Known {
            pools,
            defaults: Arc::new(defaults),
            keys,
            seen,
        };
        others.insert(role.into(), known.clone());
        known
    }

    /// A connection of its own to a shard, which counts as one of the shard's while it is used.
    ///
    /// # Errors
    /// As connecting; `PoolExhausted` past the deadline.
    pub async fn connect<T>(
        &self,
        shard: ShardId,
        login: &Login,
        deadline: Instant,
        work: impl AsyncFnOnce(RawConn) -> T,
    ) -> Result<T, BackendError> {
        let places = &self.data[usize::from(shard.0)];
        let user = || login.user.clone();
        let _permit = places.permit(deadline, user).await?;
        let _place = places.place(u64::MAX).await?;
        let conn = places.connector.connect_as(login).await?;
        Ok(work(conn).await)
    }

    /// How many roles have pools of their own.
    pub fn count(&self) -> usize {
        self.others.lock().len()
    }

    /// How a shard's connections are used, by the shards' order. Statements that a pause holds back wait for one.
    pub fn usage(&self) -> Vec<Usage> {
        let usage = |places: &Arc<Places>| {
            let usage = places.usage();
            Usage {
                waiting: usage.waiting + places.connector.gate().held(),
                ..usage
            }
        };
        self.data.iter().map(usage).collect()
    }

    /// The same for the merge sessions.
    pub fn merge_usage(&self) -> Vec<Usage> {
        self.merge.iter().map(|p| p.usage()).collect()
    }

    /// How each role uses a shard, by the role's name; the one that the configuration names there is always among them.
    pub fn usage_by_role(&self, shard: ShardId) -> Vec<RoleUsage> {
        let shard = usize::from(shard.0);
        let mut data = self.data[shard].by_user();
        let mut merge = self.merge[shard].by_user();
        let waits = self.connector(shard).gate().waits();
        let mut users: Vec<_> = data.keys().chain(merge.keys()).cloned().collect();
        users.extend(waits.iter().map(|w| w.user.clone()));
        users.sort_unstable();
        users.dedup();
        let usage = |user: Arc<str>| {
            let waiting = |merge| {
                let own = waits.iter().filter(|w| w.user == user && w.merge == merge);
                own.count()
            };
            let first = waits.iter().find(|w| w.user == user);
            RoleUsage {
                data: Usage {
                    waiting: waiting(false),
                    ..data.remove(&user).unwrap_or_default()
                },
                merge: Usage {
                    waiting: waiting(true),
                    ..merge.remove(&user).unwrap_or_default()
                },
                longest_wait: first.map(|w| w.since.elapsed()).unwrap_or_default(),
                user,
            }
        };
        users.into_iter().map(usage).collect()
    }

    /// Connections that were closed for their age, by the shards' order.
    pub fn retired(&self) -> Vec<Retired> {
        let places = self.data.iter().zip(&self.merge);
        let both = places.map(|(data, merge)| (data.retired(), merge.retired()));
        both.map(|(data, merge)| Retired {
            idle: data.idle + merge.idle,
            age: data.age + merge.age,
        })
        .collect()
    }

    /// Ends the pools: nobody is lent a connection any more, connections on loan may come back until `deadline`, idle ones are
    /// closed.
    pub async fn close(&self, deadline: Instant) {
        for places in self.data.iter().chain(&self.merge) {
            places.close(deadline).await;
        }
    }
}

/// What a role logs in with at a shard: what the configuration has for it there, its own password, or what its client has shown.
pub fn login(config: &Config, role: &str, shard: ShardId, keys: &ClientKeys) -> Login {
    let place = &config.shards[usize::from(shard.0)];
    let configured = config.users.iter().find(|u| u.name == role);
    let password = match configured {
        _ if place.user == role && !place.password.is_empty() => place.password.clone(),
        Some(user) if !user.shard_password.is_empty() => user.shard_password.clone(),
        Some(user) if !user.has_verifier() => user.password.clone(),
        _ => Secret::new(""),
    };
    Login {
        user: role.into(),
        password,
        keys: keys.clone(),
        settings: Arc::from([]),
    }
}
