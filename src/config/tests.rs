//! The loader as a user meets it: whole files in, a configuration or a list of mistakes out.

use super::*;

const CORE: &str = r#"
[database]
name = "bench"
[[shard]]
name = "s1"
host = "127.0.0.1"
port = 6001
user = "app"
[[shard]]
name = "s2"
host = "127.0.0.1"
port = 6002
user = "app"
[[user]]
name = "app"
password = "app"
"#;

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    variables.iter().map(owned).collect()
}

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    parse(Path::new("test.toml"), text, &environment(variables))
}

fn good(text: &str) -> Config {
    parse_with(text, &[]).unwrap_or_else(|e| panic!("{e}"))
}

/// The mistakes as `line:column key: message`.
fn mistakes(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let errors = parse_with(text, variables).expect_err("there are mistakes");
    let line = |m: &Mistake| format!("{}:{} {}: {}", m.line, m.column, m.key, m.message);
    errors.0.iter().map(line).collect()
}

fn core_and(rest: &str) -> String {
    format!("{CORE}{rest}")
}

#[test]
fn a_short_file_gets_the_defaults() {
    let config = good(CORE);
    assert_eq!(config.server, Server::default());
    assert_eq!(config.pool, Pool::default());
    assert_eq!(config.auth.method, AuthMethod::Scram);
    assert_eq!(config.auth.shard_role, ShardRole::Client);
    assert_eq!(config.shards[1].dbname, "bench");
    assert_eq!(config.shards[1].sslmode, SslMode::Prefer);
    assert!(config.tables.is_empty());
}

#[test]
fn the_example_lists_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pgbraid.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let variables = environment(&[("SHARD_PASSWORD", "x"), ("APP_PASSWORD", "y")]);
    let (config, reader) = read(&path, &text, &variables);
    assert_eq!(*reader.mistakes.borrow(), []);
    let config = config.expect("no mistakes");
    assert_eq!(config.server, Server::default());
    assert_eq!(config.pool, Pool::default());
    assert_eq!(config.merge, Merge::default());
    assert_eq!(config.tls, Tls::default());
    assert_eq!(config.log, Log::default());
    assert_eq!(config.console, Console::default());
    assert_eq!(config.auth, Auth::default());
    let named = Database {
        name: config.database.name.clone(),
        ..Database::default()
    };
    assert_eq!(config.database, named);
    let shown = keys_shown(&text);
    for key in reader.known_keys.borrow().iter() {
        assert!(
            shown.contains(key),
            "config/pgbraid.toml does not show {key}"
        );
    }
}

/// The keys a file gives or shows in comments, as `section.key`.
fn keys_shown(text: &str) -> Vec<String> {
    let word = |text: &str| {
        text.trim()
            .chars()
            .all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let mut section = String::new();
    let mut shown = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_string();
        }
        let line = line.trim_start_matches("# ");
        let outer = line.split_once(" =").map_or("", |(key, _)| key);
        if word(outer) {
            shown.push(format!("{section}.{outer}"));
        }
        for part in line
            .split(['{', ',', '['])
            .filter_map(|p| p.split_once(" ="))
        {
            for list in ["ranges", "values"] {
                shown.push(format!("{section}.{list}.{}", part.0.trim()));
            }
        }
    }
    shown
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let text = r#"[server]
listen = "nowhere"
htpp = "127.0.0.1:9632"
[database]
name = "bench"
function = "postgre"
[pool]
size = "many"
idle_timeout = 10
[merge]
memory_max = "1 cow"
[[shard]]
name = "s1"
host = "127.0.0.1"
port = 66000
user = "app"
[[shard]]
name = "s1"
user = "app"
[[table]]
name = "orders"
key = "id"
reference = true
[[table]]
name = "items"
home = "s3"
[[user]]
name = "app"
[colour]
"#;
    let expected = [
        r#"2:10 server.listen: is "nowhere""#,
        "3:1 server.htpp: unknown key",
        r#"6:12 database.function: is "postgre""#,
        r#"8:8 pool.size: is "many""#,
        "9:16 pool.idle_timeout: is the number 10",
        r#"11:14 merge.memory_max: is "1 cow""#,
        "15:8 shard.s1.port: is the number 66000",
        "17:1 shard.s1.host: is missing",
        "18:8 shard.s1.name: is used twice",
        "23:13 table.orders.reference: contradicts what else is said of this table",
        r#"26:8 table.items.home: is "s3""#,
        "27:1 user.app.password: is missing",
        "29:2 colour: unknown section",
    ];
    assert_eq!(mistakes(text, &[]), expected);
}

