//! TLS for clients, with a certificate that can be replaced while the edge runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use carillon_service::reload;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a PEM file with a {expected}", path.display())]
    Pem {
        path: PathBuf,
        expected: &'static str,
        source: pem::Error,
    },
    #[error("the certificate {} cannot be used with the key {}", certificate.display(), key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("tls cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// What an edge shows to its clients.
pub(crate) struct Tls {
    files: config::Tls,
    certificate: Arc<Certificate>,
    server: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the certificate and its key.
    pub(crate) fn load(files: &config::Tls) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let first = read(files, &provider)?;
        let certificate = Arc::new(Certificate {
            current: ArcSwap::from_pointee(first),
            provider,
        });
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&certificate.provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            files: files.clone(),
            certificate,
            server: Arc::new(server),
        })
    }

    /// Returns what accepts connections; it shows new certificates too.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }

    /// Reads the certificate and its key again.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let new = read(&self.files, &self.certificate.provider)?;
        self.certificate.current.store(Arc::new(new));
        Ok(())
    }

    /// Follows both files until shutdown; what cannot be used leaves the old certificate in place.
    pub(crate) async fn watch(&self, shutdown: CancellationToken) -> io::Result<()> {
        let mut certificate = reload::watch(&self.files.certificate, shutdown.clone())?;
        let mut key = reload::watch(&self.files.key, shutdown)?;
        // What changed between loading and watching.
        self.reload_or_warn();
        loop {
            let changed = tokio::select! {
                changed = certificate.recv() => changed,
                changed = key.recv() => changed,
            };
            if changed.is_none() {
                return Ok(());
            }
            self.reload_or_warn();
        }
    }

    fn reload_or_warn(&self) {
        match self.reload() {
            Ok(()) => tracing::info!(certificate = %self.files.certificate.display(), "certificate loaded"),
            // The files are replaced one after the other: the second one brings us here again.
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the old certificate is kept"
            ),
        }
    }
}

fn read(files: &config::Tls, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let text = contents(&files.certificate)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| {
            if chain.is_empty() {
                Err(pem::Error::NoItemsFound)
            } else {
                Ok(chain)
            }
        })
        .map_err(|source| TlsError::Pem {
            path: files.certificate.clone(),
            expected: "certificate",
            source,
        })?;
    let key = PrivateKeyDer::from_pem_slice(&contents(&files.key)?).map_err(|source| TlsError::Pem {
        path: files.key.clone(),
        expected: "private key",
        source,
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    })
}

fn contents(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The certificate of the moment.
#[derive(Debug)]
struct Certificate {
    current: ArcSwap<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

#[cfg(test)]
pub(crate) mod tests;
