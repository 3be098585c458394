//! The HTTP side: four paths for machines, a page for people, and the client of it that `pgbraid health` needs.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response as Answer};
use axum::routing::get as on_get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::live::{self, LivePage};
use super::readiness::Readiness;
use crate::metrics;

/// Longest answer that [`get`] reads.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Serves until `stop` is done. Without `live` there is no page.
///
/// # Errors
/// What the socket says.
pub(super) async fn serve(
    listener: TcpListener,
    readiness: Arc<Readiness>,
    live: Option<Arc<LivePage>>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(readiness, live))
        .with_graceful_shutdown(stop)
        .await
}

fn router(readiness: Arc<Readiness>, live: Option<Arc<LivePage>>) -> Router {
    let root = match live {
        Some(live) => Router::new()
            .route("/", on_get(page))
            .route("/live.json", on_get(figures))
            .route("/page.css", on_get(live::style))
            .route("/page.js", on_get(live::script))
            .route("/page.svg", on_get(live::icon))
            .with_state(live),
        None => Router::new().route("/", on_get(|| async { INDEX })),
    };
    let machines = Router::new()
        // Answering at all is the proof of life; whether statements can be answered is /readyz' matter.
        .route("/livez", on_get(|| async { "ok\n" }))
        .route("/startupz", on_get(startupz))
        .route("/readyz", on_get(readyz))
        .route("/metrics", on_get(prometheus))
        .with_state(readiness);
    machines.merge(root)
}

const INDEX: &str = concat!(
    "pgbraid ",
    env!("CARGO_PKG_VERSION"),
    "\n\n/         the live page, in a browser\n/livez    the process runs\n",
    "/startupz clients can log in, or why not\n",
    "/readyz   all statements can be answered, or why not\n/metrics  Prometheus\n"
);

/// A browser says that it wants HTML; whoever does not gets the list of paths, which tells nothing.
async fn page(State(live): State<Arc<LivePage>>, headers: HeaderMap) -> Answer {
    let wanted = headers.get_all(header::ACCEPT).iter();
    let mut wanted = wanted.filter_map(|value| value.to_str().ok());
    match wanted.any(|value| value.contains("text/html")) {
        true => live.page(&headers),
        false => ([(header::VARY, "Accept")], INDEX).into_response(),
    }
}

async fn figures(State(live): State<Arc<LivePage>>, headers: HeaderMap) -> Answer {
    live.figures(&headers).await
}

/// For who waits to start something that needs pgbraid: one shard that is down must not keep it from what the others answer.
async fn startupz(State(readiness): State<Arc<Readiness>>) -> (StatusCode, String) {
    match readiness.obstacle() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn readyz(State(readiness): State<Arc<Readiness>>) -> impl IntoResponse {
    let report = readiness.report().await;
    let status = match report.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, axum::Json(report))
}

async fn prometheus(State(readiness): State<Arc<Readiness>>) -> impl IntoResponse {
    readiness.refresh_gauges();
    let form = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], metrics::global().render())
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// The content as text.
    pub body: String,
}

/// Asks `address` (host:port) for a path; so that health checks in containers need no other program.
///
/// # Errors
/// No connection, no answer in time, or one that is no HTTP.
pub async fn get(address: &str, path: &str, limit: Duration) -> io::Result<Response> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0: the answer comes unchunked and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut answer)
            .await?;
        let answer = String::from_utf8_lossy(&answer);
        parse(&answer)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
    };
    let late = || {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {limit:?}"),
        )
    };
    tokio::time::timeout(limit, asked)
        .await
        .unwrap_or_else(|_| Err(late()))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some(Response {
        status,
        body: body.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn served(readiness: Arc<Readiness>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(serve(listener, readiness, None, std::future::pending()));
        address
    }

    #[tokio::test]
    async fn the_three_paths_answer() {
        let readiness = Readiness::new(vec!["s1".into()], Box::new(|_| Box::pin(async { Ok(()) })));
        let address = served(readiness.clone()).await;
        let limit = Duration::from_secs(10);
        let live = get(&address, "/livez", limit).await.unwrap();
        assert_eq!(
            live,
            Response {
                status: 200,
                body: "ok\n".into()
            }
        );
        let early = get(&address, "/readyz", limit).await.unwrap();
        assert_eq!(early.status, 503);
        assert!(early.body.contains("no catalog"), "{}", early.body);
        readiness.catalog_loaded(1, vec![]);
        assert_eq!(get(&address, "/readyz", limit).await.unwrap().status, 200);
        let metrics = get(&address, "/metrics", limit).await.unwrap();
        assert!(
            metrics.body.contains("pgbraid_shard_up{shard=\"s1\"} 1"),
            "{}",
            metrics.body
        );
        assert_eq!(get(&address, "/nothing", limit).await.unwrap().status, 404);
    }

    #[tokio::test]
    async fn an_answer_that_is_no_http_is_an_error() {
        assert_eq!(parse("SSH-2.0-x\r\n"), None);
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\n\r\nhi"),
            Some(Response {
                status: 200,
                body: "hi".into()
            })
        );
        assert!(
            get("127.0.0.1:1", "/", Duration::from_secs(5))
                .await
                .is_err()
        );
    }
}
