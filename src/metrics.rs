//! What pgbraid counts. Handles are fields, looked up once: counting is an atomic addition, never a search by name.
//!
//! Labels are shard names and words of this file; nothing a client sends ever becomes one.

mod kinds;
mod shards;
mod spread;

use std::sync::{Arc, LazyLock};

use hashbrown::HashMap;
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use kinds::{ClientRefused, ConnectionClosed, QueryKind, Reason};
pub use shards::ShardMetrics;
pub use spread::Spread;

use shards::ShardFamilies;

/// Seconds from a tenth of a millisecond (a routed point select) to a minute (an analytic statement).
const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// How many times longer the slowest shard of a statement took than the median one.
const RATIOS: [f64; 10] = [1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0];

/// Everything counted for the process.
pub struct Metrics {
    registry: Registry,
    clients: IntGaugeVec,
    /// Roles other than the shards' own that have pools.
    pub role_pools: IntGauge,
    /// Clients logged in since the start.
    pub clients_accepted: IntCounter,
    clients_refused: [IntCounter; ClientRefused::ALL.len()],
    queries: [IntCounter; QueryKind::ALL.len()],
    refusals: [IntCounter; Reason::ALL.len()],
    /// Statements that took longer than `log.slow_query`.
    pub slow_queries: IntCounter,
    transactions: IntCounter,
    /// Of statements over several shards, how many times longer the slowest shard took than the median one.
    pub skew_ratio: Histogram,
    query_seconds: [Histogram; QueryKind::ALL.len()],
    /// Describing and planning, on misses of the plan cache only; the catalog shard's answers are part of it.
    pub planning_seconds: Histogram,
    /// From the start of a statement's execution to its first row.
    pub first_row_seconds: Histogram,
    rows_from_shards: IntCounter,
    /// Rows that clients got.
    pub rows_to_clients: IntCounter,
    /// Bytes read from clients.
    pub bytes_from_clients: IntCounter,
    /// Bytes written to clients.
    pub bytes_to_clients: IntCounter,
    bytes_from_shards: IntCounter,
    bytes_to_shards: IntCounter,
    /// Bytes brought to merge sessions.
    pub staged_bytes: IntCounter,
    errors: IntCounterVec,
    /// Plans found in the cache.
    pub plan_cache_hits: IntCounter,
    /// Statements that had to be planned.
    pub plan_cache_misses: IntCounter,
    /// Plans in the cache.
    pub plan_cache_entries: IntGauge,
    /// Bytes they are counted with.
    pub plan_cache_bytes: IntGauge,
    /// Statements that failed over something computed ahead of need and ran again without it.
    pub reruns: IntCounter,
    /// Answers without the rows of shards that could not be reached, as their clients had asked for.
    pub partial_results: IntCounter,
    /// SELECTs that ran beside others of their client's pipeline.
    pub side_by_side: IntCounter,
    /// CancelRequests that found their session.
    pub cancels: IntCounter,
    /// Version of the catalog in use; 0 before the first is loaded.
    pub catalog_version: IntGauge,
    /// Catalogs loaded since the start.
    pub catalog_loads: IntCounter,
    /// Attempts to load a catalog that failed.
    pub catalog_load_errors: IntCounter,
    families: ShardFamilies,
    shards: Mutex<HashMap<String, Arc<ShardMetrics>>>,
}

