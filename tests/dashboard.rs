//! Holds deploy/grafana-dashboard.json to the metrics there are: every name it uses is rendered, and every metric is on it.
#![allow(unused_crate_dependencies)]

use std::collections::BTreeSet;
use std::path::Path;

use pgbraid::metrics::{ClientRefused, ConnectionClosed, Metrics, QueryKind};

fn dashboard() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana-dashboard.json");
    let text = std::fs::read_to_string(path).expect("the dashboard");
    serde_json::from_str(&text).expect("JSON")
}

/// The expressions of all panels and variables.
fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(text) if matches!(name.as_str(), "expr" | "query") => {
                        found.push(text.to_owned());
                    }
                    _ => expressions(field, found),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|i| expressions(i, found)),
        _ => {}
    }
}

/// Names of metrics in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|w| w.starts_with("pgbraid_") || w.starts_with("process_"))
}

/// Every metric once, as Prometheus sees it.
fn rendered() -> String {
    let metrics = Metrics::new();
    metrics.query(QueryKind::Routed);
    metrics.query_seconds(QueryKind::Routed, 0.1);
    metrics.client_refused(ClientRefused::TooMany);
    metrics.set_clients("idle", 1);
    metrics.error("0A000");
    metrics.shard("s1").closed(ConnectionClosed::Replaced);
    metrics.render()
}

/// The names of all time series.
fn series(rendered: &str) -> BTreeSet<&str> {
    let lines = rendered.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|l| l.split(['{', ' ']).next().expect("a name"))
        .collect()
}

#[test]
fn every_name_on_the_dashboard_is_rendered() {
    let rendered = rendered();
    let series = series(&rendered);
    let mut found = Vec::new();
    expressions(&dashboard(), &mut found);
    let used: BTreeSet<_> = found.iter().flat_map(|e| names(e)).collect();
    assert!(used.len() > 30, "{used:?}");
    let unknown: Vec<_> = used.iter().filter(|n| !series.contains(**n)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not among {series:?}");
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let rendered = rendered();
    let mut found = Vec::new();
    expressions(&dashboard(), &mut found);
    let used: BTreeSet<_> = found.iter().flat_map(|e| names(e)).collect();
    let families = rendered.lines().filter_map(|l| l.strip_prefix("# TYPE "));
    let families = families.filter_map(|l| l.split(' ').next());
    let is_used = |family: &str| {
        let bare = |name: &&str| name.strip_suffix("_bucket").unwrap_or(name) == family;
        used.iter().any(bare)
    };
    let missing: Vec<_> = families.filter(|f| !is_used(f)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn names_carry_their_units_and_labels_are_few() {
    let rendered = rendered();
    for family in rendered.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let (name, kind) = family.split_once(' ').expect("a kind");
        let ends_well = match kind {
            "counter" => name.ends_with("_total"),
            "histogram" => name.ends_with("_seconds") || name.ends_with("_ratio"),
            _ => !name.ends_with("_total"),
        };
        assert!(ends_well, "{family}");
    }
    let known = [
        "kind",
        "shard",
        "reason",
        "direction",
        "class",
        "state",
        "version",
        "le",
    ];
    for line in rendered.lines().filter(|l| !l.starts_with('#')) {
        let labels = line
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'));
        for label in labels.map_or("", |(labels, _)| labels).split("\",") {
            let name = label.split('=').next().expect("a name");
            assert!(name.is_empty() || known.contains(&name), "{line}");
        }
    }
}
