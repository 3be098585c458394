//! Who may log in: SCRAM-SHA-256 on pgwire's state machine, or trust.
//!
//! An unknown user is taken through the same exchange as a wrong password, against a verifier that nothing matches.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use pgwire::api::auth::sasl::scram::{
    SCRAM_ITERATIONS, ScramSecret, ScramServerAuth, gen_salted_password,
};
use pgwire::messages::Message as _;
use pgwire::messages::startup::Authentication;

use super::stream::Client;
use crate::backend::scram::Keys;
use crate::config::{AuthMethod, Config, ShardRole};
use crate::protocol::error::ServerError;
use crate::protocol::messages::Reader;
use crate::protocol::sqlstate;

const SALT_BYTES: usize = 16;

/// A stored verifier: nothing in it gives the password away.
#[derive(Clone)]
struct Verifier {
    salt: Vec<u8>,
    iterations: usize,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Verifier {
    fn secret(&self) -> ScramSecret {
        ScramSecret::Verifier {
            salt: self.salt.clone(),
            iterations: self.iterations,
            stored_key: self.stored_key.clone(),
            server_key: self.server_key.clone(),
        }
    }

    fn derive(password: &str, salt: Vec<u8>) -> Self {
        let salted = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
        match ScramSecret::verifier_from_salted_password(salt, salted, SCRAM_ITERATIONS) {
            ScramSecret::Verifier {
                salt,
                iterations,
                stored_key,
                server_key,
            } => Self {
                salt,
                iterations,
                stored_key,
                server_key,
            },
            ScramSecret::SaltedPassword { .. } => {
                unreachable!("the function's name says what it returns")
            }
        }
    }

    /// What a client has shown whose proof was right.
    fn keys_of(self, first: &[u8], challenge: &str, last: &[u8]) -> Option<Keys> {
        let (first, last) = (str::from_utf8(first).ok()?, str::from_utf8(last).ok()?);
        let keys = (self.stored_key, self.server_key);
        Keys::of_proof((self.salt, self.iterations), keys, first, challenge, last)
    }

    /// Reads PostgreSQL's `SCRAM-SHA-256$iterations:salt$stored:server`.
    fn parse(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some(Self {
            salt: STANDARD.decode(salt).ok()?,
            iterations: iterations.parse().ok()?,
            stored_key: STANDARD.decode(stored).ok()?,
            server_key: STANDARD.decode(server).ok()?,
        })
    }
}

/// Names that are let in without a proof, under trust.
enum Trusted {
    Anybody,
    Only(Vec<String>),
}

impl Trusted {
    /// The configured users. Without any it is everybody, unless the name alone decides whose privileges a client gets at the shards.
    fn new(config: &Config) -> Self {
        let names = |names: &mut dyn Iterator<Item = &String>| Self::Only(names.cloned().collect());
        match (config.users.is_empty(), config.auth.shard_role) {
            (false, _) => names(&mut config.users.iter().map(|u| &u.name)),
            (true, ShardRole::Client) => names(&mut config.shards.iter().map(|s| &s.user)),
            (true, ShardRole::Service) => Self::Anybody,
        }
    }

    fn allows(&self, user: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Only(names) => names.iter().any(|n| n == user),
        }
    }
}

/// The users of the configuration, ready to check proofs.
pub struct Users {
    method: AuthMethod,
    verifiers: HashMap<String, Verifier>,
    trusted: Trusted,
    /// Keys the salts of users that do not exist, so that they stay the same from one attempt to the next.
    mock_key: u64,
}

impl Users {
    /// Derives a verifier for every plain password once; logins then cost the same for all.
    pub fn new(config: &Config) -> Self {
        let verifier = |password: &str| {
            Verifier::parse(password).unwrap_or_else(|| {
                Verifier::derive(password, rand::random::<[u8; SALT_BYTES]>().into())
            })
        };
        let verifiers = config
            .users
            .iter()
            .map(|u| (u.name.clone(), verifier(u.password.reveal())))
            .collect();
        Self {
            method: config.auth.method,
            verifiers,
            trusted: Trusted::new(config),
            mock_key: rand::random(),
        }
    }

    /// Proves who the client is. On success AuthenticationOk is queued, and what the proof gave in place of the password is returned.
    ///
    /// # Errors
    /// FATAL 28P01 (28000 under trust), the same for an unknown user and a wrong password.
    pub async fn authenticate(
        &self,
        client: &mut Client,
        user: &str,
        certificate_pem: Option<&[u8]>,
    ) -> Result<Option<Keys>, ServerError> {
        let keys = match self.method {
            AuthMethod::Trust if self.trusted.allows(user) => None,
            AuthMethod::Trust => {
                let message = format!("role \"{user}\" does not exist");
                return Err(ServerError::fatal(sqlstate::INVALID_AUTHORIZATION, message));
            }
            AuthMethod::Scram => self.scram(client, user, certificate_pem).await?,
        };
        send(client, &Authentication::Ok)?;
        Ok(keys)
    }

