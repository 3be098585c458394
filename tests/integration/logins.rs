//! Who is let in: users that a shard knows, and what strangers can tell from being refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::harness::{Client, Config, Pgbraid, cluster, eventually, target_is_postgres};
use crate::transcripts::{first_challenge, login_shape};

const WHO: &str = "select current_user::text || ' ' || session_user::text";
const QUERY: &str =
    "query = \"SELECT usename, passwd, valuntil FROM pg_shadow WHERE usename = $1;\"";

fn start(query: &str) -> Pgbraid {
    let mut config = Config::new(cluster()).scram().auth(query);
    // Who may read pg_shadow.
    config.shard_user = "postgres";
    config.shard_password.clear();
    let pgbraid = Pgbraid::launch(&config);
    eventually("the catalog", || {
        Client::connect(pgbraid.port, "app", "app").ok()
    });
    pgbraid
}

#[test]
fn users_that_a_shard_knows_log_in() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = start(QUERY);
    for (role, password) in [("carol", "carol"), ("gina", "carol"), ("guarded", "secret")] {
        let mut client = Client::connect(pgbraid.port, role, password).expect(role);
        assert_eq!(client.query(WHO).value(), format!("{role} {role}"));
    }
    let mut carol = Client::connect(pgbraid.port, "carol", "carol").expect("login");
    assert_eq!(carol.query("select count(*) from notes").value(), "80");
    // Without a third column there is nothing to expire by; whatever a shard's own login says holds.
    let plain = start("query = \"select usename, passwd from pg_shadow where usename = $1\"");
    assert!(Client::connect(plain.port, "gina", "carol").is_ok());
    let refused = Client::connect(plain.port, "fred", "carol").map(drop);
    let refused = refused.expect_err("expired at the shard");
    assert!(refused.contains("VALID UNTIL"), "{refused}");
}

#[test]
fn strangers_cannot_tell_who_is_there() {
    if target_is_postgres() {
        return;
    }
    let pgbraid = start(QUERY);
    let unknown = login_shape(pgbraid.port, "nobody");
    assert!(
        unknown.last().is_some_and(|l| l.contains("28P01")),
        "{unknown:?}"
    );
    // A wrong password, of a user of the shard's or of the configuration; expired; md5; none.
    for user in ["carol", "guarded", "fred", "hugo", "ines", "x' or true --"] {
        assert_eq!(login_shape(pgbraid.port, user), unknown, "{user}");
        let salt = first_challenge(pgbraid.port, user);
        assert_eq!(salt, first_challenge(pgbraid.port, user), "{user}");
        assert_eq!(
            salt.len(),
            first_challenge(pgbraid.port, "nobody").len(),
            "{user}"
        );
    }
    // The right one does not help who may not use it.
    for (user, password) in [("fred", "carol"), ("ines", ""), ("hugo", "hugo")] {
        let refused = Client::connect(pgbraid.port, user, password).map(drop);
        assert!(refused.expect_err(user).starts_with("28P01"), "{user}");
    }
    let salt = first_challenge(pgbraid.port, "nobody");
    let again = start(QUERY);
    assert_eq!(
        salt,
        first_challenge(again.port, "nobody"),
        "a restart tells"
    );
    let log = pgbraid.log();
    for word in [
        "expired",
        "no SCRAM-SHA-256 verifier",
        "no password",
        "no such user",
    ] {
        assert!(
            log.contains(word),
            "the operator is not told: {word}\n{log}"
        );
    }
    assert!(
        !log.contains("SCRAM-SHA-256$") && !log.contains("md5a7d0"),
        "{log}"
    );
}