/// The process' metrics. One registry for all, as there is one `/metrics`.
pub fn global() -> &'static Metrics {
    static GLOBAL: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &GLOBAL
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own, for tests; everything else uses [`global`].
    #[expect(
        clippy::too_many_lines,
        reason = "a list of what is counted, without a branch"
    )]
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Make(&registry);
        let refused = make.counters(
            "pgbraid_clients_refused_total",
            "Clients sent away before their first statement",
            &["reason"],
        );
        let queries = make.counters(
            "pgbraid_queries_total",
            "Statements by how they were answered",
            &["kind"],
        );
        let refusals = make.counters(
            "pgbraid_refusals_total",
            "Statements refused by reason",
            &["reason"],
        );
        let seconds = make.histograms(
            "pgbraid_query_seconds",
            "From the start of a statement's execution to the end of its reply",
            &["kind"],
        );
        let rows = make.counters("pgbraid_rows_total", "Rows by direction", &["direction"]);
        let bytes = make.counters("pgbraid_bytes_total", "Bytes by direction", &["direction"]);
        let build = make.gauges(
            "pgbraid_build_info",
            "1, labelled with the version",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        make.start_time();
        Self {
            clients: make.gauges(
                "pgbraid_clients",
                "Clients logged in by what they do",
                &["state"],
            ),
            role_pools: make.gauge(
                "pgbraid_role_pools",
                "Roles with connections to the shards of their own",
            ),
            clients_accepted: make.counter(
                "pgbraid_clients_accepted_total",
                "Clients that have logged in",
            ),
            clients_refused: ClientRefused::ALL.map(|r| refused.with_label_values(&[r.label()])),
            queries: QueryKind::ALL.map(|k| queries.with_label_values(&[k.label()])),
            refusals: Reason::ALL.map(|r| refusals.with_label_values(&[r.label()])),
            slow_queries: make.counter(
                "pgbraid_slow_queries_total",
                "Statements that took longer than log.slow_query",
            ),
            transactions: make.counter(
                "pgbraid_transactions_total",
                "Transactions that have ended, those of a single statement included",
            ),
            skew_ratio: make.histogram_of(
                "pgbraid_skew_ratio",
                "Of statements over several shards, the slowest shard's time over the median shard's",
                &RATIOS,
            ),
            query_seconds: QueryKind::ALL.map(|k| seconds.with_label_values(&[k.label()])),
            planning_seconds: make.histogram(
                "pgbraid_planning_seconds",
                "Describing and planning of statements not in the plan cache",
            ),
            first_row_seconds: make.histogram(
                "pgbraid_first_row_seconds",
                "From the start of a statement's execution to its first row",
            ),
            rows_from_shards: rows.with_label_values(&["from_shards"]),
            rows_to_clients: rows.with_label_values(&["to_clients"]),
            bytes_from_clients: bytes.with_label_values(&["from_clients"]),
            bytes_to_clients: bytes.with_label_values(&["to_clients"]),
            bytes_from_shards: bytes.with_label_values(&["from_shards"]),
            bytes_to_shards: bytes.with_label_values(&["to_shards"]),
            staged_bytes: make.counter(
                "pgbraid_staged_bytes_total",
                "Bytes brought to merge sessions",
            ),
            errors: make.counters(
                "pgbraid_errors_total",
                "Errors sent to clients by SQLSTATE class",
                &["class"],
            ),
            plan_cache_hits: make
                .counter("pgbraid_plan_cache_hits_total", "Plans found in the cache"),
            plan_cache_misses: make.counter(
                "pgbraid_plan_cache_misses_total",
                "Statements that had to be planned",
            ),
            plan_cache_entries: make.gauge("pgbraid_plan_cache_entries", "Plans in the cache"),
            plan_cache_bytes: make.gauge(
                "pgbraid_plan_cache_bytes",
                "Bytes that the plans in the cache are counted with",
            ),
            reruns: make.counter(
                "pgbraid_reruns_total",
                "Statements that failed over something computed ahead of need and ran again without it.",
            ),
            partial_results: make.counter(
                "pgbraid_partial_results_total",
                "Answers without the rows of shards that could not be reached, as their clients had asked for",
            ),
            side_by_side: make.counter(
                "pgbraid_side_by_side_total",
                "SELECTs sent to their shard while others of the same client's pipeline were under way",
            ),
            cancels: make.counter(
                "pgbraid_cancels_total",
                "CancelRequests that found their session",
            ),
            catalog_version: make.gauge(
                "pgbraid_catalog_version",
                "Version of the catalog in use, 0 before the first",
            ),
            catalog_loads: make.counter("pgbraid_catalog_loads_total", "Catalogs loaded"),
            catalog_load_errors: make.counter(
                "pgbraid_catalog_load_errors_total",
                "Attempts to load a catalog that failed",
            ),
            families: ShardFamilies::new(&make),
            shards: Mutex::default(),
            registry,
        }
    }

    /// The counters of a shard, made at the first call; to be kept, not looked up again per statement.
    pub fn shard(&self, name: &str) -> Arc<ShardMetrics> {
        let mut shards = self.shards.lock();
        let made = || Arc::new(self.families.shard(name));
        shards.entry(name.to_string()).or_insert_with(made).clone()
    }

    /// Counts a client sent away.
    pub fn client_refused(&self, reason: ClientRefused) {
        self.clients_refused[reason as usize].inc();
    }

    /// Counts a statement by how it is answered.
    pub fn query(&self, kind: QueryKind) {
        self.queries[kind as usize].inc();
    }

    /// Statements counted since the start, refused ones included.
    pub fn queries_by_kind(&self) -> [(QueryKind, u64); QueryKind::ALL.len()] {
        QueryKind::ALL.map(|kind| (kind, self.queries[kind as usize].get()))
    }

    /// Seconds that statements have taken together.
    pub fn query_seconds_total(&self) -> f64 {
        let seconds = self.query_seconds.iter();
        seconds.map(Histogram::get_sample_sum).sum()
    }

    /// Counts a refusal.
    pub fn refused(&self, reason: Reason) {
        self.refusals[reason as usize].inc();
    }

    /// Refusals counted for a reason.
    pub fn refusals(&self, reason: Reason) -> u64 {
        self.refusals[reason as usize].get()
    }

    /// Clients that do this at the moment.
    pub fn set_clients(&self, state: &'static str, clients: usize) {
        let gauge = self.clients.with_label_values(&[state]);
        gauge.set(clients as i64);
    }

    /// Brings the count of transactions up to `total`: sessions keep their own.
    pub fn set_transactions(&self, total: u64) {
        let more = total.saturating_sub(self.transactions.get());
        self.transactions.inc_by(more);
    }

    /// How the times of statements are spread, by how they were answered.
    pub fn query_seconds_spread(&self) -> [(QueryKind, Spread); QueryKind::ALL.len()] {
        QueryKind::ALL.map(|kind| (kind, Spread::of(&self.query_seconds[kind as usize])))
    }

    /// Errors sent to clients since the start, by SQLSTATE class; those that have not come up are not there.
    pub fn errors_by_class(&self) -> Vec<(String, u64)> {
        let families = self.errors.collect();
        let counted = families.iter().flat_map(|family| family.get_metric());
        let by_class = counted.map(|metric| {
            let class = metric.get_label().first().map_or("", |l| l.value());
            (class.to_owned(), metric.get_counter().get_value() as u64)
        });
        by_class.collect()
    }

    /// Notes how long a statement took, from the start of its execution to the end of its reply.
    pub fn query_seconds(&self, kind: QueryKind, seconds: f64) {
        self.query_seconds[kind as usize].observe(seconds);
    }

    /// Counts an error sent to a client. Only the class is kept, and only of a well-formed SQLSTATE: a function may raise
    /// any text, and labels must stay few.
    pub fn error(&self, sqlstate: &str) {
        let class = sqlstate.get(..2).unwrap_or_default().as_bytes();
        let known = matches!(
            class,
            [
                b'0' | b'2' | b'3' | b'4' | b'5' | b'F' | b'H' | b'P' | b'X',
                b'0'..=b'9' | b'A'..=b'Z',
            ]
        );
        let class = if known { &sqlstate[..2] } else { "other" };
        self.errors.with_label_values(&[class]).inc();
    }

    /// Brings the sums over all shards up to date: what a shard sends is counted once, for itself.
    fn sum_up(&self) {
        let shards = self.shards.lock();
        let raise = |sum: &IntCounter, of: fn(&ShardMetrics) -> &IntCounter| {
            let total: u64 = shards.values().map(|s| of(s).get()).sum();
            sum.inc_by(total.saturating_sub(sum.get()));
        };
        raise(&self.rows_from_shards, |s| &s.rows);
        raise(&self.bytes_from_shards, |s| &s.bytes_received);
        raise(&self.bytes_to_shards, |s| &s.bytes_sent);
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        self.sum_up();
        let mut out = Vec::new();
        // Writing to memory fails for an unnamed metric only, and each here has its name.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Makes and registers. Names and labels are constants of this file, so failing is a programming error that the tests of
/// this file meet first.
struct Make<'a>(&'a Registry);

