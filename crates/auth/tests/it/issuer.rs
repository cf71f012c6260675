//! An issuer that serves a key set over HTTP, and fails on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::tokens::soon;

pub(crate) struct Issuer {
    address: SocketAddr,
    answers: Arc<Answers>,
    server: JoinHandle<()>,
}

struct Answers {
    next: Mutex<(u16, String)>,
    requests: AtomicUsize,
    /// An answer takes a permit, so that a test can hold answers back.
    gate: Semaphore,
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let answers = Arc::new(Answers {
            next: Mutex::new((200, r#"{"keys":[]}"#.to_owned())),
            requests: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/jwks", get(answer))
            .with_state(Arc::clone(&answers));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            answers,
            server,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    pub(crate) fn answer_keys(&self, keys: &[Value]) {
        self.answer(200, json!({ "keys": keys }).to_string());
    }

    pub(crate) fn answer_status(&self, status: u16) {
        self.answer(status, "{\"keys\":[]}".to_owned());
    }

    pub(crate) fn answer(&self, status: u16, body: String) {
        *self.answers.next.lock() = (status, body);
    }

    pub(crate) fn requests(&self) -> usize {
        self.answers.requests.load(Ordering::SeqCst)
    }

    /// Lets no answer out until [`Issuer::release`].
    pub(crate) fn hold(&self) {
        self.answers.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn release(&self) {
        self.answers.gate.add_permits(1_000_000);
    }

    pub(crate) async fn wait_for_requests(&self, count: usize) {
        soon(async {
            while self.requests() < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    /// Closes the port, so that connections are refused.
    pub(crate) async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

async fn answer(State(answers): State<Arc<Answers>>) -> (StatusCode, String) {
    answers.requests.fetch_add(1, Ordering::SeqCst);
    answers.gate.acquire().await.unwrap().forget();
    let (status, body) = answers.next.lock().clone();
    (StatusCode::from_u16(status).unwrap(), body)
}

/// The JSON Web Key of a public key in PEM.
pub(crate) fn jwk(id: Option<&str>, key: &DecodingKey) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_decoding_key(key, None).unwrap()).unwrap();
    if let Some(id) = id {
        jwk["kid"] = json!(id);
    }
    jwk
}

pub(crate) fn rsa_jwk(id: Option<&str>, pem: &str) -> Value {
    jwk(id, &DecodingKey::from_rsa_pem(pem.as_bytes()).unwrap())
}