#[test]
fn a_query_that_mixes_users_up_lets_nobody_in() {
    if target_is_postgres() {
        return;
    }
    for query in [
        // Somebody else.
        "select 'gina'::text, passwd from pg_shadow where usename = 'gina' and $1 <> ''",
        // Everybody.
        "select usename, passwd from pg_shadow where $1 <> ''",
        // Not of pg_catalog, and its schema is not named.
        "select v, v from tags where $1 <> ''",
        "select 1 where $1 <> ''",
        "insert into notes values (1, $1, 1) returning owner, owner",
    ] {
        let pgbraid = start(&format!("query = \"{query}\""));
        let refused = Client::connect(pgbraid.port, "carol", "carol").map(drop);
        assert!(refused.expect_err(query).starts_with("57P03"), "{query}");
        // Users of the configuration do not depend on it.
        assert!(Client::connect(pgbraid.port, "guarded", "secret").is_ok());
    }
}

/// Certificates of an authority, made by `openssl` (which PostgreSQL's packages bring).
struct Authority {
    folder: PathBuf,
    name: &'static str,
}

impl Authority {
    fn new(folder: &Path, name: &'static str) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let this = Self {
            folder: folder.to_path_buf(),
            name,
        };
        let subject = format!("/CN={name}");
        this.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ed25519",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.crt"),
        ]);
        this
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.folder)
            .output()
            .expect("openssl: apt-get install openssl");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "openssl {arguments:?}: {said}");
    }

    /// Signs `file`.crt with its key for the subject; it holds for so many days.
    fn sign(&self, file: &str, subject: &str, days: &str) {
        let (key, request) = (format!("{file}.key"), format!("{file}.csr"));
        self.openssl(&[
            "req", "-newkey", "ed25519", "-nodes", "-subj", subject, "-keyout", &key, "-out",
            &request,
        ]);
        let extensions = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n";
        std::fs::write(self.folder.join("extensions"), extensions).expect("a file");
        let (ca, ca_key) = (format!("{}.crt", self.name), format!("{}.key", self.name));
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            "extensions",
            "-out",
            &format!("{file}.crt"),
        ]);
    }
}

/// Who the session is that this client gets; else why there is none.
async fn certified(
    port: u16,
    folder: &Path,
    user: &str,
    certificate: Option<&str>,
) -> Result<String, String> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let read = |file: String| CertificateDer::from_pem_file(folder.join(file)).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read("ca.crt".into())).expect("an authority");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots);
    let tls = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")));
            let chain = vec![read(format!("{name}.crt"))];
            builder
                .with_client_auth_cert(chain, key.expect("PEM"))
                .expect("a key")
        }
    };
    let text = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={user} password=secret dbname=app sslmode=require"
    );
    let connected = tokio_postgres::connect(&text, MakeRustlsConnect::new(tls)).await;
    let (client, connection) = connected.map_err(|e| told(&e))?;
    let driver = tokio::spawn(connection);
    let row = client.query_one(WHO, &[]).await.map_err(|e| told(&e))?;
    drop(client);
    driver.await.ok();
    Ok(row.get(0))
}

fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} {}", said.code().code(), said.message()),
        None => format!("TLS: {error:?}"),
    }
}

fn with_certificates(folder: &Path) -> Config {
    let mut config = Config::new(cluster())
        .user("alice", "", "")
        .user("bob", "", "certificate = \"bob.internal\"")
        .user(
            "carol",
            "secret",
            "method = \"scram\"\nshard_password = \"carol\"",
        );
    config.method = "cert";
    config.more += &format!(
        "\n[tls]\nmode = \"prefer\"\ncert = \"{0}/server.crt\"\nkey = \"{0}/server.key\"\nclient_ca = \"{0}/ca.crt\"\n",
        folder.display()
    );
    config
}

