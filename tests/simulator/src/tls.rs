//! A certificate for web.whatsapp.com, fresh at each start. Clients trust it by the hash of its key, and by nothing else.

use std::{io, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::PublicKeyData;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// What the pages are served with.
pub struct Identity {
    /// For connections.
    pub acceptor: TlsAcceptor,
    /// Base64 of SHA-256 of the subject public key info, as Chromium's `--ignore-certificate-errors-spki-list` takes it.
    pub spki: String,
}

impl Identity {
    /// A new key and certificate.
    pub fn make() -> io::Result<Self> {
        let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
        let params = rcgen::CertificateParams::new(vec!["web.whatsapp.com".to_owned()]).map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        let spki = STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info()));
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|b| b.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private))
            .map_err(io::Error::other)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), spki })
    }
}
