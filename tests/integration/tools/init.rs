//! A first configuration from shards whose layout nobody wrote down.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Databases, run, run_with, utf8};
use crate::harness::cluster::free_port;
use crate::harness::{Client, adopt, cluster, eventually, release};

fn schema(shard: usize) -> String {
    let own = match shard {
        1 => "create table at_home (a int4); insert into at_home values (1);",
        _ => "",
    };
    format!(
        "create table h (k int8) partition by hash (k);
         create function at(k int8) returns bool language sql as
             'select satisfies_hash_partition(''h''::regclass, 3, {shard}, k)';
         create table orders (id int8 primary key, user_id int8, at date, note text);
         insert into orders select n, n % 50, date '2024-01-01' + n, 'note ' || n from generate_series(1, 600) n where at(n);
         create table events (id int8, user_id int8 not null, at timestamptz) partition by range (at);
         create table events_2024 partition of events for values from ('2024-01-01') to ('2025-01-01');
         insert into events select n, n % 97, timestamptz '2024-01-01' + n * interval '1 hour' from generate_series(1, 900) n where at(n % 97);
         create table remainders (a text, k int4 primary key, again int4);
         insert into remainders select 'x', n, n from generate_series(-200, 200) n where ((n % 3) + 3) % 3 = {shard};
         create table \"Order Items\" (\"Id\" int8, \"UserId\" int8);
         insert into \"Order Items\" select n, n % 80 from generate_series(1, 500) n where at(n % 80);
         create table countries (code char(2) primary key, name text);
         insert into countries select chr(65 + n) || 'X', 'Country ' || n from generate_series(1, 20) n;
         create table anywhere (id int8 primary key, v text);
         insert into anywhere select n, 'v' from generate_series(1, 300) n where n / 10 % 3 = {shard};
         create table few (id int8 primary key);
         insert into few select n from generate_series(1, 4) n where at(n);
         create table nothing (id int8 primary key);
         {own}
         create view v as select * from orders;
         grant all on all tables in schema public to app;
         drop table h cascade; drop function at;"
    )
}

fn urls(databases: &Databases) -> Vec<String> {
    let ports = cluster().shards.iter();
    ports
        .map(|port| format!("postgres://app:app@127.0.0.1:{port}/{}", databases.name))
        .collect()
}

/// `pgbraid serve`, ended with the test.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
        release(self.0.id());
    }
}

fn serve(path: &Path, port: u16) -> Serving {
    let child = Command::new(env!("CARGO_BIN_EXE_pgbraid"))
        .args(["serve", "--config", utf8(path)])
        .env_remove("PGBRAID_TEST_TARGET")
        .env_remove("PGBRAID_TEST_CASE")
        .env("SHARD_PASSWORD", "app")
        .env("PGBRAID_SERVER_LISTEN", format!("127.0.0.1:{port}"))
        .env("PGBRAID_SERVER_HTTP", "")
        .env("PGBRAID_LOG_LEVEL", "off")
        .stdin(Stdio::null())
        .spawn()
        .expect("the built pgbraid");
    adopt(child.id());
    Serving(child)
}

#[test]
fn a_layout_is_found_again_and_serves() {
    let databases = Databases::create("init", schema);
    let path = cluster()
        .folder
        .join(format!("{}-init.toml", databases.name));
    let urls = urls(&databases);
    let mut arguments = vec!["init", "--output", utf8(&path)];
    for url in &urls {
        arguments.extend(["--shard", url]);
    }
    let (status, out, err) = run(&arguments);
    assert_eq!(status, 0, "{out}{err}");
    let text = std::fs::read_to_string(&path).expect("written");
    assert!(
        !text.contains(":app@") && !text.contains("= \"app\"\npassword = \"app\""),
        "{text}"
    );

    let (status, out, err) = run_with(
        &["check", "--config", utf8(&path)],
        &[("SHARD_PASSWORD", "app")],
    );
    assert_eq!(status, 0, "{out}{err}\n{text}");
    let tables: Vec<&str> = out.lines().filter(|l| l.starts_with("table ")).collect();
    let expected = [
        "public.Order Items  sharded by UserId (postgres)",
        "public.at_home  on shard s2",
        "public.countries  reference, on every shard",
        "public.events  sharded by user_id (postgres)",
        "public.orders  sharded by id (postgres)",
        "public.remainders  sharded by k (modulo)",
    ];
    let expected: Vec<String> = expected
        .iter()
        .map(|t| format!("table          {t}"))
        .collect();
    assert_eq!(tables, expected, "{text}");
    for (table, why) in [
        ("anywhere", "has 300 rows that differ from shard to shard"),
        ("few", "has too few rows (4) to be sure of its key"),
        ("nothing", "has no rows"),
    ] {
        let line = format!("# TO DECIDE: public.{table} {why}");
        assert!(text.contains(&line), "{line}\n{text}");
    }

    let port = free_port();
    let _serving = serve(&path, port);
    let parameters = [("user", "app"), ("database", databases.name.as_str())];
    let mut client = eventually("pgbraid answers", || {
        let mut client = Client::connect_with(port, &parameters, "app").ok()?;
        client.query("select 1").error.is_none().then_some(client)
    });
    assert_eq!(client.query("select count(*) from orders").value(), "600");
    assert_eq!(
        client
            .query("select note from orders where id = 77")
            .value(),
        "note 77"
    );
    assert_eq!(
        client
            .query("select count(*) from few")
            .sqlstate()
            .as_deref(),
        Some("0A000")
    );
}

#[test]
fn a_file_that_is_there_stays() {
    let path = super::file("there.toml", "mine");
    let url = format!("postgres://app:app@127.0.0.1:{}/app", cluster().shards[0]);
    let (status, _, err) = run(&["init", "--shard", &url, "--output", utf8(&path)]);
    assert_eq!(status, 1, "{err}");
    assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
}

#[test]
fn mistakes_in_a_url_do_not_show_its_password() {
    let (status, out, err) = run(&["init", "--shard", "postgres://app:hunter2@a,b/x"]);
    assert_eq!(status, 1);
    assert!(err.contains("names several hosts") && !(out + &err).contains("hunter2"));
}