    async fn scram(
        &self,
        client: &mut Client,
        user: &str,
        certificate: Option<&[u8]>,
    ) -> Result<Option<Keys>, ServerError> {
        let mut server = ScramServerAuth::new();
        let mut mechanisms = vec!["SCRAM-SHA-256".to_owned()];
        // A certificate whose signature algorithm has no channel binding digest is used without one.
        if certificate.is_some_and(|pem| server.configure_certificate(pem).is_ok()) {
            mechanisms.insert(0, "SCRAM-SHA-256-PLUS".to_owned());
        }
        send(client, &Authentication::SASL(mechanisms.clone()))?;
        let body = password_message(client).await?;
        let mut reader = Reader(&body);
        let mechanism = reader.cstr().ok_or_else(malformed)?;
        if !mechanisms.iter().any(|m| m.as_bytes() == mechanism) {
            return Err(ServerError::fatal(
                sqlstate::PROTOCOL_VIOLATION,
                "client selected an invalid SASL authentication mechanism",
            ));
        }
        let first = reader.value().flatten().ok_or_else(malformed)?;
        let verifier = self.verifiers.get(user).cloned();
        let known = verifier.is_some();
        let verifier = verifier.unwrap_or_else(|| self.mock(user));
        let (challenge, state) = server
            .on_client_first_message_with_secret(first, verifier.secret())
            .map_err(|_| malformed())?;
        send(
            client,
            &Authentication::SASLContinue(challenge.clone().into()),
        )?;
        let body = password_message(client).await?;
        match state.on_client_final_message(&body) {
            Ok(reply) if known => {
                send(client, &Authentication::SASLFinal(reply.into()))?;
                Ok(verifier.keys_of(first, &challenge, &body))
            }
            _ => Err(ServerError::fatal(
                sqlstate::INVALID_PASSWORD,
                format!("password authentication failed for user \"{user}\""),
            )),
        }
    }

    /// A verifier for a user who is not there: its salt never changes, its keys match no proof.
    fn mock(&self, user: &str) -> Verifier {
        use std::hash::BuildHasher;
        let half = |n: u64| {
            foldhash::quality::FixedState::with_seed(self.mock_key ^ n)
                .hash_one(user)
                .to_be_bytes()
        };
        let salt = [half(1), half(2)].concat();
        Verifier {
            salt,
            iterations: SCRAM_ITERATIONS,
            stored_key: vec![0; 32],
            server_key: vec![0; 32],
        }
    }
}

fn malformed() -> ServerError {
    ServerError::fatal(sqlstate::PROTOCOL_VIOLATION, "malformed SCRAM message")
}

fn send(client: &mut Client, message: &Authentication) -> Result<(), ServerError> {
    let mut buffer = BytesMut::new();
    message
        .encode(&mut buffer)
        .map_err(|e| ServerError::fatal(sqlstate::INTERNAL_ERROR, e.to_string()))?;
    client.out().extend_from_slice(&buffer);
    Ok(())
}

async fn password_message(client: &mut Client) -> Result<bytes::Bytes, ServerError> {
    let lost = |e: super::stream::ReadError| {
        ServerError::fatal(sqlstate::CONNECTION_FAILURE, e.to_string())
    };
    let message = client.message().await.map_err(lost)?;
    if message.tag != b'p' {
        let text = format!("expected SASL response, got message type {}", message.tag);
        return Err(ServerError::fatal(sqlstate::PROTOCOL_VIOLATION, text));
    }
    Ok(message.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_verifier_as_postgresql_stores_it() {
        let text = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        let verifier = Verifier::parse(text).unwrap();
        assert_eq!(
            (verifier.iterations, verifier.salt.as_slice()),
            (4096, b"saltsaltsaltsalt".as_slice())
        );
        assert!(Verifier::parse("md5abc").is_none());
    }

    #[test]
    fn a_missing_users_salt_is_stable() {
        let users = Users {
            method: AuthMethod::Scram,
            verifiers: HashMap::new(),
            trusted: Trusted::Anybody,
            mock_key: 7,
        };
        assert_eq!(users.mock("nobody").salt, users.mock("nobody").salt);
        assert_ne!(users.mock("nobody").salt, users.mock("somebody").salt);
    }
}
