//! Who may see the live page: whoever has the password, or without one whoever reaches it by its own address.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::told;
use crate::config::Secret;

/// Decides for each request; the password may change between two of them.
pub(super) struct Access {
    /// Passwords are compared by their authentication codes under it, so that the time taken tells nothing of them.
    key: hmac::Key,
    is_local: bool,
}

impl Access {
    pub(super) fn new(is_local: bool) -> Self {
        let key: [u8; 32] = rand::random();
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            is_local,
        }
    }

    /// The answer to who may not see it; `None`: may.
    pub(super) fn refuses(&self, password: &Secret, headers: &HeaderMap) -> Option<Response> {
        if password.is_empty() {
            return self.refuses_host(headers);
        }
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| basic_password(value.to_str().ok()?));
        if let Some(given) = &given {
            let expected = hmac::sign(&self.key, password.reveal().as_bytes());
            if hmac::verify(&self.key, given, expected.as_ref()).is_ok() {
                return None;
            }
            tracing::info!("a wrong password for the live page");
        }
        let challenge = "Basic realm=\"pgbraid\", charset=\"UTF-8\"";
        let said = told(StatusCode::UNAUTHORIZED, "server.http_password is needed\n");
        Some(([(header::WWW_AUTHENTICATE, challenge)], said).into_response())
    }

    /// Some page on the internet may have its own name lead to this machine, and then have a browser here fetch what it likes under
    /// that name. Who is on this machine has no need of names.
    fn refuses_host(&self, headers: &HeaderMap) -> Option<Response> {
        let host = headers.get(header::HOST)?;
        if !self.is_local || host.to_str().is_ok_and(is_own_address) {
            return None;
        }
        let said = "this name is not known here: use localhost, or set server.http_password\n";
        Some(told(StatusCode::MISDIRECTED_REQUEST, said))
    }
}

/// The password of an Authorization header of the Basic scheme (RFC 7617); the user's name is not looked at.
fn basic_password(value: &str) -> Option<Vec<u8>> {
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(credentials.trim()).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    Some(decoded[colon + 1..].to_vec())
}

fn is_own_address(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default().to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn status(access: &Access, password: &str, header: Option<(HeaderName, &str)>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        let refused = access.refuses(&Secret::new(password), &headers);
        refused.map_or(200, |response| response.status().as_u16())
    }

    #[test]
    fn only_the_password_opens() {
        let access = Access::new(false);
        let basic = |credentials: &str| format!("Basic {}", STANDARD.encode(credentials));
        let asked =
            |value: String| status(&access, "pass:wörd", Some((header::AUTHORIZATION, &value)));
        assert_eq!(asked(basic("ops:pass:wörd")), 200);
        assert_eq!(asked(basic(":pass:wörd")), 200);
        assert_eq!(asked(basic("ops:pass:wörd").replace("Basic", "bAsIc")), 200);
        for wrong in [
            basic("ops:pass"),
            basic("ops:"),
            basic("pass:wörd "),
            basic("ops"),
            basic("ops:pass:wörd").replace("Basic", "Bearer"),
            "Basic".to_owned(),
            "Basic !".to_owned(),
            String::new(),
        ] {
            assert_eq!(asked(wrong.clone()), 401, "{wrong}");
        }
        assert_eq!(status(&access, "pass:wörd", None), 401);
        let refused = access
            .refuses(&Secret::new("x"), &HeaderMap::new())
            .unwrap();
        let challenge = refused.headers()[header::WWW_AUTHENTICATE]
            .to_str()
            .unwrap();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
    }

    #[test]
    fn without_a_password_foreign_names_lead_nowhere() {
        let local = Access::new(true);
        let host = |access, host: &str| status(access, "", Some((header::HOST, host)));
        for own in [
            "127.0.0.1:9632",
            "[::1]:9632",
            "localhost",
            "LOCALHOST:1",
            "a.localhost",
        ] {
            assert_eq!(host(&local, own), 200, "{own}");
        }
        for foreign in [
            "evil.example:9632",
            "localhost.evil.example",
            "",
            "[evil]:1",
        ] {
            assert_eq!(host(&local, foreign), 421, "{foreign}");
        }
        assert_eq!(status(&local, "", None), 200);
        // Elsewhere it has a name that only its operator knows.
        assert_eq!(host(&Access::new(false), "pgbraid.internal:9632"), 200);
    }
}
