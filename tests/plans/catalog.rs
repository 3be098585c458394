//! The catalog that the golden plans are made with: three shards, written out in code.

use std::collections::HashMap;
use std::sync::Arc;

use pgbraid::catalog::sharding::{KeyClass, Sharding, ShardingFunction};
use pgbraid::catalog::writes::Writes;
use pgbraid::catalog::{
    Catalog, Column, Distribution, Function, FunctionKind, ShardId, Table, TableKind, Type,
    Volatility,
};
use pgbraid::plan::{Collation, CollationProvider};

/// Name of a type in the tables below, OID, array OID, what `format_type` prints, collatable.
const TYPES: [(&str, u32, u32, &str, bool); 25] = [
    ("bool", 16, 1000, "boolean", false),
    ("bytea", 17, 1001, "bytea", false),
    ("int8", 20, 1016, "bigint", false),
    ("int2", 21, 1005, "smallint", false),
    ("int4", 23, 1007, "integer", false),
    ("text", 25, 1009, "text", true),
    ("oid", 26, 1028, "oid", false),
    ("float4", 700, 1021, "real", false),
    ("float8", 701, 1022, "double precision", false),
    ("bpchar", 1042, 1014, "character(8)", true),
    ("varchar", 1043, 1015, "character varying(40)", true),
    ("date", 1082, 1182, "date", false),
    (
        "timestamp",
        1114,
        1115,
        "timestamp without time zone",
        false,
    ),
    ("timestamptz", 1184, 1185, "timestamp with time zone", false),
    ("interval", 1186, 1187, "interval", false),
    ("numeric", 1700, 1231, "numeric", false),
    ("uuid", 2950, 2951, "uuid", false),
    ("jsonb", 3802, 3807, "jsonb", false),
    ("record", 2249, 2287, "record", false),
    ("int4range", 3904, 3905, "int4range", false),
    ("mood", 16400, 16401, "public.mood", false),
    ("regclass", 2205, 2210, "regclass", false),
    ("name", 19, 1003, "name", true),
    ("money", 790, 791, "money", false),
    ("timetz", 1266, 1270, "time with time zone", false),
];

/// Schema-qualified name, key or `reference`/`home`/`undeclared`, columns (`!` for NOT NULL, `*` for the primary key).
const TABLES: [(&str, &str, &str); 20] = [
    (
        "orders",
        "o_orderkey",
        "o_orderkey int8*, o_custkey int4!, o_status text!, o_totalprice numeric!, o_orderdate date!",
    ),
    (
        "lineitem",
        "l_orderkey",
        "l_orderkey int8!, l_partkey int4!, l_suppkey int4!, l_quantity numeric!, l_price numeric!, l_shipdate date!, l_mode bpchar!",
    ),
    (
        "customer",
        "c_custkey",
        "c_custkey int4*, c_name varchar!, c_nationkey int4!, c_acctbal numeric!",
    ),
    (
        "part",
        "p_partkey",
        "p_partkey int4*, p_name varchar!, p_brand bpchar!",
    ),
    (
        "partsupp",
        "ps_partkey",
        "ps_partkey int4!, ps_suppkey int4!, ps_cost numeric!",
    ),
    (
        "nation",
        "reference",
        "n_nationkey int4*, n_name bpchar!, n_regionkey int4!",
    ),
    ("region", "reference", "r_regionkey int4*, r_name bpchar!"),
    (
        "tags",
        "reference",
        "id int4*, code text, label text, weight numeric, active bool",
    ),
    (
        "users",
        "id",
        "id int8*, name text!, country bpchar, manager_id int8, score float8",
    ),
    (
        "events",
        "user_id",
        "id int8!, user_id int8!, kind text!, at timestamptz!, payload jsonb, amount numeric",
    ),
    (
        "alltypes",
        "id",
        "id int8*, grp int4, ref int4, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, num numeric, t text, coll text, ch bpchar, b bool, d date, ts timestamp, iv interval, u uuid, jsb jsonb, i4r int4range, mo mood",
    ),
    ("dupes", "id", "id int8*, k int4, v text, w numeric, d date"),
    ("codes", "code", "code text*, n int4"),
    ("spread", "", "a int4, b text"),
    ("settings", "home", "name text*, value text"),
    ("forgotten", "undeclared", "a int4"),
    // With row security and checks, see `policies` and `checks`.
    ("own_rows", "id", "id int8*, owner text"),
    ("members_rows", "id", "id int8*, owner text"),
    ("counted_rows", "id", "id int8*, k int4"),
    ("checked", "id", "id int8*, k int4"),
];

