//! The HTTP client of the tests.

use std::time::Duration;

pub use reqwest::Client;

/// A plain client: no proxy from the environment, no redirects followed, 30 s for a request.
pub fn client() -> Client {
    // Fails when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap_or_else(|e| panic!("cannot build an http client: {e}"))
}

/// Reads a page, whatever its status.
pub async fn text(url: &str) -> String {
    let answered = async { client().get(url).send().await?.text().await };
    answered
        .await
        .unwrap_or_else(|e| panic!("cannot read {url}: {e}"))
}
