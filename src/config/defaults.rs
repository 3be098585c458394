//! The defaults of every section, in one place. `config/pgbraid.toml` says why each is what it is; a test compares the two.

use std::time::Duration;

use super::{
    Console, Database, FunctionName, Log, Merge, Pool, Secret, Server, Tcp, Tls, TlsMode,
    Undeclared,
};

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:6432".into(),
            http: "127.0.0.1:9632".into(),
            http_password: Secret::new(""),
            unix_socket: None,
            unix_socket_permissions: 0o777,
            max_clients: 1000,
            login_timeout: Duration::from_secs(60),
            client_idle_timeout: Duration::ZERO,
            message_bytes_max: 256 << 20,
            reuse_port: false,
            config_refresh: Duration::ZERO,
            shutdown_wait: Duration::ZERO,
            shutdown_grace: Duration::from_secs(30),
            shard_silence_timeout: Duration::ZERO,
            pipeline_parallelism: 4,
            tcp: Tcp::default(),
        }
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            keepalives_idle: Duration::from_secs(60),
            keepalives_interval: Duration::from_secs(10),
            keepalives_count: 6,
            user_timeout: Duration::ZERO,
        }
    }
}

impl Default for Database {
    /// All but the name, which has no default.
    fn default() -> Self {
        Self {
            name: String::new(),
            function: FunctionName::Postgres,
            undeclared: Undeclared::Refuse,
            catalog_refresh: Duration::from_secs(60),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            mode: TlsMode::Disable,
            cert: None,
            key: None,
            client_ca: None,
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            size: 32,
            min_size: 0,
            merge_size: 8,
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(3600),
            queue_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            dns_interval: Duration::from_secs(30),
            tcp: Tcp::default(),
        }
    }
}

impl Default for Merge {
    fn default() -> Self {
        Self {
            memory_max: 256 << 20,
            max_staged_bytes: 1 << 30,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            json: false,
            slow_query: Duration::ZERO,
            refusals: "debug".into(),
            traces: String::new(),
            trace_every: 1,
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self {
            database: "pgbraid".into(),
            admin_users: Vec::new(),
            stats_users: Vec::new(),
        }
    }
}