/// What the row security of a table asks.
fn policies(table: &str) -> Vec<String> {
    let policy = match table {
        "own_rows" => {
            "((owner = CURRENT_USER) OR (EXISTS ( SELECT 1\n   FROM public.tags\n  WHERE (tags.code = own_rows.owner))))"
        }
        "members_rows" => "(owner IN ( SELECT users.name\n   FROM public.users))",
        "counted_rows" => "(k < public.looks_up(1))",
        _ => return Vec::new(),
    };
    vec![policy.into()]
}

/// Functions in a table's CHECK constraints.
fn checks(table: &str) -> Vec<String> {
    match table {
        "checked" => vec!["looks_up".into()],
        "own_rows" => vec!["doubled".into()],
        _ => Vec::new(),
    }
}

const VIEWS: [(&str, &str, &str); 7] = [
    (
        "v_open",
        "o_orderkey int8, o_totalprice numeric",
        " SELECT orders.o_orderkey,\n    orders.o_totalprice\n   FROM public.orders\n  WHERE (orders.o_status = 'O'::text);",
    ),
    (
        "v_per_group",
        "grp int4, n int8, s numeric",
        " SELECT alltypes.grp,\n    count(*) AS n,\n    sum(alltypes.num) AS s\n   FROM public.alltypes\n  GROUP BY alltypes.grp;",
    ),
    (
        "v_guarded",
        "grp int4, n int8",
        " SELECT alltypes.grp,\n    count(*) AS n\n   FROM public.alltypes\n  GROUP BY alltypes.grp;",
    ),
    (
        "v_active",
        "id int4, code text",
        " SELECT tags.id,\n    tags.code\n   FROM public.tags\n  WHERE tags.active;",
    ),
    (
        "v_union",
        "id int8, name text",
        " SELECT users.id,\n    users.name\n   FROM public.users\nUNION ALL\n SELECT tags.id,\n    tags.label AS name\n   FROM public.tags;",
    ),
    (
        "v_over_union",
        "id int8",
        " SELECT v_union.id\n   FROM public.v_union\n  WHERE (v_union.id > 1);",
    ),
    (
        "v_guarded_union",
        "id int8",
        " SELECT v_union.id\n   FROM public.v_union;",
    ),
];

/// `name arguments result flags`: a aggregate, w window, s set, v volatile, t stable; `+` for variadic.
const FUNCTIONS: &str = "
count 1 int8 a; sum 1 numeric a; avg 1 numeric a; min 1 int8 a; max 1 int8 a; bool_and 1 bool a; bool_or 1 bool a;
every 1 bool a; bit_and 1 int4 a; bit_or 1 int4 a; bit_xor 1 int4 a; array_agg 1 int8 a; string_agg 2 text a;
json_agg 1 jsonb a; jsonb_agg 1 jsonb a; stddev 1 numeric a; percentile_cont 2 float8 a; mode 1 text a;
rank 0 int8 w; row_number 0 int8 w; dense_rank 0 int8 w; lag 1 int8 w; lead 1 int8 w; ntile 1 int4 w;
lower 1 text -; upper 1 text -; length 1 int4 -; abs 1 int8 -; round 1 numeric -; round 2 numeric -; repeat 2 text -;
date_trunc 2 timestamp t; extract 2 numeric -; to_char 2 text t; concat 1+ text t; md5 1 text -; pg_typeof 1 regclass t;
random 0 float8 v; clock_timestamp 0 timestamptz v; gen_random_uuid 0 uuid v; pg_sleep 1 text v; nextval 1 int8 v;
now 0 timestamptz t; statement_timestamp 0 timestamptz t; transaction_timestamp 0 timestamptz t;
generate_series 2 int8 s; unnest 1 int8 s; jsonb_each 1 record s; current_schema 0 name t; format_type 2 text t;
pg_get_viewdef 1 text t; query_to_xml 4 text v; set_config 3 text v; pg_advisory_lock 1 text v; pg_backend_pid 0 int4 t; txid_current 0 int8 t";

