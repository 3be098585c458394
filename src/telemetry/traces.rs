//! Traces over OTLP (feature `otlp`): what became of a statement, as spans of OpenTelemetry.
//!
//! ```text
//! SELECT                  db.query.text (literals and parameters are not in it), plan kind, rows
//! ├─ plan                 where it was planned for this message
//! ├─ shard s1             rows, bytes, stage
//! ├─ shard s2
//! └─ merge session        on which shard
//! ```
//! Spans are made when the statement has ended, of times that were noted anyway. A thread of the SDK's own sends them.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

/// A collector that does not take a batch within this time does not get it.
const SEND_TIME: Duration = Duration::from_secs(5);
/// What is left to send when the process ends may take so long.
const STOP_TIME: Duration = Duration::from_secs(3);

static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// What became of a statement.
pub struct Traced<'a> {
    /// W3C's header, as the statement's comment has it.
    pub traceparent: Option<&'a str>,
    /// Its first word, which names the span.
    pub name: String,
    /// Routed, push_down …
    pub kind: &'static str,
    /// The client's user.
    pub user: &'a str,
    /// From when to when it ran.
    pub ran: (Instant, Instant),
    /// From when to when it was planned, where that was just before.
    pub planned: Option<(Instant, Instant)>,
    /// SQLSTATE, where it failed.
    pub error: Option<String>,
}

/// What one shard did for it.
pub struct Part {
    /// `shard s1`, `merge session`.
    pub name: String,
    /// Its name.
    pub shard: String,
    /// The stage that its rows are brought to, counted from 1.
    pub stage: Option<usize>,
    /// From when to when.
    pub ran: (Instant, Instant),
    /// Rows it sent.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Sends spans to `endpoint` from now on. Of statements that bring no trace of their own one in `every` is sampled; 0: none. To be called
/// once, within the runtime.
///
/// # Errors
/// An endpoint that is none.
pub fn start(endpoint: &str, every: u64) -> Result<(), String> {
    let client = OnRuntime {
        client: HyperClient::with_default_connector(SEND_TIME, None),
        runtime: Handle::current(),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(endpoint)
        .with_timeout(SEND_TIME)
        .build()
        .map_err(|error| error.to_string())?;
    let own = match every {
        0 => Sampler::AlwaysOff,
        1 => Sampler::AlwaysOn,
        every => Sampler::TraceIdRatioBased(1.0 / every as f64),
    };
    let resource = Resource::builder()
        .with_service_name("pgbraid")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        // Whoever brings a trace has decided already.
        .with_sampler(Sampler::ParentBased(Box::new(own)))
        .with_resource(resource)
        .build();
    let tracer = provider.tracer("pgbraid");
    // There is one configuration, and it is started once.
    let _ = TRACES.set(Traces { provider, tracer });
    Ok(())
}

/// True once traces are sent.
#[inline]
pub fn is_on() -> bool {
    TRACES.get().is_some()
}

/// Sends what is left; blocks for a while.
pub fn stop() {
    if let Some(traces) = TRACES.get()
        && let Err(error) = traces.provider.shutdown_with_timeout(STOP_TIME)
    {
        tracing::warn!(%error, "the last traces were not sent");
    }
}

/// Makes the spans of a statement, where it is sampled; only then are text and parts asked for.
pub fn record(
    traced: &Traced<'_>,
    text: impl FnOnce() -> String,
    parts: impl FnOnce() -> Vec<Part>,
) {
    let Some(Traces { tracer, .. }) = TRACES.get() else {
        return;
    };
    let clock = Clock::now();
    let parent = traced.traceparent.map_or_else(Context::new, |header| {
        let carrier = HashMap::from([("traceparent".to_owned(), header.to_owned())]);
        TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
    });
    let begun = traced.planned.map_or(traced.ran.0, |(begun, _)| begun);
    let mut span = SpanBuilder::from_name(traced.name.clone())
        .with_kind(SpanKind::Server)
        .with_start_time(clock.at(begun))
        .start_with_context(tracer, &parent);
    if !span.is_recording() {
        return;
    }
    let parts = parts();
    let last = parts.iter().filter(|p| p.stage.is_none());
    let rows: u64 = match last.clone().find(|p| p.name == MERGE) {
        Some(merge) => merge.rows,
        None => last.map(|p| p.rows).sum(),
    };
    span.set_attributes([
        KeyValue::new("db.system.name", "postgresql"),
        KeyValue::new("db.query.text", text()),
        KeyValue::new("db.user", traced.user.to_owned()),
        KeyValue::new("pgbraid.plan", traced.kind),
        KeyValue::new("pgbraid.rows_read", signed(rows)),
    ]);
    if let Some(state) = &traced.error {
        span.set_attribute(KeyValue::new("db.response.status_code", state.clone()));
        span.set_status(Status::error(state.clone()));
    }
    let context = Context::new().with_span(span);
    if let Some(ran) = traced.planned {
        child(
            tracer,
            &context,
            &clock,
            ("plan".into(), SpanKind::Internal),
            ran,
            Vec::new(),
        );
    }
    for part in parts {
        let mut attributes = vec![
            KeyValue::new("pgbraid.shard", part.shard),
            KeyValue::new("pgbraid.rows", signed(part.rows)),
            KeyValue::new("pgbraid.bytes", signed(part.bytes)),
        ];
        attributes.extend(part.stage.map(|n| KeyValue::new("pgbraid.stage", n as i64)));
        let named = (part.name, SpanKind::Client);
        child(tracer, &context, &clock, named, part.ran, attributes);
    }
    context.span().end_with_timestamp(clock.at(traced.ran.1));
}

/// The name of the part that is a merge session's.
pub const MERGE: &str = "merge session";

fn child(
    tracer: &SdkTracer,
    parent: &Context,
    clock: &Clock,
    (name, kind): (String, SpanKind),
    ran: (Instant, Instant),
    attributes: Vec<KeyValue>,
) {
    let mut span = SpanBuilder::from_name(name)
        .with_kind(kind)
        .with_start_time(clock.at(ran.0))
        .with_attributes(attributes)
        .start_with_context(tracer, parent);
    span.end_with_timestamp(clock.at(ran.1));
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What time it was at an instant of the past.
struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }

    fn at(&self, instant: Instant) -> SystemTime {
        self.time - self.instant.saturating_duration_since(instant)
    }
}

/// The SDK's thread has no runtime, which the client needs.
#[derive(Debug)]
struct OnRuntime {
    client: HyperClient,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = async move { client.send_bytes(request).await };
        self.runtime.spawn(sent).await?
    }
}
