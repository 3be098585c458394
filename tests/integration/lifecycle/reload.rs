//! SIGHUP: what may change does, what may not is said, a file with mistakes changes nothing, and no session notices.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use super::{has_no_proxy, work};
use crate::harness::relay::Fault;
use crate::harness::{Client, Config, Load, Pgbraid, Relay, cluster, eventually};

const DONE: &str = "configuration reloaded";
const REFUSED: &str = "the configuration stays as it was";

fn with_user(name: &str) -> Config {
    // The shards need not know them.
    let config = Config::new(cluster()).auth("shard_role = \"service\"");
    config.scram().user(name, "secret", "")
}

#[test]
fn users_come_and_go_and_sessions_stay() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(with_user("before"));
    let log_in = |name| Client::connect(pgbraid.port, name, "secret");
    let mut client = log_in("before").expect("login");
    client.query("set application_name to 'kept'");
    client.query("begin");
    pgbraid.reload(&with_user("after"), DONE);
    assert_eq!(client.query("select count(*) from users").value(), "300");
    assert_eq!(client.query("commit").tag, "COMMIT");
    assert_eq!(client.query("show application_name").value(), "kept");
    assert!(log_in("after").is_ok());
    let refused = log_in("before").err().unwrap_or_default();
    assert!(refused.starts_with("28P01"), "{refused}");
}

#[test]
fn the_salt_of_a_user_tells_nothing_of_a_reload() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(with_user("somebody"));
    let salts = || ["app", "somebody", "nobody"].map(|user| salt(&pgbraid, user));
    let before = salts();
    pgbraid.reload(&with_user("other"), DONE);
    let after = salts();
    assert_eq!(before[0], after[0], "of a user that stays");
    assert_eq!(before[2], after[2], "of a user that never was");
}

/// What SCRAM tells everybody who asks.
fn salt(pgbraid: &Pgbraid, user: &str) -> String {
    use crate::harness::client::{frame, startup};
    let mut client = Client::open(pgbraid.port).expect("connected");
    let parameters = [("user", user), ("database", "app")];
    client.send(&startup(&parameters)).expect("sent");
    client.receive().expect("a choice of mechanisms");
    let first = b"n,,n=,r=abcdefghijklmnopqrstuvwx";
    let length = u32::try_from(first.len()).expect("short").to_be_bytes();
    let answer = [&b"SCRAM-SHA-256\0"[..], &length, first].concat();
    client.send(&frame(b'p', &answer)).expect("sent");
    let challenge = client.receive().expect("a challenge").body;
    let text = String::from_utf8_lossy(&challenge[4..]).into_owned();
    let salt = text.split(',').find(|part| part.starts_with("s="));
    salt.expect("a salt").to_owned()
}

#[test]
fn limits_and_the_log_level_follow_the_file() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let clients: Vec<_> = (0..3).map(|_| pgbraid.client()).collect();
    let mut config = Config::new(cluster()).server("max_clients = 3");
    config.more = "[log]\nlevel = \"info,pgbraid=trace\"\n".into();
    pgbraid.reload(&config, DONE);
    let refused = Client::connect(pgbraid.port, "app", "app").err();
    assert!(refused.unwrap_or_default().starts_with("53300"));
    let missing = "a cancel request found no session";
    assert!(!pgbraid.log().contains(missing));
    Client::cancel(pgbraid.port, &[0, 0, 0, 1, 0, 0, 0, 1]).expect("sent");
    eventually("a line of the level debug", || {
        pgbraid.log().contains(missing).then_some(())
    });
    pgbraid.reload(&Config::new(cluster()), DONE);
    assert!(Client::connect(pgbraid.port, "app", "app").is_ok());
    drop(clients);
}

#[test]
fn tables_follow_the_file() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = pgbraid.client();
    let sql = "select count(*) from drift";
    let reply = client.query(sql);
    assert_eq!(reply.sqlstate().as_deref(), Some("0A000"));
    let mut config = Config::new(cluster());
    config.more = "[[table]]\nname = \"drift\"\nhome = \"s2\"\n".into();
    pgbraid.reload(&config, DONE);
    eventually("the table is read", || {
        client.query(sql).error.is_none().then_some(())
    });
    pgbraid.reload(&Config::new(cluster()), DONE);
    eventually("the table is refused", || {
        client.query(sql).error.is_some().then_some(())
    });
}