fn type_named(name: &str) -> (&'static str, u32, u32, &'static str, bool) {
    *TYPES
        .iter()
        .find(|t| t.0 == name)
        .unwrap_or_else(|| panic!("no type {name}"))
}

/// The OID of a type by its name; `name[]` for arrays.
pub fn type_oid(name: &str) -> u32 {
    match name.strip_suffix("[]") {
        Some(element) => type_named(element).2,
        None => type_named(name).1,
    }
}

fn column(text: &str) -> Column {
    let (name, of) = text.split_once(' ').expect("name and type");
    let (_, oid, _, printed, collatable) = type_named(of.trim_end_matches(['!', '*']));
    Column {
        name: name.into(),
        type_oid: oid,
        type_modifier: -1,
        type_name: printed.into(),
        not_null: of.ends_with(['!', '*']),
        collation: if collatable { 100 } else { 0 },
    }
}

fn sharding(column: &Column) -> Sharding {
    Sharding {
        function: ShardingFunction::Modulo,
        class: match column.type_oid {
            25 | 1043 => KeyClass::Text,
            _ => KeyClass::Integer,
        },
        shards: 3,
    }
}

fn table((name, placed, columns): &(&str, &str, &str)) -> Table {
    let texts: Vec<&str> = columns.split(", ").collect();
    let columns: Vec<Column> = texts.iter().map(|t| column(t)).collect();
    let position = columns.iter().position(|c| c.name == *placed);
    let distribution = match *placed {
        "reference" => Distribution::Reference,
        "home" => Distribution::Single(ShardId(1)),
        "undeclared" => Distribution::Undeclared { reason: None },
        _ => Distribution::Sharded {
            key: position,
            sharding: position.map(|p| {
                let mut of = sharding(&columns[p]);
                if of.class == KeyClass::Text {
                    of.function = ShardingFunction::Postgres;
                }
                Arc::new(of)
            }),
        },
    };
    Table {
        schema: "public".into(),
        name: (*name).into(),
        oid: 0,
        kind: TableKind::Table,
        distribution,
        primary_key: texts
            .iter()
            .enumerate()
            .filter(|(_, t)| t.ends_with('*'))
            .map(|(i, _)| i)
            .collect(),
        columns,
        view_definition: None,
        guarded: !policies(name).is_empty(),
        policies: policies(name),
        rows: 1000.0,
        row_bytes: 100.0,
        writes: Writes {
            checks: checks(name),
            ..Writes::default()
        },
    }
}

fn system_table() -> Table {
    Table {
        schema: "pg_catalog".into(),
        kind: TableKind::System,
        distribution: Distribution::System,
        ..table(&(
            "pg_class",
            "reference",
            "oid oid!, relname name!, relkind text!",
        ))
    }
}

fn view((name, columns, definition): &(&str, &str, &str)) -> Table {
    Table {
        kind: TableKind::View,
        distribution: Distribution::View,
        view_definition: Some((*definition).into()),
        guarded: name.contains("guarded"),
        ..table(&(name, "reference", columns))
    }
}

fn function(text: &str) -> Function {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [name, count, result, flags] = words[..] else {
        panic!("{text}")
    };
    let variadic = count.ends_with('+');
    let count: usize = count.trim_end_matches('+').parse().expect("a number");
    Function {
        schema: "pg_catalog".into(),
        name: name.into(),
        kind: match flags {
            "a" => FunctionKind::Aggregate,
            "w" => FunctionKind::Window,
            _ => FunctionKind::Function,
        },
        volatility: match flags {
            "v" => Volatility::Volatile,
            "t" => Volatility::Stable,
            _ => Volatility::Immutable,
        },
        strict: true,
        arguments: vec![25; count],
        result: type_oid(result),
        returns_set: flags == "s",
        language: "internal".into(),
        variadic,
        default_arguments: 0,
        columns: Vec::new(),
        names: None,
    }
}