#[test]
fn a_misspelt_word_gets_a_suggestion() {
    let errors = parse_with(&core_and("[pool]\nsiez = 3\n"), &[]).expect_err("unknown key");
    assert!(
        errors.to_string().contains("size (did you mean that?)"),
        "{errors}"
    );
    let errors = parse_with(&core_and("[tls]\nmode = \"requier\"\n"), &[]).expect_err("bad word");
    assert!(
        errors.to_string().contains("did you mean \"require\"?"),
        "{errors}"
    );
}

#[test]
fn a_syntax_error_does_not_hide_other_mistakes() {
    let found = mistakes(&core_and("[pool]\nsize = \nqueue_timeout = 5\n"), &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].contains("pool.queue_timeout"), "{found:?}");
}

#[test]
fn passwords_never_show_in_messages() {
    let text = core_and(
        "[[user]]\nname = \"b\"\npassword = \"SCRAM-hunter2\"\n[[user]]\nname = \"c\"\npassword = hunter2\n",
    );
    let text =
        format!("{text}[[user]]\nname = \"d\"\npaswrd = \"hunter2\"\npwd = 1\npasword = hunter2\n");
    let errors = parse_with(&text, &[]).expect_err("bad verifier");
    assert!(
        !format!("{errors} {errors:?}").contains("hunter2"),
        "{errors}"
    );
    assert!(!format!("{:?}", good(CORE)).contains("\"app\"), password: \"app\""));
}

#[test]
fn secrets_come_from_variables_and_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "from file\n").unwrap();
    let users = "[[user]]\nname = \"b\"\npassword = \"env:B\"\n[[user]]\nname = \"c\"\npassword = \"file:secret\"\n";
    let path = folder.path().join("pgbraid.toml");
    let config = parse(
        &path,
        &core_and(users),
        &environment(&[("B", "from variable")]),
    )
    .unwrap();
    assert_eq!(config.users[1].password.reveal(), "from variable");
    assert_eq!(config.users[2].password.reveal(), "from file");
    let found = mistakes(&core_and(users), &[]);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_verifier_is_taken_whole_or_refused() {
    let verifier = "SCRAM-SHA-256$4096:JhHhXBsGSNGIVuFM2VpN9A==$LK8DDGkwr86EXyk2nVXpA27LtBULTqlckMz0Mbs7oCU=:X4MyWHnBBAIREhyXuwtIoTtgZ0DN24gIWhG3BwN1tHU=";
    let user = |password: &str| {
        core_and(&format!(
            "[[user]]\nname = \"b\"\npassword = '{password}'\n"
        ))
    };
    assert_eq!(good(&user(verifier)).users[1].password.reveal(), verifier);
    assert_eq!(mistakes(&user(&verifier[..60]), &[]).len(), 1);
}

#[test]
fn variables_override_keys() {
    let variables = [
        ("PGBRAID_SERVER_LISTEN", "0.0.0.0:1"),
        ("PGBRAID_POOL_SIZE", "7"),
        ("PGBRAID_LOG_FORMAT", "json"),
        ("PGBRAID_SHARD_S1_HOST", "db1"),
        ("PGBRAID_SHARD_2_HOST", "db2"),
        ("PGBRAID_USER_APP_PASSWORD", "env:P"),
        ("P", "secret"),
    ];
    let config = parse_with(CORE, &variables).unwrap();
    assert_eq!(config.server.listen, "0.0.0.0:1");
    assert_eq!((config.pool.size, config.log.json), (7, true));
    assert_eq!(
        (
            config.shards[0].host.as_str(),
            config.shards[1].host.as_str()
        ),
        ("db1", "db2")
    );
    assert_eq!(config.users[0].password.reveal(), "secret");
}

