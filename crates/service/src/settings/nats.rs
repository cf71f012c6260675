use std::path::PathBuf;

use serde::Deserialize;

/// `[nats]`: where the cluster's state and traffic live.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nats {
    /// Server URLs, separated by commas.
    pub url: String,
    /// First token of every subject, and name part of every stream and bucket.
    pub prefix: String,
    /// Copies of every stream and bucket: 1 or 3 (or 5).
    pub replicas: usize,
    /// A `.creds` file.
    pub credentials: Option<PathBuf>,
    /// An nkey seed file.
    pub nkey: Option<PathBuf>,
    pub tls: Tls,
}

/// `[nats.tls]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Refuse a server without TLS.
    pub required: bool,
    /// PEM file of the authority; the system's are used otherwise.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file of the client's key.
    pub key: Option<PathBuf>,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            prefix: "rt".to_owned(),
            replicas: 1,
            credentials: None,
            nkey: None,
            tls: Tls::default(),
        }
    }
}