impl Make<'_> {
    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("metric names and labels are well-formed");
        let registered = self.0.register(Box::new(collector.clone()));
        registered.expect("metric names are unique");
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str) -> Histogram {
        self.histogram_of(name, help, &SECONDS)
    }

    fn histogram_of(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.register(CounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(options, labels))
    }

    fn start_time(&self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seconds = now.map_or(0, |d| d.as_secs());
        let name = "process_start_time_seconds";
        self.gauge(name, "Start of the process, seconds since 1970")
            .set(seconds as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = Metrics::new();
        metrics.query(QueryKind::PushDown);
        metrics.query_seconds(QueryKind::PushDown, 0.02);
        metrics.client_refused(ClientRefused::TooMany);
        metrics.shard("s1").closed(ConnectionClosed::Dirty);
        metrics.shard("s1").connections.set(3);
        let text = metrics.render();
        for line in [
            "pgbraid_queries_total{kind=\"push_down\"} 1",
            "pgbraid_query_seconds_bucket{kind=\"push_down\",le=\"0.025\"} 1",
            "pgbraid_clients_refused_total{reason=\"too_many\"} 1",
            "pgbraid_shard_connections_closed_total{reason=\"dirty\",shard=\"s1\"} 1",
            "pgbraid_shard_connections{shard=\"s1\"} 3",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn odd_sqlstates_share_one_label() {
        let metrics = Metrics::new();
        for state in ["0A000", "22P02", "zz999", "", "Q1", "é"] {
            metrics.error(state);
        }
        let text = metrics.render();
        assert!(
            text.contains("pgbraid_errors_total{class=\"0A\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("pgbraid_errors_total{class=\"other\"} 4"),
            "{text}"
        );
    }

    #[test]
    fn what_others_counted_is_not_counted_twice() {
        let metrics = Metrics::new();
        let shard = metrics.shard("s1");
        for total in [2, 2, 5] {
            shard.closed_in_all(ConnectionClosed::Idle, total);
        }
        let line = "pgbraid_shard_connections_closed_total{reason=\"idle\",shard=\"s1\"} 5";
        assert!(metrics.render().contains(line));
    }

    #[test]
    fn sums_are_those_of_the_shards() {
        let metrics = Metrics::new();
        metrics.shard("s1").rows.inc_by(2);
        metrics.shard("s2").rows.inc_by(3);
        metrics.shard("s2").bytes_sent.inc_by(7);
        // Read twice, counted once.
        metrics.render();
        let text = metrics.render();
        for line in [
            "pgbraid_rows_total{direction=\"from_shards\"} 5",
            "pgbraid_bytes_total{direction=\"to_shards\"} 7",
            "pgbraid_shard_rows_total{shard=\"s2\"} 3",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_shard_is_made_once() {
        let metrics = Metrics::new();
        assert!(Arc::ptr_eq(&metrics.shard("s1"), &metrics.shard("s1")));
    }

    #[test]
    fn autoscaling_goes_by_a_figure_there_is() {
        let metrics = Metrics::new();
        metrics.shard("s1");
        let text = metrics.render();
        for file in [
            include_str!("../deploy/kubernetes-deployment.yaml"),
            include_str!("../deploy/helm/templates/horizontalpodautoscaler.yaml"),
        ] {
            let (_, metric) = file.split_once("metric: { name: ").unwrap();
            let name = metric.split_once(' ').unwrap().0;
            assert!(text.contains(&format!("\n{name}{{shard=")), "{name}");
        }
    }
}
