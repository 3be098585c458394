//! SCRAM-SHA-256 at a shard without the password: with the keys that a client has shown in its own login to pgbraid.
//!
//! Who checks a client's proof against a stored verifier learns the client's key from it (RFC 5802, section 3: ClientProof is
//! ClientKey XOR ClientSignature). That key logs in wherever the same verifier is stored, salt and iterations included, and nowhere
//! else; the password stays unknown.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};

/// Random bytes of our half of the nonce; 18 give 24 characters, as PostgreSQL's.
const NONCE_BYTES: usize = 18;
/// HMAC-SHA-256 and SHA-256.
const KEY_BYTES: usize = 32;

/// A client's key and the verifier that it belongs to.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    salt: Vec<u8>,
    iterations: usize,
    client_key: [u8; KEY_BYTES],
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

/// The keys of a role, the newest that one of its clients has shown. Clones share them.
#[derive(Clone, Default)]
pub struct ClientKeys(Arc<ArcSwapOption<Keys>>);

impl ClientKeys {
    /// What connections opened from now on log in with.
    pub fn renew(&self, keys: Keys) {
        self.0.store(Some(Arc::new(keys)));
    }

    pub(super) fn newest(&self) -> Option<Arc<Keys>> {
        self.0.load_full()
    }
}

impl std::fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientKeys(…)")
    }
}

impl Keys {
    /// The key of a client whose proof has been found right: its first message, the answer to that, its last message.
    /// `None` where these are not what a proof was checked with.
    pub fn of_proof(
        (salt, iterations): (Vec<u8>, usize),
        (stored_key, server_key): (Vec<u8>, Vec<u8>),
        first: &str,
        challenge: &str,
        last: &str,
    ) -> Option<Self> {
        // Behind the header for channel binding: `n,,`
        let bare = first.splitn(3, ',').nth(2)?;
        let (without_proof, proof) = last.rsplit_once(",p=")?;
        let message = format!("{bare},{challenge},{without_proof}");
        let proof: [u8; KEY_BYTES] = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let client_key = xor(proof, &sign(&stored_key, &message));
        let hash = digest::digest(&digest::SHA256, &client_key);
        (hash.as_ref() == stored_key).then_some(Self {
            salt,
            iterations,
            client_key,
            stored_key,
            server_key,
        })
    }
}

fn sign(key: &[u8], message: &str) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message.as_bytes())
}

fn xor(mut left: [u8; KEY_BYTES], right: &hmac::Tag) -> [u8; KEY_BYTES] {
    left.iter_mut()
        .zip(right.as_ref())
        .for_each(|(l, r)| *l ^= r);
    left
}

/// The client's side of one login.
pub(super) struct Exchange {
    keys: Arc<Keys>,
    /// The header and the data of channel binding, in base64.
    binding: String,
    message: String,
    nonce: String,
    /// What both sides sign.
    signed: String,
}

impl Exchange {
    /// `header` says what becomes of channel binding (`n,,`, `y,,` or `p=tls-server-end-point,,`), `data` is what is bound to.
    pub(super) fn new(keys: Arc<Keys>, header: &str, data: &[u8]) -> Self {
        let nonce = STANDARD.encode(rand::random::<[u8; NONCE_BYTES]>());
        Self {
            keys,
            binding: STANDARD.encode([header.as_bytes(), data].concat()),
            message: format!("{header}n=,r={nonce}"),
            nonce,
            signed: String::new(),
        }
    }

