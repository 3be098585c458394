//! TLS towards shards by `sslmode`, with libpq's meanings, and the channel binding that ties SCRAM to the TLS session.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::{Hash, HashAlgorithm};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::config::{Shard, SslMode};

/// How much of the server's certificate is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Any certificate: encryption against listeners, no defence against an impostor.
    Nothing,
    /// Signed by a known authority, for whatever name.
    Authority,
    AuthorityAndName,
}

/// Makes the TLS settings for a shard; `None` when it is to be spoken to in the clear (`disable`, or a unix socket).
///
/// # Errors
/// Authorities that cannot be read, as a sentence for the operator.
pub fn client_config(shard: &Shard) -> Result<Option<Arc<ClientConfig>>, String> {
    if shard.host.starts_with('/') {
        return Ok(None);
    }
    let check = match (shard.sslmode, &shard.sslrootcert) {
        (SslMode::Disable, _) => return Ok(None),
        (SslMode::Prefer, _) | (SslMode::Require, None) => Check::Nothing,
        // As libpq: who names authorities wants them checked.
        (SslMode::Require, Some(_)) | (SslMode::VerifyCa, _) => Check::Authority,
        (SslMode::VerifyFull, _) => Check::AuthorityAndName,
    };
    settings(check, shard.sslrootcert.as_deref()).map(Some)
}

/// Settings where a type needs some although TLS is never spoken.
pub(super) fn unused() -> Result<Arc<ClientConfig>, String> {
    settings(Check::Nothing, None)
}

fn settings(check: Check, sslrootcert: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier {
        inner: match check {
            Check::Nothing => None,
            _ => Some(authorities(sslrootcert, &provider)?),
        },
        provider: provider.clone(),
        check,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be set up: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn authorities(
    file: Option<&Path>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|e| format!("sslrootcert {}: {e}", path.display()))?;
            for certificate in certificates {
                let certificate =
                    certificate.map_err(|e| format!("sslrootcert {}: {e}", path.display()))?;
                roots
                    .add(certificate)
                    .map_err(|e| format!("sslrootcert {}: {e}", path.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| format!("no usable certificate authorities: {e}"))
}

#[derive(Debug)]
struct Verifier {
    /// `None` only under [`Check::Nothing`].
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    check: Check,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last: with this error the chain was good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Authority => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// The hash of the server's certificate that `tls-server-end-point` binds to (RFC 5929 §4.1); `None` when its signature
/// algorithm has no hash, or one that this TLS library does not offer.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let wanted = match signature_oid(certificate)? {
        // md5, sha1 and sha256 with RSA: the weak ones are replaced by SHA-256.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11] => HashAlgorithm::SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] => HashAlgorithm::SHA384,
        // ecdsa with SHA-1, SHA-256, SHA-384
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => {
            HashAlgorithm::SHA256
        }
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => HashAlgorithm::SHA384,
        _ => return None,
    };
    let hash = hash_provider(wanted)?;
    Some(hash.hash(certificate).as_ref().to_vec())
}

/// A hash function out of the TLS library's cipher suites: no second implementation is brought in for one digest.
fn hash_provider(wanted: HashAlgorithm) -> Option<&'static dyn Hash> {
    rustls::crypto::ring::ALL_CIPHER_SUITES
        .iter()
        .filter_map(|suite| suite.tls13())
        .map(|suite| suite.common.hash_provider)
        .find(|hash| hash.algorithm() == wanted)
}

/// The bytes of the OID in Certificate.signatureAlgorithm: `SEQUENCE { tbsCertificate, SEQUENCE { OID, … }, … }`.
fn signature_oid(certificate: &[u8]) -> Option<&[u8]> {
    let (inside, _) = der_element(certificate, 0x30)?;
    let (_, behind_tbs) = der_element(inside, 0x30)?;
    let (algorithm, _) = der_element(behind_tbs, 0x30)?;
    let (oid, _) = der_element(algorithm, 0x06)?;
    Some(oid)
}

/// Content of the DER element of type `tag` at the head, and what follows it.
fn der_element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if octets.len() > 4 {
            return None;
        }
        let length = octets.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        (length, rest)
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_algorithms_are_found_in_der() {
        let ecdsa_sha256 = [
            0x30, 0x10, 0x30, 0x02, 0x05, 0x00, 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
            0x3d, 4, 3, 2,
        ];
        assert_eq!(end_point(&ecdsa_sha256).map(|h| h.len()), Some(32));
        let mut sha384 = ecdsa_sha256;
        sha384[17] = 3;
        assert_eq!(end_point(&sha384).map(|h| h.len()), Some(48));
    }

    #[test]
    fn cut_certificates_give_no_binding() {
        let whole = [0x30, 0x08, 0x30, 0x00, 0x30, 0x04, 0x06, 0x02, 1, 2];
        assert_eq!(signature_oid(&whole), Some(&[1u8, 2][..]));
        for end in 0..whole.len() {
            assert_eq!(end_point(&whole[..end]), None);
        }
    }
}