#[test]
fn a_file_that_changes_is_read_without_a_signal_where_that_is_wanted() {
    if has_no_proxy() {
        return;
    }
    let refresh = "config_refresh = \"50ms\"";
    let log_in = |pgbraid: &Pgbraid, name| Client::connect(pgbraid.port, name, "secret");
    let pgbraid = Pgbraid::start(with_user("before").server(refresh));
    pgbraid.write(&with_user("after").server(refresh));
    eventually("the new user", || log_in(&pgbraid, "after").ok());
    assert!(log_in(&pgbraid, "before").is_err());
    // Said once, however often it is looked at, and forgotten when the file is right again.
    let broken = with_user("third").server(refresh).server("max_clients = 0");
    pgbraid.write(&broken);
    pgbraid.wait_for_log(REFUSED);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(pgbraid.log().matches(REFUSED).count(), 1);
    pgbraid.write(&with_user("third"));
    eventually("the third user", || log_in(&pgbraid, "third").ok());
    // That file wants no looking any longer.
    let before = pgbraid.log().matches(DONE).count();
    pgbraid.write(&with_user("fourth"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(pgbraid.log().matches(DONE).count(), before);
}

#[test]
fn a_file_with_mistakes_changes_nothing() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(with_user("before"));
    let mut client = pgbraid.client();
    let mut broken = with_user("after").server("max_clients = \"no number\"");
    broken.pool = "[pool]\nsize = 0\n".into();
    pgbraid.reload(&broken, REFUSED);
    let log = pgbraid.log();
    for key in ["server.max_clients", "pool.size"] {
        assert!(log.contains(key), "{key} is not in the log:\n{log}");
    }
    assert_eq!(client.query("select count(*) from users").value(), "300");
    assert!(Client::connect(pgbraid.port, "before", "secret").is_ok());
    assert!(Client::connect(pgbraid.port, "after", "secret").is_err());
}

#[test]
fn what_only_a_restart_changes_is_said() {
    if has_no_proxy() {
        return;
    }
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let mut client = pgbraid.client();
    let text = Config::new(cluster()).print(pgbraid.port);
    let swapped = text.replace("name = \"s1\"", "name = \"s9\"");
    pgbraid.reload_text(&swapped, "changes at the next start only");
    let log = pgbraid.log();
    assert!(log.contains("key=\"shard\""), "{log}");
    assert_eq!(client.query("select count(*) from users").value(), "300");
}

#[test]
fn certificates_are_read_again() {
    if has_no_proxy() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    install(folder.path(), "first");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut config = Config::new(cluster());
    config.more = format!(
        "[tls]\nmode = \"prefer\"\ncert = \"{}\"\nkey = \"{}\"\n",
        path("server.crt"),
        path("server.key")
    );
    let pgbraid = Pgbraid::start(config.clone());
    let mut client = pgbraid.client();
    let first = certificate(pgbraid.port);
    install(folder.path(), "second");
    assert_eq!(certificate(pgbraid.port), first);
    pgbraid.reload(&config, DONE);
    let second = certificate(pgbraid.port);
    assert_ne!(second, first);
    // A key that does not belong to the certificate: the good ones stay.
    let key = include_bytes!("certificates/first.key");
    std::fs::write(folder.path().join("server.key"), key).expect("a file");
    pgbraid.reload(&config, REFUSED);
    assert_eq!(certificate(pgbraid.port), second);
    client.assert_in_step("three reloads");
}

fn install(folder: &Path, name: &str) {
    let [first, second] = [
        [
            &include_bytes!("certificates/first.crt")[..],
            include_bytes!("certificates/first.key"),
        ],
        [
            &include_bytes!("certificates/second.crt")[..],
            include_bytes!("certificates/second.key"),
        ],
    ];
    let [certificate, key] = if name == "first" { first } else { second };
    std::fs::write(folder.join("server.crt"), certificate).expect("a file");
    std::fs::write(folder.join("server.key"), key).expect("a file");
}

/// The certificate that a client is shown which begins with TLS.
fn certificate(port: u16) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let mut config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let name = ServerName::try_from("any.test").expect("a name");
    let mut tls = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).expect("a handshake");
    }
    tls.peer_certificates().expect("a certificate")[0].to_vec()
}

/// Takes every certificate: which one it is, is what the test looks at.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[test]
fn a_reload_under_load_loses_nothing() {
    if has_no_proxy() {
        return;
    }
    let relay = Relay::start(cluster().shards[1]);
    let pgbraid = Pgbraid::start(Config::new(cluster()));
    let start = |number: usize| {
        // Two roles share the places.
        let (user, password) = [("app", "app"), ("guarded", "secret")][number % 2];
        Client::connect(pgbraid.port, user, password).expect("login")
    };
    let failed = Load::run(8, start, work, |load| {
        for round in 0..5 {
            // More and fewer; always enough for both roles, who else would open connections in turn.
            let mut config = Config::new(cluster()).pool_size(8 + round * 5 % 8);
            if round % 3 == 1 {
                // The shard moves.
                config = config.with_port(1, relay.port);
            }
            if round % 2 == 0 {
                config.more = "[[table]]\nname = \"drift\"\nhome = \"s2\"\n".into();
            }
            pgbraid.reload(&config, DONE);
            load.wait_for_done(16);
        }
    });
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(relay.opened() > 0, "the shard has not moved");
}

#[test]
fn connections_are_kept_open_ahead_of_need() {
    if has_no_proxy() {
        return;
    }
    let relay = Relay::start(cluster().shards[1]);
    let config = |count: usize| {
        let mut config = Config::new(cluster()).with_port(1, relay.port);
        config.pool = format!("[pool]\nsize = 16\nmin_size = {count}\n");
        config
    };
    // Catalogs and health have two connections of their own.
    let all_open = |before: usize, count: usize| {
        eventually("connections ahead of need", || {
            (relay.opened() >= before + count).then_some(())
        });
    };
    let pgbraid = Pgbraid::start(config(6));
    all_open(0, 6);
    let before = relay.opened();
    pgbraid.reload(&config(12), DONE);
    all_open(before, 6);
    // The shard restarts.
    let before = relay.opened();
    relay.arm(Fault::Cut { after: 0 });
    relay.heal();
    let mut client = pgbraid.client();
    eventually("an answer", || {
        let reply = client.query("select count(*) from users");
        reply.error.is_none().then_some(())
    });
    assert!(relay.opened() > before);
}