/// A function with a body.
fn user_function(name: &str, language: &str, volatility: Volatility, source: &str) -> Function {
    Function {
        names: pgbraid::sql::names_in_source(source),
        schema: "public".into(),
        language: language.into(),
        volatility,
        ..function(&format!("{name} 1 int8 -"))
    }
}

/// Functions of users, what their bodies name from nothing to tables.
fn user_functions() -> Vec<Function> {
    vec![
        user_function(
            "looks_up",
            "sql",
            Volatility::Stable,
            "select count(*) from users where id = $1",
        ),
        user_function(
            "touches",
            "plpgsql",
            Volatility::Volatile,
            "begin insert into log values ($1); return 1; end",
        ),
        user_function("native", "c", Volatility::Immutable, ""),
        user_function(
            "label_of",
            "sql",
            Volatility::Stable,
            "select max(n_nationkey) from nation where n_name = $1",
        ),
        user_function(
            "doubled",
            "plpgsql",
            Volatility::Volatile,
            "begin return 2 * abs($1); end",
        ),
        user_function(
            "indirect",
            "sql",
            Volatility::Immutable,
            "select doubled(looks_up($1))",
        ),
        user_function(
            "dated",
            "sql",
            Volatility::Stable,
            "select length($1 || now())",
        ),
        user_function("elsewhere", "plperl", Volatility::Immutable, ""),
        // As extensions have them for their types: they take nothing else.
        Function {
            kind: FunctionKind::Aggregate,
            arguments: vec![type_oid("mood")],
            ..user_function("max", "c", Volatility::Immutable, "")
        },
    ]
}

fn collation(name: &str, provider: CollationProvider, locale: &str) -> Arc<Collation> {
    Arc::new(Collation {
        name: name.into(),
        provider,
        locale: locale.into(),
        deterministic: name != "folded",
        version: None,
    })
}

fn types() -> HashMap<u32, Arc<Type>> {
    let mut out = HashMap::new();
    for (name, oid, array, _, collatable) in TYPES {
        let base = Type {
            oid,
            schema: if oid < 16384 { "pg_catalog" } else { "public" }.into(),
            name: name.into(),
            kind: match name {
                "mood" => b'e',
                "record" => b'p',
                "int4range" => b'r',
                _ => b'b',
            },
            element: 0,
            array,
            base: 0,
            subtype: 0,
            apart: name == "mood",
            labels: Vec::new(),
            fields: Vec::new(),
            collatable,
        };
        let of_array = Type {
            oid: array,
            name: format!("_{name}"),
            kind: b'b',
            element: oid,
            array: 0,
            ..base.clone()
        };
        out.insert(oid, Arc::new(base));
        out.insert(array, Arc::new(of_array));
    }
    out
}

/// The whole catalog.
pub fn catalog() -> Catalog {
    let mut tables: Vec<Table> = TABLES
        .iter()
        .map(table)
        .chain(VIEWS.iter().map(view))
        .collect();
    tables.push(system_table());
    let mut functions: HashMap<String, Vec<Arc<Function>>> = HashMap::new();
    let listed = FUNCTIONS.split(';').map(function);
    for f in listed.chain(user_functions()) {
        functions
            .entry(f.name.clone())
            .or_default()
            .push(Arc::new(f));
    }
    Catalog {
        version: 1,
        shards: 3,
        catalog_shard: Some(ShardId(0)),
        tables: tables
            .into_iter()
            .map(|t| ((t.schema.clone(), t.name.clone()), Arc::new(t)))
            .collect(),
        functions,
        types: types(),
        collations: HashMap::from([
            (950, collation("C", CollationProvider::Bytes, "C")),
            (12000, collation("en-x-icu", CollationProvider::Icu, "en")),
            (12001, collation("folded", CollationProvider::Icu, "und")),
        ]),
        default_collation: Some(
            (*collation("default", CollationProvider::Libc, "en_US.UTF-8")).clone(),
        ),
        search_path: vec!["public".into()],
        // Of the same kind.
        user_operators: vec!["=".into(), "<".into(), "+".into()],
        ..Catalog::default()
    }
}
