//! The configuration in force. It is replaced as a whole while the process runs; whoever wants to know a setting looks here, and keeps
//! no copy of it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Config;

/// The configuration that holds now.
#[derive(Debug)]
pub struct Live(ArcSwap<Config>);

impl Live {
    /// What the process starts with.
    pub fn new(config: Arc<Config>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(config)))
    }

    /// The settings as they are now. To be looked at and let go: who holds on to them sees no change, and must not do so across an
    /// await.
    pub fn now(&self) -> Guard<Arc<Config>> {
        self.0.load()
    }

    /// The same, for those who need one state of it for a while.
    pub fn snapshot(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Puts another one in force, for everybody at once.
    pub fn replace(&self, config: Config) {
        self.0.store(Arc::new(config));
    }
}

/// What another reading of the file comes to in a process that runs: `new`, but for the settings that only a restart can change. Those
/// stay as they are in `current`; the names of those that the file has another value for come beside it.
pub fn renewed(current: &Config, mut new: Config) -> (Config, Vec<&'static str>) {
    let mut kept = Vec::new();
    let (server, old) = (&mut new.server, &current.server);
    keep("server.listen", &old.listen, &mut server.listen, &mut kept);
    keep("server.http", &old.http, &mut server.http, &mut kept);
    keep(
        "server.unix_socket",
        &old.unix_socket,
        &mut server.unix_socket,
        &mut kept,
    );
    let (bits, old_bits) = (
        &mut server.unix_socket_permissions,
        &old.unix_socket_permissions,
    );
    keep("server.unix_socket_permissions", old_bits, bits, &mut kept);
    let (reuse, old_reuse) = (&mut server.reuse_port, &old.reuse_port);
    keep("server.reuse_port", old_reuse, reuse, &mut kept);
    let (database, old) = (&mut new.database, &current.database);
    keep("database.name", &old.name, &mut database.name, &mut kept);
    keep(
        "log.format",
        &current.log.json,
        &mut new.log.json,
        &mut kept,
    );
    let (traces, old) = (&mut new.log.traces, &current.log.traces);
    keep("log.traces", old, traces, &mut kept);
    let (every, old) = (&mut new.log.trace_every, &current.log.trace_every);
    keep("log.trace_every", old, every, &mut kept);
    let names =
        |config: &Config| -> Vec<String> { config.shards.iter().map(|s| s.name.clone()).collect() };
    if names(current) != names(&new) {
        keep("shard", &current.shards, &mut new.shards, &mut kept);
        // Tables name shards by their place in that list, and are as good as it is.
        keep("table", &current.tables, &mut new.tables, &mut kept);
        keep("database", &current.database, &mut new.database, &mut kept);
    }
    (new, kept)
}

fn keep<T: Clone + PartialEq>(
    key: &'static str,
    current: &T,
    new: &mut T,
    kept: &mut Vec<&'static str>,
) {
    if current != new {
        kept.push(key);
        new.clone_from(current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::path::Path;
    use std::time::Duration;

    fn config(listen: &str, shards: &[&str], more: &str) -> Config {
        let mut text = format!("[server]\nlisten = \"{listen}\"\n[database]\nname = \"d\"\n{more}");
        for (port, name) in shards.iter().enumerate() {
            text += &format!(
                "\n[[shard]]\nname = \"{name}\"\nhost = \"h\"\nport = {}\nuser = \"u\"\n",
                port + 1
            );
        }
        text += "[[user]]\nname = \"u\"\npassword = \"p\"\n";
        parse(Path::new("test.toml"), &text, &Default::default()).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn limits_are_taken_and_addresses_stay() {
        let current = config("127.0.0.1:1", &["s1"], "");
        let new = config(
            "127.0.0.1:2",
            &["s1"],
            "[pool]\nqueue_timeout = \"1s\"\n[[table]]\nname = \"t\"\nreference = true",
        );
        let (renewed, kept) = renewed(&current, new.clone());
        assert_eq!(kept, ["server.listen"]);
        assert_eq!(renewed.server.listen, "127.0.0.1:1");
        assert_eq!(renewed.pool.queue_timeout, Duration::from_secs(1));
        assert_eq!(renewed.tables, new.tables);
    }

    #[test]
    fn tables_stay_with_the_shards_they_are_on() {
        let home = "[[table]]\nname = \"t\"\nhome = \"s2\"";
        let current = config("127.0.0.1:1", &["s1", "s2"], home);
        let swapped = config("127.0.0.1:1", &["s2", "s1"], home);
        let (renewed, kept) = renewed(&current, swapped);
        assert_eq!(kept, ["shard", "table"]);
        assert_eq!(renewed, current);
    }
}
