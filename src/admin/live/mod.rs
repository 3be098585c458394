//! The live page: one page for the person on call, and the figures it fetches each second. They are those of `/metrics` and the console.
//!
//! The page is in the program: no file to install, nothing from another host. What it shows of statements holds no literal and no
//! parameter, and no text becomes HTML: the page sets it as text, and its Content-Security-Policy leaves nothing else a way.

mod access;
mod figures;
mod running;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

use super::Served;
use super::readiness::{Readiness, Report};
use access::Access;

/// However many look, sessions are asked how far they are twice a second at most.
const FIGURES_LIFETIME: Duration = Duration::from_millis(500);
/// The figures do not wait longer than this for a shard that says nothing: they come with what was known of it before.
const HEALTH_PATIENCE: Duration = Duration::from_millis(250);

/// Nothing but the page's own files runs or is shown, nobody frames it, and scripts cannot make HTML of text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// One for the process.
pub(super) struct LivePage {
    served: Served,
    readiness: Arc<Readiness>,
    access: Access,
    started: f64,
    health: Mutex<Option<Report>>,
    /// Held while the figures are gathered, so that callers at the same time share them.
    last: tokio::sync::Mutex<Option<(Instant, Bytes)>>,
}

impl LivePage {
    /// `is_local`: only this machine reaches it.
    pub fn new(served: Served, readiness: Arc<Readiness>, is_local: bool) -> Arc<Self> {
        Arc::new(Self {
            access: Access::new(is_local),
            served,
            readiness,
            started: now(),
            health: Mutex::default(),
            last: tokio::sync::Mutex::default(),
        })
    }

    /// The page, for those who may see it.
    pub fn page(&self, headers: &HeaderMap) -> Response {
        match self.refused(headers) {
            Some(refused) => refused,
            None => file("text/html; charset=utf-8", include_str!("page.html")),
        }
    }

    /// The figures as JSON, for those who may see them.
    pub async fn figures(self: &Arc<Self>, headers: &HeaderMap) -> Response {
        if let Some(refused) = self.refused(headers) {
            return refused;
        }
        let json = [(header::CONTENT_TYPE, "application/json")];
        guarded((json, self.gathered().await).into_response(), "no-store")
    }

    fn refused(&self, headers: &HeaderMap) -> Option<Response> {
        let config = self.served.config();
        let refused = self.access.refuses(&config.server.http_password, headers);
        refused.map(|refused| guarded(refused, "no-store"))
    }

    async fn gathered(self: &Arc<Self>) -> Bytes {
        let mut last = self.last.lock().await;
        if let Some((at, json)) = &*last
            && at.elapsed() < FIGURES_LIFETIME
        {
            return json.clone();
        }
        let (health, running) = tokio::join!(self.health(), running::running(&self.served));
        let figures = figures::figures(&self.served, health, running, self.started);
        let json = match serde_json::to_vec(&figures) {
            Ok(json) => Bytes::from(json),
            Err(error) => {
                tracing::error!(%error, "the live page's figures cannot be written");
                Bytes::from_static(b"{}")
            }
        };
        *last = Some((Instant::now(), json.clone()));
        json
    }

    /// What readiness says now, or said last where a shard lets it wait.
    async fn health(self: &Arc<Self>) -> Option<Report> {
        let this = self.clone();
        // Goes on when nobody waits any more: else a shard that is silent would never be found to be.
        let asked = tokio::spawn(async move {
            let report = this.readiness.report().await;
            *this.health.lock() = Some(report);
        });
        let _ = tokio::time::timeout(HEALTH_PATIENCE, asked).await;
        self.health.lock().clone()
    }
}

/// The page's style. It tells nothing, so that it is anybody's.
pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("page.css"))
}

/// What the page does, likewise.
pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("page.js"))
}

/// The sign in the browser's tab.
pub(super) async fn icon() -> Response {
    file("image/svg+xml", include_str!("page.svg"))
}

fn file(form: &'static str, content: &'static str) -> Response {
    // Asked for again each time: another version may run by then.
    guarded(
        ([(header::CONTENT_TYPE, form)], content).into_response(),
        "no-cache",
    )
}

fn guarded(response: Response, cache: &'static str) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, cache),
        (header::VARY, "Accept, Authorization"),
    ];
    (headers, response).into_response()
}

/// An answer in words.
fn told(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use crate::metrics::QueryKind;

    #[test]
    fn the_page_names_every_kind_of_plan() {
        let script = include_str!("page.js");
        for kind in QueryKind::ALL {
            let named = format!("\"{}\"", kind.label());
            assert!(script.contains(&named), "{named}");
        }
    }
}