    /// What is to be sent next.
    pub(super) fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Takes the server's challenge.
    ///
    /// # Errors
    /// A malformed one, or one for another verifier than that of the keys, in words for the operator.
    pub(super) fn update(&mut self, challenge: &[u8]) -> Result<(), String> {
        let malformed = || "malformed challenge".to_owned();
        let challenge = std::str::from_utf8(challenge).map_err(|_| malformed())?;
        let mut parts = challenge.split(',');
        let mut part = |name: &str| parts.next().and_then(|p| p.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(iterations)) = (part("r="), part("s="), part("i="))
        else {
            return Err(malformed());
        };
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server did not add to the nonce".into());
        }
        let salt = STANDARD.decode(salt).map_err(|_| malformed())?;
        if salt != self.keys.salt || iterations.parse() != Ok(self.keys.iterations) {
            return Err(
                "the shard has another verifier for this role than pgbraid checks its clients with, or does not let it in \
                 (VALID UNTIL); give the role the same verifier everywhere (PASSWORD 'SCRAM-SHA-256$…'), or pgbraid its password"
                    .into(),
            );
        }
        let without_proof = format!("c={},r={nonce}", self.binding);
        self.signed = format!("n=,r={},{challenge},{without_proof}", self.nonce);
        let signature = sign(&self.keys.stored_key, &self.signed);
        let proof = STANDARD.encode(xor(self.keys.client_key, &signature));
        self.message = format!("{without_proof},p={proof}");
        Ok(())
    }

    /// Takes the server's proof that it knows the verifier, too.
    ///
    /// # Errors
    /// A wrong or malformed one.
    pub(super) fn finish(&self, proof: &[u8]) -> Result<(), String> {
        let proof = std::str::from_utf8(proof).unwrap_or_default();
        let wrong = || "the server did not prove that it knows the role".to_owned();
        let value = proof.strip_prefix("v=").ok_or_else(wrong)?;
        let signature = STANDARD.decode(value).map_err(|_| wrong())?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.keys.server_key);
        hmac::verify(&key, self.signed.as_bytes(), &signature).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth, gen_salted_password};

    const SALT: &[u8] = b"0123456789abcdef";
    const ITERATIONS: usize = 4096;

    /// Salt and iterations, stored key and server key.
    type Parts = ((Vec<u8>, usize), (Vec<u8>, Vec<u8>));

    fn verifier(password: &str, salt: &[u8]) -> Parts {
        let salted = gen_salted_password(password, salt, ITERATIONS);
        let secret = ScramSecret::verifier_from_salted_password(salt.to_vec(), salted, ITERATIONS);
        let ScramSecret::Verifier {
            salt,
            iterations,
            stored_key,
            server_key,
        } = secret
        else {
            panic!("a verifier")
        };
        ((salt, iterations), (stored_key, server_key))
    }

    fn secret(((salt, iterations), (stored_key, server_key)): Parts) -> ScramSecret {
        ScramSecret::Verifier {
            salt,
            iterations,
            stored_key,
            server_key,
        }
    }

    /// The keys that a client shows which logs in with the password.
    fn shown() -> Keys {
        use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
        let parts = verifier("pencil", SALT);
        let mut client = ScramSha256::new(b"pencil", ChannelBinding::unsupported());
        let first = String::from_utf8(client.message().to_vec()).unwrap();
        let server = ScramServerAuth::new();
        let (challenge, state) = server
            .on_client_first_message_with_secret(first.as_bytes(), secret(parts.clone()))
            .unwrap();
        client.update(challenge.as_bytes()).unwrap();
        let last = String::from_utf8(client.message().to_vec()).unwrap();
        state.on_client_final_message(last.as_bytes()).unwrap();
        let (head, keys) = parts;
        assert!(Keys::of_proof(head.clone(), keys.clone(), &first, &challenge, "c=,p=x").is_none());
        Keys::of_proof(head, keys, &first, &challenge, &last).unwrap()
    }

    fn log_in(keys: Keys, parts: Parts) -> Result<(), String> {
        let mut exchange = Exchange::new(Arc::new(keys), "n,,", b"");
        let (challenge, state) = ScramServerAuth::new()
            .on_client_first_message_with_secret(exchange.message(), secret(parts))
            .unwrap();
        exchange.update(challenge.as_bytes())?;
        let proof = state.on_client_final_message(exchange.message());
        exchange.finish(proof.map_err(|e| e.to_string())?.as_bytes())
    }

    #[test]
    fn a_clients_proof_gives_what_logs_in_at_the_same_verifier() {
        assert_eq!(log_in(shown(), verifier("pencil", SALT)), Ok(()));
    }

    #[test]
    fn another_verifier_is_told_from_a_wrong_password() {
        let other = log_in(shown(), verifier("pencil", b"another salt 123"));
        assert!(other.unwrap_err().contains("another verifier"));
        assert!(log_in(shown(), verifier("pen", SALT)).is_err());
    }

    #[test]
    fn the_login_is_bound_to_the_session_of_tls() {
        use x509_certificate::{EcdsaCurve, KeyAlgorithm, X509CertificateBuilder};
        let curve = KeyAlgorithm::Ecdsa(EcdsaCurve::Secp256r1);
        let made = X509CertificateBuilder::default().create_with_random_keypair(curve);
        let certificate = made.unwrap().0;
        let hash = crate::backend::tls::end_point(certificate.constructed_data()).unwrap();
        let mut server = ScramServerAuth::new();
        let pem = certificate.encode_pem();
        server.configure_certificate(pem.as_bytes()).unwrap();
        for (data, accepted) in [(&hash[..], true), (&[0; 32][..], false)] {
            let mut exchange = Exchange::new(Arc::new(shown()), "p=tls-server-end-point,,", data);
            let secret = secret(verifier("pencil", SALT));
            let (challenge, state) = server
                .on_client_first_message_with_secret(exchange.message(), secret)
                .unwrap();
            exchange.update(challenge.as_bytes()).unwrap();
            let proof = state.on_client_final_message(exchange.message());
            assert_eq!(proof.is_ok(), accepted);
        }
    }

    #[test]
    fn a_server_must_prove_itself() {
        let mut exchange = Exchange::new(Arc::new(shown()), "n,,", b"");
        let nonce = exchange.nonce.clone();
        let salt = STANDARD.encode(SALT);
        assert!(
            exchange
                .update(format!("r={nonce},s={salt},i=4096").as_bytes())
                .is_err()
        );
        exchange
            .update(format!("r={nonce}x,s={salt},i=4096").as_bytes())
            .unwrap();
        assert!(exchange.finish(b"v=AAAA").is_err());
        assert!(exchange.finish(b"e=other-error").is_err());
    }

    #[test]
    fn keys_do_not_show() {
        let keys = ClientKeys::default();
        keys.renew(shown());
        assert_eq!(format!("{keys:?}"), "ClientKeys(…)");
    }
}