#[test]
fn certificates_stand_for_their_names() {
    if target_is_postgres() {
        return;
    }
    let folder = cluster()
        .folder
        .join(format!("certificates-{}", std::process::id()));
    let (ca, foreign) = (
        Authority::new(&folder, "ca"),
        Authority::new(&folder, "foreign"),
    );
    ca.sign("server", "/CN=localhost", "2");
    ca.sign("alice", "/CN=alice/O=app", "2");
    ca.sign("mapped", "/CN=bob.internal", "2");
    ca.sign("expired", "/CN=alice", "-1");
    ca.sign("two", "/CN=alice/CN=bob", "2");
    ca.sign("nobody", "/CN=nobody", "2");
    ca.sign("app", "/CN=app", "2");
    foreign.sign("stranger", "/CN=alice", "2");
    let pgbraid = Pgbraid::launch(&with_certificates(&folder));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let connect = |user: &str, certificate: Option<&str>| {
        runtime.block_on(certified(pgbraid.port, &folder, user, certificate))
    };
    let who = eventually("the catalog", || connect("alice", Some("alice")).ok());
    assert_eq!(who, "alice alice");
    assert_eq!(connect("bob", Some("mapped")).as_deref(), Ok("bob bob"));
    assert_eq!(connect("app", Some("app")).as_deref(), Ok("app app"));
    // Who proves it in another way needs no certificate, and may have one.
    for certificate in [None, Some("alice")] {
        assert_eq!(connect("carol", certificate).as_deref(), Ok("carol carol"));
    }
    for (user, certificate) in [
        ("alice", None),
        ("alice", Some("mapped")),
        ("alice", Some("two")),
        ("bob", Some("alice")),
        ("bob", Some("two")),
        ("guarded", Some("alice")),
        ("app", Some("alice")),
        ("nobody", Some("nobody")),
        ("bob.internal", Some("mapped")),
    ] {
        let refused = format!("28000 certificate authentication failed for user \"{user}\"");
        assert_eq!(connect(user, certificate), Err(refused), "{certificate:?}");
    }
    for certificate in ["expired", "stranger"] {
        for user in ["alice", "carol"] {
            let refused = connect(user, Some(certificate)).expect_err(certificate);
            assert!(refused.starts_with("TLS"), "{certificate}: {refused}");
        }
    }
    // In the clear there is no certificate.
    let refused = runtime.block_on(async {
        let text = format!("host=127.0.0.1 port={} user=alice dbname=app", pgbraid.port);
        tokio_postgres::connect(&text, NoTls).await.map(drop)
    });
    assert!(told(&refused.expect_err("no certificate")).starts_with("28000"));
}

#[test]
fn check_tries_the_users_at_the_shards() {
    if target_is_postgres() {
        return;
    }
    let check = |config: &Config, name: &str| {
        let file = cluster()
            .folder
            .join(format!("check-{name}-{}.toml", std::process::id()));
        std::fs::write(&file, config.print(1)).expect("a file");
        let done = Command::new(env!("CARGO_BIN_EXE_pgbraid"))
            .args(["check", "--config"])
            .arg(&file)
            .env_remove("PGBRAID_TEST_TARGET")
            .env_remove("PGBRAID_TEST_CASE")
            .output()
            .expect("the built pgbraid");
        (
            String::from_utf8_lossy(&done.stdout).into_owned(),
            done.status.success(),
        )
    };
    let config = || {
        Config::new(cluster()).user("erin", "erin", "").user(
        "carol",
        "SCRAM-SHA-256$4096:c2FsdCBvZiBjYXJvbCAxNg==$hfU1Fb0tLVGAwLk3M+9SvaRxHDDALpzuKXLwgCSkF0U=:f3r42IMKqqK91C7exeG25Zhsh+N58tjkD/xkkBrLXWo=",
        "",
    )
    };
    let (printed, _) = check(&config(), "good");
    for line in [
        "user           erin  logs in at 3 shards",
        "user           carol  by its client's own login",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    let (printed, good) = check(&config().user("dora", "wrong", ""), "wrong");
    assert!(
        printed.contains("user           dora  FAILED:"),
        "{printed}"
    );
    assert!(!good);
    let service = config()
        .user("dora", "wrong", "")
        .auth("shard_role = \"service\"");
    let (printed, _) = check(&service, "service");
    assert!(!printed.contains("FAILED"), "{printed}");
}
