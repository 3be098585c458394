//! The proxy's own certificate for its clients, and the ones they show.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;
use x509_certificate::X509Certificate;

use super::stream::ClientStream;
use crate::config::{Tls, TlsMode};

/// What a listener needs for TLS.
#[derive(Clone)]
pub struct ServerTls {
    pub acceptor: TlsAcceptor,
    /// The certificate chain as PEM, for SCRAM's channel binding.
    pub certificate_pem: Arc<[u8]>,
}

/// Reads certificate and key; `None` where `[tls] mode = "disable"`, or "prefer" without a certificate.
///
/// # Errors
/// A missing or unusable file, in words for the operator.
pub fn load(tls: &Tls) -> Result<Option<ServerTls>, String> {
    if tls.mode == TlsMode::Disable {
        return Ok(None);
    }
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
        return match tls.mode {
            TlsMode::Require => Err("[tls] mode = \"require\" needs cert and key".into()),
            _ => Ok(None),
        };
    };
    let pem = std::fs::read(cert).map_err(|e| format!("{}: {e}", cert.display()))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("{}: not a PEM certificate: {e}", cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| format!("{}: not a PEM key: {e}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match &tls.client_ca {
        Some(file) => client_verifier(file, &provider)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| format!("{}: {e}", cert.display()))?;
    if tls.client_ca.is_some() {
        // A session that is taken up again is not asked for its certificate, which may have expired meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    // Asked for by clients that start TLS without an SSLRequest (sslnegotiation=direct).
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Some(ServerTls {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        certificate_pem: pem.into(),
    }))
}

/// Takes certificates of these authorities that hold now; clients may have none, for others than certificates prove who somebody is.
fn client_verifier(
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| wrong(&e))? {
        let certificate = certificate.map_err(|e| wrong(&e))?;
        roots.add(certificate).map_err(|e| wrong(&e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    verifier
        .allow_unauthenticated()
        .build()
        .map_err(|e| wrong(&e))
}

/// The common name in the certificate that a client has shown, which TLS has checked; `None` without a certificate, and for one with
/// several names: who chose the one to go by?
pub fn common_name(stream: &ClientStream) -> Option<String> {
    let ClientStream::Tls(stream) = stream else {
        return None;
    };
    let shown = stream.get_ref().1.peer_certificates()?.first()?;
    name_in(shown)
}

fn name_in(certificate: &[u8]) -> Option<String> {
    let certificate = X509Certificate::from_der(certificate).ok()?;
    let certificate: &x509_certificate::rfc5280::Certificate = certificate.as_ref();
    let mut names = certificate.tbs_certificate.subject.iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.to_string().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_certificate::{KeyAlgorithm, X509CertificateBuilder};

    fn certificate(names: &[&str]) -> Vec<u8> {
        let mut builder = X509CertificateBuilder::default();
        let subject = builder.subject();
        for name in names {
            subject.append_common_name_utf8_string(name).unwrap();
        }
        subject.append_organization_utf8_string("app").unwrap();
        let made = builder.create_with_random_keypair(KeyAlgorithm::Ed25519);
        made.unwrap().0.encode_der().unwrap()
    }

    #[test]
    fn only_the_common_name_counts() {
        assert_eq!(name_in(&certificate(&["alice"])).as_deref(), Some("alice"));
        assert_eq!(name_in(&certificate(&[])), None);
        assert_eq!(name_in(&certificate(&["alice", "bob"])), None);
        assert_eq!(name_in(b"not a certificate"), None);
    }
}
