//! Reaching a server: address, TLS, and who we are.

use std::path::Path;
use std::sync::Arc;

use carillon_service::settings::Nats;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection in the clear or over TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why a server could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("bad server address {0}")]
    Address(String),
    #[error("connection to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("credentials: {0}")]
    Credentials(String),
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    #[error("the server refused: {0}")]
    Refused(String),
}

/// One server of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    host: String,
    port: u16,
    tls: bool,
    user: Option<String>,
    password: Option<String>,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, DialError> {
        let bad = || DialError::Address(text.rsplit('@').next().unwrap_or_default().to_owned());
        let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
        let tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(bad()),
        };
        let (login, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, rest),
        };
        let host = host.trim_end_matches('/');
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (host, 4222),
        };
        if host.is_empty() {
            return Err(bad());
        }
        let (user, password) = match login.map(|login| login.split_once(':')) {
            Some(Some((user, password))) => (Some(user.to_owned()), Some(password.to_owned())),
            Some(None) => (login.map(str::to_owned), None),
            None => (None, None),
        };
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls,
            user,
            password,
        })
    }

    /// Takes the credentials of another address of the same cluster.
    pub(super) fn with_login_of(mut self, other: &Self) -> Self {
        (self.user, self.password, self.tls) =
            (other.user.clone(), other.password.clone(), self.tls || other.tls);
        self
    }

    pub(super) async fn connect(&self) -> Result<TcpStream, DialError> {
        let name = format!("{}:{}", self.host, self.port);
        let stream = TcpStream::connect((&*self.host, self.port))
            .await
            .map_err(|error| DialError::Connect(name, error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| DialError::Connect(self.host.clone(), error))?;
        Ok(stream)
    }

    /// Puts TLS over the connection where one of the two sides asks for it.
    pub(super) async fn secure(
        &self,
        stream: TcpStream,
        settings: &Nats,
        required: bool,
    ) -> Result<Box<dyn Stream>, DialError> {
        if !(self.tls || settings.tls.required || required) {
            return Ok(Box::new(stream));
        }
        let error = |error: &dyn std::fmt::Display| DialError::Tls(error.to_string());
        let config = tls_config(settings)?;
        let name = ServerName::try_from(self.host.clone()).map_err(|cause| error(&cause))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        Ok(Box::new(
            connector
                .connect(name, stream)
                .await
                .map_err(|cause| error(&cause))?,
        ))
    }
}

fn tls_config(settings: &Nats) -> Result<rustls::ClientConfig, DialError> {
    let error = |error: &dyn std::fmt::Display| DialError::Tls(error.to_string());
    let mut roots = rustls::RootCertStore::empty();
    match &settings.tls.ca {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(|cause| error(&cause))? {
                roots
                    .add(certificate.map_err(|cause| error(&cause))?)
                    .map_err(|cause| error(&cause))?;
            }
        }
        None => {
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                return Err(DialError::Tls(
                    "the system has no certificate authorities".to_owned(),
                ));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| error(&cause))?
        .with_root_certificates(roots);
    match (&settings.tls.certificate, &settings.tls.key) {
        (Some(certificate), Some(key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
                .map_err(|cause| error(&cause))?
                .collect();
            let key = PrivateKeyDer::from_pem_file(key).map_err(|cause| error(&cause))?;
            builder
                .with_client_auth_cert(chain.map_err(|cause| error(&cause))?, key)
                .map_err(|cause| error(&cause))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// What the server says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    pub(super) nonce: String,
    pub(super) tls_required: bool,
    pub(super) connect_urls: Vec<String>,
    pub(super) ldm: bool,
}

/// Returns the body of `CONNECT`.
pub(super) fn connect_options(
    settings: &Nats,
    name: &str,
    address: &Address,
    info: &Info,
) -> Result<String, DialError> {
    let mut options = serde_json::json!({
        "verbose": false, "pedantic": false, "lang": "carillon", "version": env!("CARGO_PKG_VERSION"),
        "protocol": 1, "headers": true, "no_responders": true, "echo": true, "name": name,
    });
    let mut set = |key: &str, value: String| options[key] = value.into();
    match (&address.user, &address.password) {
        (Some(user), Some(password)) => {
            set("user", user.clone());
            set("pass", password.clone());
        }
        (Some(token), None) => set("auth_token", token.clone()),
        (None, _) => {}
    }
    if let Some(path) = &settings.credentials {
        let text = read(path)?;
        let (jwt, seed) = credentials(&text).ok_or_else(|| bad_credentials(path))?;
        set("jwt", jwt.to_owned());
        set(
            "sig",
            sign(seed, &info.nonce).ok_or_else(|| bad_credentials(path))?.0,
        );
    } else if let Some(path) = &settings.nkey {
        let (signature, public) =
            sign(read(path)?.trim(), &info.nonce).ok_or_else(|| bad_credentials(path))?;
        set("sig", signature);
        set("nkey", public);
    }
    Ok(options.to_string())
}

fn read(path: &Path) -> Result<String, DialError> {
    std::fs::read_to_string(path)
        .map_err(|error| DialError::Credentials(format!("{}: {error}", path.display())))
}

fn bad_credentials(path: &Path) -> DialError {
    DialError::Credentials(format!("{} holds no usable key", path.display()))
}

fn sign(seed: &str, nonce: &str) -> Option<(String, String)> {
    use base64::Engine;

    let key = nkeys::KeyPair::from_seed(seed).ok()?;
    let signature = key.sign(nonce.as_bytes()).ok()?;
    Some((
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature),
        key.public_key(),
    ))
}

/// Splits a `.creds` file into its JWT and its seed.
fn credentials(text: &str) -> Option<(&str, &str)> {
    let mut blocks =
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .scan(false, |inside, line| {
                let marker = line.starts_with("---");
                let begins = marker && line.contains("BEGIN");
                if marker {
                    *inside = begins;
                }
                Some((*inside && !marker).then_some(line))
            });
    let mut next = || blocks.by_ref().flatten().next();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_port_and_login() {
        let address = Address::parse("tls://u:p@[::1]:4333/").unwrap();
        assert_eq!(
            (address.host.as_str(), address.port, address.tls),
            ("::1", 4333, true)
        );
        assert_eq!(
            (address.user.as_deref(), address.password.as_deref()),
            (Some("u"), Some("p"))
        );
        assert_eq!(Address::parse("127.0.0.1").unwrap().port, 4222);
        assert!(Address::parse("http://x").is_err());
        assert!(Address::parse("nats://x:port").is_err());
    }

    #[test]
    fn a_credentials_file_has_two_blocks() {
        let text = "-----BEGIN NATS USER JWT-----\njwt\n------END NATS USER JWT------\n\n** IMPORTANT **\n\
                    -----BEGIN USER NKEY SEED-----\nseed\n------END USER NKEY SEED------\n";
        assert_eq!(credentials(text), Some(("jwt", "seed")));
        assert_eq!(credentials("nothing"), None);
    }
}
