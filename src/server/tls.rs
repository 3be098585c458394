//! The proxy's own certificate for its clients.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

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
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| format!("{}: {e}", cert.display()))?;
    // Asked for by clients that start TLS without an SSLRequest (sslnegotiation=direct).
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Some(ServerTls {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        certificate_pem: pem.into(),
    }))
}
