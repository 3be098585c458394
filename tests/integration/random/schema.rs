//! The tables and views of the test schema as far as statements are made of them.

use super::types::Type::{self, *};

/// A table or view.
pub struct Table {
    pub name: &'static str,
    /// The sharding key, or what is joined on; empty: none.
    pub key: &'static str,
    /// The columns that tell its rows apart, but for rows that are alike in all.
    pub identity: &'static [&'static str],
    pub primary_key: bool,
    pub rows: f64,
    /// How often it is taken.
    pub weight: usize,
    pub columns: &'static [(&'static str, Type)],
}

const fn table(
    name: &'static str,
    key: &'static str,
    identity: &'static [&'static str],
    rows: u16,
    weight: usize,
    columns: &'static [(&'static str, Type)],
) -> Table {
    Table {
        name,
        key,
        identity,
        primary_key: false,
        rows: rows as f64,
        weight,
        columns,
    }
}

impl Table {
    const fn with_primary_key(mut self) -> Self {
        self.primary_key = true;
        self
    }
}

#[rustfmt::skip]
pub const TABLES: &[Table] = &[
    table("users", "id", &["id"], 300, 8, &[
        ("id", Int), ("name", Text), ("email", Text), ("country", Bpchar), ("manager_id", Int), ("score", Float),
        ("created_at", Timestamptz), ("tags", Texts), ("profile", Jsonb), ("active", Bool)]).with_primary_key(),
    table("events", "user_id", &["id"], 1750, 4, &[
        ("id", Int), ("user_id", Int), ("kind", Text), ("at", Timestamptz), ("amount", Numeric), ("payload", Jsonb)]),
    table("events_2023", "user_id", &["id"], 900, 2, &[
        ("id", Int), ("user_id", Int), ("kind", Text), ("at", Timestamptz), ("amount", Numeric)]),
    table("visits", "user_id", &["user_id", "page", "n"], 400, 3, &[("user_id", Int), ("page", Text), ("n", Int)]),
    table("small_keys", "k", &["k"], 141, 3, &[("k", Int), ("s", Int), ("n", Int), ("f", Float)]).with_primary_key(),
    table("orders", "id", &["id"], 200, 5, &[
        ("id", Int), ("customer_id", Int), ("placed", Date), ("total", Numeric), ("status", Bpchar), ("note", Text)])
        .with_primary_key(),
    table("lineitem", "order_id", &["order_id", "line"], 600, 4, &[
        ("order_id", Int), ("line", Int), ("sku", Text), ("quantity", Int), ("price", Numeric), ("discount", Float),
        ("shipped", Date)]),
    table("\"Order Items\"", "\"UserId\"", &["\"Id\""], 300, 3, &[
        ("\"Id\"", Int), ("\"UserId\"", Int), ("\"Product Name\"", Text), ("\"Qty\"", Int)]),
    table("dupes", "id", &["id"], 400, 9, &[
        ("id", Int), ("k", Int), ("v", Text), ("w", Numeric), ("d", Date), ("f", Float)]).with_primary_key(),
    table("empty_s", "id", &["id"], 0, 3, &[
        ("id", Int), ("k", Int), ("v", Text), ("n", Numeric), ("f", Float), ("d", Date), ("b", Bool)]).with_primary_key(),
    table("lonely", "id", &["id"], 20, 8, &[("id", Int), ("v", Text), ("n", Numeric), ("k", Int)]).with_primary_key(),
    table("limits", "id", &["id"], 3, 1, &[
        ("id", Int), ("i2", Wide), ("i4", Wide), ("i8", Wide), ("n", Opaque)]).with_primary_key(),
    table("by_text", "k", &["k"], 96, 3, &[("k", Text), ("n", Int), ("v", Numeric)]).with_primary_key(),
    table("by_uuid", "k", &["k"], 90, 2, &[("k", Uuid), ("n", Int)]).with_primary_key(),
    table("by_date", "k", &["k"], 103, 2, &[("k", Date), ("n", Int), ("v", Text)]).with_primary_key(),
    table("alltypes", "id", &["id"], 300, 7, &[
        ("id", Int), ("grp", Int), ("pos", Int), ("i2", Wide), ("i4", Wide), ("i8", Wide), ("f8", Float),
        ("num", Numeric), ("num2", Numeric), ("numx", Numeric), ("t", Text), ("vc", Text), ("coll", Text), ("mail", Text),
        ("tc", CText), ("ch", Bpchar), ("b", Bool), ("d", Date), ("dx", Date), ("tm", Time), ("ts", Timestamp),
        ("tstz", Timestamptz), ("iv", Interval), ("u", Uuid), ("mo", Mood), ("bin", Bytea), ("cash", Money), ("ip", Inet),
        ("ia", Ints), ("ta", Texts), ("i4r", Range), ("comp", Pair), ("js", Opaque), ("f4", Opaque), ("pt", Opaque),
        ("tsv", Opaque), ("nm", Opaque), ("o", Opaque), ("vb", Opaque), ("ma", Opaque), ("fr", Opaque), ("tmtz", Opaque),
        ("jsb", Opaque), ("qc", Opaque), ("allnull", Text)]).with_primary_key(),
    table("tags", "id", &["id"], 40, 6, &[
        ("id", Int), ("label", Text), ("weight", Numeric), ("mood", Mood), ("active", Bool)]).with_primary_key(),
    table("countries", "", &["code"], 5, 4, &[("code", Bpchar), ("name", Text), ("region", Text)]).with_primary_key(),
    table("empty_r", "id", &["id", "v"], 0, 1, &[("id", Int), ("v", Text)]),
    table("other.users", "id", &["id"], 5, 2, &[("id", Int), ("name", Text)]).with_primary_key(),
    table("v_users", "id", &["id"], 200, 2, &[("id", Int), ("name", Text), ("country", Bpchar)]),
    table("v_user_events", "id", &["event_id"], 1600, 1, &[
        ("id", Int), ("name", Text), ("event_id", Int), ("kind", Text), ("amount", Numeric)]),
    table("v_user_totals", "id", &["id"], 300, 2, &[("id", Int), ("name", Text), ("events", Int), ("total", Numeric)]),
    table("v_kinds", "", &["kind"], 5, 1, &[("kind", Text), ("n", Int), ("total", Numeric)]),
    table("v_countries", "", &["code"], 4, 1, &[("code", Bpchar), ("name", Text)]),
    table("v_union", "id", &["id", "name"], 340, 1, &[("id", Int), ("name", Text)]),
];
