//! Who may log in: SCRAM-SHA-256 on pgwire's state machine, certificates, or trust.
//!
//! An unknown user is taken through the same exchange as a wrong password, against a verifier that nothing matches.

use std::collections::HashMap;

use bytes::BytesMut;
use pgwire::api::auth::sasl::scram::ScramServerAuth;
use pgwire::messages::Message as _;
use pgwire::messages::startup::Authentication;

use super::stream::Client;
use super::verifier::{Salts, Verifier};
use crate::backend::scram::Keys;
use crate::backend::user_query::{Stored, UserQuery};
use crate::config::{AuthMethod, Config, ShardRole, User};
use crate::protocol::error::ServerError;
use crate::protocol::messages::Reader;
use crate::protocol::sqlstate;

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

/// What a client's connection says of it.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    /// Our own certificate on an encrypted connection, for channel binding.
    pub channel_pem: Option<&'a [u8]>,
    /// The name in the certificate that the client has shown.
    pub certificate_name: Option<&'a str>,
}

/// The users of the configuration, ready to check proofs.
pub struct Users {
    method: AuthMethod,
    /// Of users that prove it in another way.
    methods: HashMap<String, AuthMethod>,
    /// Names that certificates have for users; the others have their own.
    certificates: HashMap<String, String>,
    verifiers: HashMap<String, Verifier>,
    /// For those that are not among them.
    query: Option<UserQuery>,
    trusted: Trusted,
    salts: Salts,
}

impl Users {
    /// Derives a verifier for every plain password once; logins then cost the same for all.
    pub fn new(config: &Config) -> Self {
        Self::with(config, Salts::new(config))
    }

    /// The users of another configuration. Salts stay, of users who are there and of those who are not: a stranger who asks before and
    /// after a reload learns nothing of who is known.
    pub fn renewed(&self, config: &Config) -> Self {
        Self::with(config, self.salts.clone())
    }

    fn with(config: &Config, salts: Salts) -> Self {
        fn of_users<T>(config: &Config, of: impl Fn(&User) -> Option<T>) -> HashMap<String, T> {
            let users = config.users.iter();
            users
                .filter_map(|u| Some((u.name.clone(), of(u)?)))
                .collect()
        }
        let verifiers = config.users.iter().map(|user| {
            let password = user.password.reveal();
            let derived = || Verifier::derive(password, salts.of(&user.name));
            let verifier = Verifier::parse(password).unwrap_or_else(derived);
            (user.name.clone(), verifier)
        });
        Self {
            method: config.auth.method,
            methods: of_users(config, |u| u.method),
            certificates: of_users(config, |u| u.certificate.clone()),
            verifiers: verifiers.collect(),
            query: UserQuery::new(config),
            trusted: Trusted::new(config),
            salts,
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
        proof: Proof<'_>,
    ) -> Result<Option<Keys>, ServerError> {
        let refuse = |message| Err(ServerError::fatal(sqlstate::INVALID_AUTHORIZATION, message));
        let keys = match self.methods.get(user).unwrap_or(&self.method) {
            AuthMethod::Trust if self.trusted.allows(user) => None,
            AuthMethod::Trust => return refuse(format!("role \"{user}\" does not exist")),
            AuthMethod::Cert if self.is_certified(user, proof.certificate_name) => None,
            AuthMethod::Cert => {
                return refuse(format!(
                    "certificate authentication failed for user \"{user}\""
                ));
            }
            AuthMethod::Scram => self.scram(client, user, proof.channel_pem).await?,
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
        let verifier = self.verifier(user).await?;
        let known = verifier.is_some();
        let verifier = verifier.unwrap_or_else(|| Verifier::of_nobody(self.salts.of(user)));
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

    /// True when the certificate is the user's: its common name is the user's, or the one that the configuration has for it.
    fn is_certified(&self, user: &str, shown: Option<&str>) -> bool {
        let wanted = self.certificates.get(user).map_or(user, String::as_str);
        let is_user = self.verifiers.is_empty() || self.verifiers.contains_key(user);
        is_user && shown == Some(wanted)
    }

    /// What is stored of the user's password; `None` where nothing is that could be used.
    ///
    /// # Errors
    /// FATAL 57P03 when the shard that knows cannot be asked.
    async fn verifier(&self, user: &str) -> Result<Option<Verifier>, ServerError> {
        let configured = self.verifiers.get(user).cloned();
        let Some(query) = &self.query else {
            return Ok(configured);
        };
        // Asked for the configured users, too: else how long an answer takes would tell who they are.
        let asked = query.ask(user).await;
        if configured.is_some() {
            return Ok(configured);
        }
        let why = match asked {
            Ok(Stored::Password(stored)) => match Verifier::parse(stored.reveal()) {
                Some(verifier) => return Ok(Some(verifier)),
                None => {
                    "what is stored is no SCRAM-SHA-256 verifier (md5?): set the password again under \
                         password_encryption = 'scram-sha-256'"
                }
            },
            Ok(Stored::Nothing(why)) => why,
            Ok(Stored::Nobody) => "there is no such user",
            Err(error) => {
                tracing::error!(user, %error, "auth.query failed");
                let message = "the user cannot be looked up at the moment";
                return Err(ServerError::fatal(sqlstate::CANNOT_CONNECT_NOW, message));
            }
        };
        tracing::warn!(user, why, "login refused by what auth.query gave");
        Ok(None)
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
