//! The figures and the page's files, without a browser.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::http::{Answer, get};
use crate::harness::client::query;
use crate::harness::{Client, Config, Pgbraid, cluster, eventually, free_port, target_is_postgres};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";

fn ask(address: &str, path: &str, headers: &[&str]) -> Answer {
    get(address, path, headers).expect("an answer")
}

fn figures(address: &str) -> Value {
    let answer = ask(address, "/live.json", &[]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

fn start(config: impl FnOnce(Config) -> Config) -> (Pgbraid, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let pgbraid = Pgbraid::start(config(Config::new(cluster()).http(&address)));
    (pgbraid, address)
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn nothing_a_client_sends_is_in_the_figures_but_the_shape_of_its_statements() {
    if target_is_postgres() {
        return;
    }
    let (pgbraid, address) = start(|config| config);
    let (mut fan_out, mut one, mut refused) =
        (pgbraid.client(), pgbraid.client(), pgbraid.client());
    refused.query("update users set name = 'secret_refused' where name like 'secret_%'");
    refused.query("set application_name = 'secret_name'");
    // Both wait on a shard, one with a literal and one with a parameter.
    fan_out
        .send(&query(
            "select count(*), max(pg_sleep(60)::text) from users where name <> 'secret_literal' and id <> 47114711",
        ))
        .expect("sent");
    send_with_parameter(&mut one);
    let shown = eventually("both are shown", || {
        let figures = figures(&address);
        let shown = figures["running"]["shown"].as_array()?;
        (shown.len() == 2 && shown.iter().all(|s| !s["plan"].is_null())).then_some(figures)
    });
    let text = shown.to_string();
    for secret in ["secret", "47114711"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.contains("where name <> $2 and id <> $3"), "{text}");
    let refusal = &shown["refusals"][0];
    assert_eq!(refusal["reason"], "write");
    assert_eq!(refusal["count"], 1);
    assert_eq!(refusal["user"], "app");
    assert_eq!(
        refusal["text"],
        "update users set name = $1 where name like $2"
    );
    assert!(!refusal["hint"].as_str().expect("a hint").is_empty());
    for session in shown["running"]["shown"].as_array().expect("a list") {
        let pid = session["id"].as_i64().expect("a number");
        assert!(pid > 0 && session["seconds"].as_f64().expect("seconds") >= 0.0);
    }
    let in_flight = |n: usize| shown["shards"][n]["in_flight"].as_u64().expect("a number");
    assert!((0..3).map(in_flight).sum::<u64>() >= 2, "{shown}");
    assert!(pgbraid.log().is_empty() || !pgbraid.log().contains("secret_"));
}

/// A statement on one shard that waits, with its parameter in a Bind.
fn send_with_parameter(client: &mut Client) {
    use crate::harness::client::frame;
    let sql = "select name, pg_sleep(60) from users where id = 7 and name <> $1";
    let parse = frame(b'P', format!("\0{sql}\0\0\0").as_bytes());
    let parameter = b"secret_parameter";
    let mut bind = b"\0\0\0\0\0\x01".to_vec();
    bind.extend((parameter.len() as i32).to_be_bytes());
    bind.extend(parameter);
    bind.extend(b"\0\0");
    let messages = [
        parse,
        frame(b'B', &bind),
        frame(b'E', b"\0\0\0\0\0"),
        frame(b'S', b""),
    ];
    client.send(&messages.concat()).expect("sent");
}

#[test]
fn counts_are_those_of_the_metrics() {
    if target_is_postgres() {
        return;
    }
    let (pgbraid, address) = start(|config| config);
    let before = figures(&address);
    let mut client = pgbraid.client();
    for _ in 0..3 {
        client.query("select id from users order by id");
    }
    let number = |figures: &Value, path: &str| figures.pointer(path).and_then(Value::as_f64);
    let after = eventually("the figures have them", || {
        let after = figures(&address);
        (number(&after, "/statements/push_down") == Some(3.0)).then_some(after)
    });
    assert_eq!(number(&before, "/statements/push_down"), Some(0.0));
    assert_eq!(number(&after, "/rows_to_clients"), Some(900.0));
    let shards = after["shards"].as_array().expect("shards");
    let sum = |name: &str| {
        shards
            .iter()
            .map(|s| s[name].as_u64().expect("a number"))
            .sum::<u64>()
    };
    assert!(sum("rows") >= 900, "{after}");
    assert!(sum("bytes_received") > sum("bytes_sent"));
    for shard in shards {
        assert_eq!(shard["reachable"], true);
        let of = |name: &str, what: &str| shard[name][what].as_f64().expect("a number");
        assert!(of("first_row", "count") >= 3.0, "{shard}");
        assert!(
            of("first_row", "seconds") <= of("last_row", "seconds"),
            "{shard}"
        );
        assert_eq!(shard["connections"]["size"], 8);
    }
    let counts = after["seconds"]["push_down"]["counts"]
        .as_array()
        .expect("counts");
    assert_eq!(
        counts.len(),
        after["bounds"].as_array().expect("bounds").len() + 1
    );
    assert_eq!(counts.iter().filter_map(Value::as_u64).sum::<u64>(), 3);
    // /metrics has the same.
    let metrics = ask(&address, "/metrics", &[]).body;
    for line in [
        "pgbraid_queries_total{kind=\"push_down\"} 3",
        "pgbraid_rows_total{direction=\"to_clients\"} 900",
        "pgbraid_shard_batches_in_flight{shard=\"s1\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn the_page_is_for_browsers_and_runs_its_own_files_only() {
    if target_is_postgres() {
        return;
    }
    let (_pgbraid, address) = start(|config| config);
    let index = ask(&address, "/", &["Accept: */*"]);
    assert!(index.header("content-type").starts_with("text/plain"));
    assert!(index.body.contains("/livez") && index.body.contains("/metrics"));
    assert_eq!(index.header("vary"), "Accept");
    let page = ask(&address, "/", &[BROWSER]);
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
    assert!(!policy.contains("unsafe"), "{policy}");
    // Everything it names is here, and nothing in it needs more than the policy allows.
    for (path, form) in [
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("page.svg", "image/svg+xml"),
    ] {
        assert!(page.body.contains(&format!("\"{path}\"")), "{path}");
        let file = ask(&address, &format!("/{path}"), &[]);
        assert_eq!(file.status, 200, "{path}");
        assert!(file.header("content-type").starts_with(form), "{path}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        let outside = file.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("://"), "{path} names another host");
    }
    for word in ["style=", "onclick", "<style", "://", "innerHTML"] {
        assert!(!page.body.contains(word), "{word}");
    }
    let figures = ask(&address, "/live.json", &[]);
    assert_eq!(figures.header("cache-control"), "no-store");
    assert_eq!(figures.header("access-control-allow-origin"), "");
    // A name of somebody else's that leads here.
    for path in ["/", "/live.json"] {
        let foreign = ask(&address, path, &[BROWSER, "Host: evil.example"]);
        assert_eq!(foreign.status, 421, "{path}");
        assert!(!foreign.body.contains("<html"));
    }
}

#[test]
fn the_password_guards_the_page_and_its_figures() {
    if target_is_postgres() {
        return;
    }
    let with =
        |config: Config, password: &str| config.server(&format!("http_password = \"{password}\""));
    let (pgbraid, address) = start(|config| with(config, "hidden_one"));
    let status = |path: &str, password: Option<&str>| {
        let credentials =
            password.map(|p| format!("Authorization: Basic {}", base64(&format!("ops:{p}"))));
        let headers: Vec<_> = [BROWSER]
            .into_iter()
            .chain(credentials.as_deref())
            .collect();
        ask(&address, path, &headers).status
    };
    for path in ["/", "/live.json"] {
        assert_eq!(status(path, None), 401, "{path}");
        assert_eq!(status(path, Some("hidden_two")), 401, "{path}");
        assert_eq!(status(path, Some("hidden_one")), 200, "{path}");
    }
    for path in ["/livez", "/startupz", "/readyz", "/metrics", "/page.css"] {
        assert_eq!(status(path, None), 200, "{path}");
    }
    let refused = ask(&address, "/live.json", &[]);
    assert!(
        refused
            .header("www-authenticate")
            .starts_with("Basic realm=")
    );
    assert!(!refused.body.contains("shards"));
    // Another one holds as soon as the configuration is read again.
    let next = with(Config::new(cluster()).http(&address), "hidden_two");
    pgbraid.reload(&next, "configuration reloaded");
    assert_eq!(status("/live.json", Some("hidden_one")), 401);
    assert_eq!(status("/live.json", Some("hidden_two")), 200);
    assert!(!pgbraid.log().contains("hidden_"), "{}", pgbraid.log());
}

#[test]
fn who_listens_to_the_network_without_a_password_is_told() {
    if target_is_postgres() {
        return;
    }
    let said = "set server.http_password";
    let open = format!("0.0.0.0:{}", free_port());
    let config = Config::new(cluster()).http(&open);
    let pgbraid = Pgbraid::start(config.clone());
    assert!(pgbraid.log().contains(said), "{}", pgbraid.log());
    drop(pgbraid);
    let pgbraid = Pgbraid::start(config.server("http_password = \"x\""));
    assert!(!pgbraid.log().contains(said), "{}", pgbraid.log());
    let (pgbraid, _) = start(|config| config);
    assert!(!pgbraid.log().contains(said), "{}", pgbraid.log());
}

/// Sends statements of all kinds from a thread of its own until it is dropped.
pub struct Load {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    pub fn start(pgbraid: &Pgbraid) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let (stopped, port) = (stop.clone(), pgbraid.port);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // While a shard is down some of it fails, and that is no matter here.
                let Ok(mut client) = Client::connect(port, "app", "app") else {
                    continue;
                };
                for id in 0..20 {
                    client.query(&format!("select name from users where id = {id}"));
                    client.query("select id from users order by id");
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
