//! What is counted for each shard.

use prometheus::{
    Counter, CounterVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::Make;
use super::kinds::ConnectionClosed;

/// What is counted for one shard; kept by its pool.
#[derive(Debug)]
pub struct ShardMetrics {
    /// 1 when the last connection attempt or health check succeeded.
    pub up: IntGauge,
    /// 1 while an operator has it paused.
    pub paused: IntGauge,
    /// Connections open, in use or not.
    pub connections: IntGauge,
    /// The most connections there may be.
    pub connections_max: IntGauge,
    /// Connections on loan to sessions.
    pub connections_in_use: IntGauge,
    /// Connections open and on loan to nobody.
    pub connections_idle: IntGauge,
    /// Sessions that wait for a connection.
    pub waiters: IntGauge,
    /// How long sessions waited until they might have a connection; 0 where one was free.
    pub wait_seconds: Histogram,
    /// Connections made since the start.
    pub connects: IntCounter,
    /// Connections that could not be made.
    pub connect_errors: IntCounter,
    closed: [IntCounter; ConnectionClosed::ALL.len()],
    /// From the first byte of a batch to the shard's ReadyForQuery; a client slow to read is part of it.
    pub query_seconds: Histogram,
    /// From the first byte of a batch to its first row, of those that have rows.
    pub first_row_seconds: Histogram,
    /// Of the same batches, to the end of the answer; a sum.
    pub last_row_seconds: Counter,
    /// Batches that it has not answered in full.
    pub in_flight: IntGauge,
    /// Rows it has sent.
    pub rows: IntCounter,
    /// Bytes read from it.
    pub bytes_received: IntCounter,
    /// Bytes written to it.
    pub bytes_sent: IntCounter,
    /// Statements over several shards that waited for this one longest.
    pub slowest: IntCounter,
    /// Statements prepared on its connections.
    pub parses: IntCounter,
}

pub(super) struct ShardFamilies {
    paused: IntGaugeVec,
    connections_idle: IntGaugeVec,
    slowest: IntCounterVec,
    parses: IntCounterVec,
    up: IntGaugeVec,
    connections: IntGaugeVec,
    connections_max: IntGaugeVec,
    connections_in_use: IntGaugeVec,
    waiters: IntGaugeVec,
    wait_seconds: HistogramVec,
    connects: IntCounterVec,
    connect_errors: IntCounterVec,
    closed: IntCounterVec,
    query_seconds: HistogramVec,
    first_row_seconds: HistogramVec,
    last_row_seconds: CounterVec,
    in_flight: IntGaugeVec,
    rows: IntCounterVec,
    bytes: IntCounterVec,
}

impl ShardFamilies {
    #[expect(
        clippy::too_many_lines,
        reason = "a list of what is counted, without a branch"
    )]
    pub(super) fn new(make: &Make<'_>) -> Self {
        let shard = &["shard"];
        Self {
            paused: make.gauges(
                "pgbraid_shard_paused",
                "1 while an operator has the shard paused",
                shard,
            ),
            connections_idle: make.gauges(
                "pgbraid_shard_connections_idle",
                "Connections open and on loan to nobody",
                shard,
            ),
            slowest: make.counters(
                "pgbraid_shard_slowest_total",
                "Statements over several shards that waited for this one longest",
                shard,
            ),
            parses: make.counters(
                "pgbraid_shard_parses_total",
                "Statements prepared on the shard's connections",
                shard,
            ),
            up: make.gauges(
                "pgbraid_shard_up",
                "1 when the shard could be reached at the last attempt",
                shard,
            ),
            connections: make.gauges("pgbraid_shard_connections", "Connections open", shard),
            connections_max: make.gauges(
                "pgbraid_shard_connections_max",
                "The most connections there may be",
                shard,
            ),
            connections_in_use: make.gauges(
                "pgbraid_shard_connections_in_use",
                "Connections on loan to sessions",
                shard,
            ),
            waiters: make.gauges(
                "pgbraid_shard_waiters",
                "Sessions that wait for a connection",
                shard,
            ),
            wait_seconds: make.histograms(
                "pgbraid_shard_wait_seconds",
                "How long sessions waited for a connection",
                shard,
            ),
            connects: make.counters("pgbraid_shard_connects_total", "Connections made", shard),
            connect_errors: make.counters(
                "pgbraid_shard_connect_errors_total",
                "Connections that could not be made",
                shard,
            ),
            closed: make.counters(
                "pgbraid_shard_connections_closed_total",
                "Connections closed",
                &["shard", "reason"],
            ),
            query_seconds: make.histograms(
                "pgbraid_shard_query_seconds",
                "From sending a batch of messages to the shard's ReadyForQuery",
                shard,
            ),
            first_row_seconds: make.histograms(
                "pgbraid_shard_first_row_seconds",
                "From sending a batch of messages to its first row",
                shard,
            ),
            last_row_seconds: make.seconds(
                "pgbraid_shard_last_row_seconds_total",
                "From sending a batch of messages that has rows to the end of its answer",
                shard,
            ),
            in_flight: make.gauges(
                "pgbraid_shard_batches_in_flight",
                "Batches of messages that the shard has not answered in full",
                shard,
            ),
            rows: make.counters(
                "pgbraid_shard_rows_total",
                "Rows that the shard has sent",
                shard,
            ),
            bytes: make.counters(
                "pgbraid_shard_bytes_total",
                "Bytes read from the shard and written to it",
                &["shard", "direction"],
            ),
        }
    }

    pub(super) fn shard(&self, name: &str) -> ShardMetrics {
        let labels = &[name];
        ShardMetrics {
            paused: self.paused.with_label_values(labels),
            connections_idle: self.connections_idle.with_label_values(labels),
            slowest: self.slowest.with_label_values(labels),
            parses: self.parses.with_label_values(labels),
            up: self.up.with_label_values(labels),
            connections: self.connections.with_label_values(labels),
            connections_max: self.connections_max.with_label_values(labels),
            connections_in_use: self.connections_in_use.with_label_values(labels),
            waiters: self.waiters.with_label_values(labels),
            wait_seconds: self.wait_seconds.with_label_values(labels),
            connects: self.connects.with_label_values(labels),
            connect_errors: self.connect_errors.with_label_values(labels),
            closed: ConnectionClosed::ALL
                .map(|r| self.closed.with_label_values(&[name, r.label()])),
            query_seconds: self.query_seconds.with_label_values(labels),
            first_row_seconds: self.first_row_seconds.with_label_values(labels),
            last_row_seconds: self.last_row_seconds.with_label_values(labels),
            in_flight: self.in_flight.with_label_values(labels),
            rows: self.rows.with_label_values(labels),
            bytes_received: self.bytes.with_label_values(&[name, "received"]),
            bytes_sent: self.bytes.with_label_values(&[name, "sent"]),
        }
    }
}

impl ShardMetrics {
    /// Counts a closed connection.
    pub fn closed(&self, reason: ConnectionClosed) {
        self.closed[reason as usize].inc();
    }

    /// Connections closed since the start, by any reason.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().map(IntCounter::get).sum()
    }

    /// Brings the count up to `total` since the start, for connections that somebody else has closed and counted.
    pub fn closed_in_all(&self, reason: ConnectionClosed, total: u64) {
        let counter = &self.closed[reason as usize];
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}
