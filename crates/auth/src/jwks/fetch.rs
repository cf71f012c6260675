//! One bounded HTTP request for a key set.

use std::fmt;
use std::time::Duration;

use reqwest::{Client, Url, redirect};

use super::document;
use crate::algorithm::Algorithm;
use crate::key::Key;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1024 * 1024;
const MAX_REDIRECTS: usize = 3;

/// Why a key set could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No HTTP client could be made, for example without any certificate authority.
    #[error("the HTTP client cannot be started: {0}")]
    Client(String),
    /// The issuer did not answer in time.
    #[error("the issuer did not answer within 5 s")]
    TimedOut,
    /// The issuer could not be reached.
    #[error("the issuer cannot be reached: {0}")]
    Unreachable(String),
    /// The issuer answered with an error.
    #[error("the issuer answered {0}")]
    Status(u16),
    /// The answer is too large.
    #[error("the key set is larger than 1 MiB")]
    TooLarge,
    /// The answer is not a key set.
    #[error("the answer is not a key set")]
    NotAKeySet,
    /// The process is stopping.
    #[error("the fetch was interrupted")]
    Interrupted,
}

/// Where a key set is fetched from; displayed without credentials and query.
pub(super) struct Source {
    client: Client,
    url: Url,
}

impl Source {
    pub(super) fn new(url: Url) -> Result<Self, FetchError> {
        // Without a process-wide provider the client would panic; a provider that is set stays.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = Client::builder()
            .timeout(TIMEOUT)
            // Fetches are minutes apart, so a connection kept open would only be found closed.
            .pool_max_idle_per_host(0)
            .https_only(url.scheme() == "https")
            .redirect(redirect::Policy::limited(MAX_REDIRECTS))
            .build()
            .map_err(|error| FetchError::Client(root_cause(&error)))?;
        Ok(Self { client, url })
    }

    pub(super) async fn fetch(&self, only: Option<Algorithm>) -> Result<Vec<Key>, FetchError> {
        let mut response = self
            .client
            .get(self.url.clone())
            .send()
            .await
            .map_err(request_error)?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(request_error)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        document::keys(&body, only).ok_or(FetchError::NotAKeySet)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "{}://{host}", self.url.scheme())?;
        if let Some(port) = self.url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.url.path())
    }
}

fn request_error(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        FetchError::TimedOut
    } else {
        FetchError::Unreachable(root_cause(&error))
    }
}

/// The innermost message; the outer ones repeat the URL, which may hold credentials.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => "the request failed".to_owned(),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_neither_credentials_nor_query() {
        let url = Url::parse("http://user:pass@issuer:8080/jwks?key=secret").unwrap();
        assert_eq!(Source::new(url).unwrap().to_string(), "http://issuer:8080/jwks");
    }
}