#[test]
fn a_variable_that_overrides_nothing_is_reported() {
    let variables = [
        ("PGBRAID_SERVER_LISTN", "0.0.0.0:1"),
        ("PGBRAID_POOL_SIZE", "few"),
        // What Kubernetes puts into containers beside a service called pgbraid-server.
        ("PGBRAID_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("PGBRAID_SERVER_PORT", "tcp://10.0.0.1:6432"),
        ("PGBRAID_SERVICE_HOST", "10.0.0.1"),
    ];
    let errors = parse_with(CORE, &variables).expect_err("unknown variable");
    let keys: Vec<_> = errors.0.iter().map(|m| m.key.as_str()).collect();
    assert_eq!(keys, ["PGBRAID_POOL_SIZE", "PGBRAID_SERVER_LISTN"]);
    assert!(
        errors
            .to_string()
            .contains("did you mean PGBRAID_SERVER_LISTEN?"),
        "{errors}"
    );
}

#[test]
fn table_names_are_sql_names() {
    let tables = "[[table]]\nname = 'Orders'\nkey = 'O_OrderKey'\n[[table]]\nname = 'public.\"Order Items\"'\nkey = '\"UserId\"'\n";
    let config = good(&core_and(tables));
    let name = |i: usize| {
        (
            config.tables[i].schema.as_str(),
            config.tables[i].name.as_str(),
        )
    };
    assert_eq!(
        (name(0), name(1)),
        (("public", "orders"), ("public", "Order Items"))
    );
    let key = |i: usize| match &config.tables[i].placement {
        Placement::Sharded { key, .. } => key.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (key(0).as_deref(), key(1).as_deref()),
        (Some("o_orderkey"), Some("UserId"))
    );
    let twice =
        "[[table]]\nname = 'a'\nkey = 'x'\n[[table]]\nname = 'public.A'\nreference = true\n";
    assert_eq!(
        mistakes(&core_and(twice), &[]),
        ["21:8 table.public.A.name: is declared twice"]
    );
}

#[test]
fn placements_are_read() {
    let tables = "[[table]]\nname = 'a'\nsharded = true\n[[table]]\nname = 'b'\nreference = true\n[[table]]\nname = 'c'\nhome = 's2'\n";
    let config = good(&core_and(tables));
    let unknown = Placement::Sharded {
        key: None,
        function: FunctionName::Postgres,
        bounds: vec![],
    };
    assert_eq!(config.tables[0].placement, unknown);
    assert_eq!(config.tables[1].placement, Placement::Reference);
    assert_eq!(config.tables[2].placement, Placement::Home(1));
    assert_eq!(
        mistakes(&core_and("[[table]]\nname = 'd'\n"), &[]),
        ["17:1 table.d.key: is missing"]
    );
}

#[test]
fn ranges_and_values_say_where_keys_lie() {
    let tables = r#"
[[table]]
name = "a"
key = "day"
function = "range"
ranges = [{ shard = "s1" }, { from = 2024-01-01, shard = "s2" }, { from = "2025-01-01", shard = "s1" }]
[[table]]
name = "b"
key = "country"
function = "list"
values = [{ shard = "s1", values = ["BR", 7] }, { shard = "s2", values = ["PT"], null = true }]
"#;
    let config = good(&core_and(tables));
    let bounds = |i: usize| match &config.tables[i].placement {
        Placement::Sharded { bounds, .. } => bounds.clone(),
        other => panic!("{other:?}"),
    };
    let entry = |text: &str, shard: usize| (Some(text.to_string()), shard);
    assert_eq!(
        bounds(0),
        [(None, 0), entry("2024-01-01", 1), entry("2025-01-01", 0)]
    );
    assert_eq!(
        bounds(1),
        [entry("BR", 0), entry("7", 0), (None, 1), entry("PT", 1)]
    );
}

#[test]
fn ranges_with_gaps_and_repeated_values_are_refused() {
    let table = |rest: &str| core_and(&format!("[[table]]\nname = 'a'\nkey = 'k'\n{rest}\n"));
    let count = |rest: &str| mistakes(&table(rest), &[]).len();
    assert_eq!(count("function = 'range'"), 1);
    assert_eq!(
        count("function = 'range'\nranges = [{ from = 1, shard = 's1' }]"),
        1
    );
    assert_eq!(
        count(
            "function = 'range'\nranges = [{ shard = 's1' }, { from = 100, shard = 's2' }, { from = 20, shard = 's1' }]"
        ),
        1
    );
    assert_eq!(
        count(
            "function = 'list'\nvalues = [{ shard = 's1', values = ['a'] }, { shard = 's2', values = ['a'] }]"
        ),
        1
    );
    assert_eq!(
        count("function = 'list'\nvalues = [{ shrad = 's1', values = ['a'] }]"),
        2
    );
    assert_eq!(count("ranges = [{ shard = 's1' }]"), 1);
}

#[test]
fn a_database_named_twice_is_refused() {
    let shard = "[[shard]]\nname = \"s3\"\nhost = \"127.0.0.1\"\nport = 6001\nuser = \"app\"\n";
    assert_eq!(
        mistakes(&core_and(shard), &[]),
        ["19:8 shard.s3.host: is the same database as shard s1"]
    );
}

#[test]
fn the_console_has_users_of_its_own() {
    let lists =
        "[console]\nadmin_users = \"app, ops\"\n[[user]]\nname = \"ops\"\npassword = \"x\"\n";
    let console = good(&core_and(lists)).console;
    assert_eq!(console.database, "pgbraid");
    assert_eq!(console.admin_users, ["app", "ops"]);
    assert!(console.stats_users.is_empty());
    let wrong = "[console]\ndatabase = \"bench\"\nstats_users = \"nobody\"\n";
    assert_eq!(
        mistakes(&core_and(wrong), &[]),
        [
            "18:12 console.database: is the name of database.name",
            "19:15 console.stats_users: names \"nobody\", which is no [[user]]",
        ]
    );
}

#[test]
fn tls_needs_its_files() {
    assert_eq!(
        mistakes(&core_and("[tls]\nmode = \"require\"\n"), &[]).len(),
        2
    );
    let gone = mistakes(&core_and("[tls]\ncert = \"gone.pem\"\n"), &[]);
    assert!(gone[0].contains("names gone.pem: No such file"), "{gone:?}");
}

#[test]
fn an_empty_file_says_what_is_needed() {
    let keys = mistakes("", &[]);
    assert_eq!(
        keys,
        [
            "0:0 database.name: is missing",
            "0:0 shard: no shard is configured",
            "0:0 user: no user is configured, so nobody could log in",
        ]
    );
}

#[test]
fn the_configurations_shown_elsewhere_load() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let variables = [("SHARD_PASSWORD", "x"), ("APP_PASSWORD", "y")];
    for (file, start, end) in [
        ("README.md", "```toml\n", "```"),
        ("deploy/compose.yaml", "  pgbraid:\n    content: |\n", "\0"),
        ("deploy/kubernetes-sidecar.yaml", "pgbraid.toml: |\n", "---"),
        (
            "deploy/kubernetes-deployment.yaml",
            "pgbraid.toml: |\n",
            "---",
        ),
        ("deploy/helm/values.yaml", "config: |\n", "# The files"),
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let (_, shown) = text
            .split_once(start)
            .expect("the file shows a configuration");
        let shown = shown.split(end).next().unwrap();
        // Files that only exist where it runs.
        let shown = shown.replace("file:/run/", "literal:/run/");
        if let Err(errors) = parse_with(&shown, &variables) {
            panic!("{file}: {errors}");
        }
    }
}

#[test]
fn certificates_need_their_authority() {
    let missing = "0:0 tls.client_ca: is missing: clients are to show certificates";
    for text in [
        "[auth]\nmethod = \"cert\"\n",
        "[[user]]\nname = \"b\"\nmethod = \"cert\"\n",
    ] {
        assert_eq!(mistakes(&core_and(text), &[]), [missing]);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, "").unwrap();
    let text = format!("[tls]\nclient_ca = \"{}\"\n", file.display());
    let found = mistakes(&core_and(&text), &[]);
    assert!(found[0].contains("has no effect"), "{found:?}");
}

#[test]
fn a_query_for_users_is_for_passwords() {
    let auth = |lines: &str| core_and(&format!("[auth]\n{lines}\n"));
    let query = "query = \"select usename, passwd from pg_shadow where usename = $1\"";
    assert!(good(&auth(query)).auth.query.is_some());
    for lines in [
        format!("{query}\nmethod = \"trust\""),
        "query = \"select usename, passwd from pg_shadow\"".to_owned(),
    ] {
        assert_eq!(mistakes(&auth(&lines), &[]).len(), 1, "{lines}");
    }
}
