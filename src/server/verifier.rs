//! SCRAM-SHA-256 verifiers: what is stored of a password, and what stands for the password of a user who is not there.
//!
//! Nothing in a verifier gives the password away; salts are as steady for users who are not there as for the others.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, ScramSecret, gen_salted_password};
use ring::hmac;

use crate::backend::scram::Keys;
use crate::config::Config;

const SALT_BYTES: usize = 16;

/// What is stored of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    salt: Vec<u8>,
    iterations: usize,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Verifier {
    /// What a proof is checked with.
    pub fn secret(&self) -> ScramSecret {
        ScramSecret::Verifier {
            salt: self.salt.clone(),
            iterations: self.iterations,
            stored_key: self.stored_key.clone(),
            server_key: self.server_key.clone(),
        }
    }

    /// Of a password that is known. As costly as a login is for the client.
    pub fn derive(password: &str, salt: Vec<u8>) -> Self {
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

    /// Reads PostgreSQL's `SCRAM-SHA-256$iterations:salt$stored:server`.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some(Self {
            salt: STANDARD.decode(salt).ok()?,
            iterations: iterations.parse().ok().filter(|n| *n > 0)?,
            stored_key: STANDARD.decode(stored).ok()?,
            server_key: STANDARD.decode(server).ok()?,
        })
    }

    /// One with this salt that no proof fits.
    pub fn of_nobody(salt: Vec<u8>) -> Self {
        Self {
            salt,
            iterations: SCRAM_ITERATIONS,
            stored_key: vec![0; 32],
            server_key: vec![0; 32],
        }
    }

    /// What a client has shown whose proof was right.
    pub fn keys_of(self, first: &[u8], challenge: &str, last: &[u8]) -> Option<Keys> {
        let (first, last) = (str::from_utf8(first).ok()?, str::from_utf8(last).ok()?);
        let keys = (self.stored_key, self.server_key);
        Keys::of_proof((self.salt, self.iterations), keys, first, challenge, last)
    }
}

/// Salts for the users whose salt is not stored anywhere: the same ones from one start to the next, and from one pgbraid to another
/// with the same configuration, as a stored one is. Nobody foresees them who does not know its secrets.
#[derive(Clone)]
pub struct Salts(hmac::Key);

impl Salts {
    /// Made of the secrets that the configuration has.
    pub fn new(config: &Config) -> Self {
        let users = config.users.iter().map(|u| (&u.name, &u.password));
        let shards = config.shards.iter().map(|s| (&s.name, &s.password));
        let known: Vec<_> = users.chain(shards).collect();
        let mut material: Vec<u8> = Vec::new();
        for (name, secret) in &known {
            for part in [name.as_str(), secret.reveal()] {
                material.extend(part.len().to_be_bytes());
                material.extend(part.as_bytes());
            }
        }
        if known.iter().all(|(_, secret)| secret.is_empty()) {
            // There is nothing to be steady with.
            material.extend(rand::random::<[u8; 32]>());
        }
        Self(hmac::Key::new(hmac::HMAC_SHA256, &material))
    }

    /// The salt of a user.
    pub fn of(&self, user: &str) -> Vec<u8> {
        hmac::sign(&self.0, user.as_bytes()).as_ref()[..SALT_BYTES].to_vec()
    }
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
        assert!(Verifier::parse(&text.replace("4096", "0")).is_none());
    }

    #[test]
    fn salts_are_steady_and_nobodys_guess() {
        let config = |password: &str| {
            let text = format!(
                "[database]\nname = \"d\"\n[[shard]]\nname = \"s\"\nhost = \"h\"\nuser = \"u\"\n\
                 [[user]]\nname = \"u\"\npassword = \"{password}\"\n"
            );
            let path = std::path::Path::new("test.toml");
            Salts::new(&crate::config::parse(path, &text, &Default::default()).unwrap())
        };
        let (one, again, other) = (config("x"), config("x"), config("y"));
        assert_eq!(one.of("nobody"), again.of("nobody"));
        assert_ne!(one.of("nobody"), one.of("somebody"));
        assert_ne!(one.of("nobody"), other.of("nobody"));
    }
}
