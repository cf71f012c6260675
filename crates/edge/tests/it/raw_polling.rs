//! Long-polling by plain requests, to see each of them.

use carillon_testkit::http;
use serde_json::{Value, json};

use crate::stage::Edge;

/// Requests as they stand.
pub(crate) struct Raw {
    pub(crate) http: http::Client,
    pub(crate) base: String,
    pub(crate) sid: String,
}

impl Raw {
    pub(crate) async fn open(edge: &Edge) -> Self {
        let http = http::client();
        let base = format!("{}/socket.io/?EIO=4&transport=polling", edge.url());
        let response = http.get(&base).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain; charset=UTF-8");
        let body = response.text().await.unwrap();
        let open: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["upgrades"], json!(["websocket"]));
        let sid = open["sid"].as_str().unwrap().to_owned();
        Self { http, base, sid }
    }

    pub(crate) fn at(&self, base: &str, t: &str) -> String {
        format!("{base}&sid={}&t={t}", self.sid)
    }

    pub(crate) async fn poll(&self, t: &str) -> (u16, String) {
        self.poll_at(&self.base, t).await
    }

    pub(crate) async fn poll_at(&self, base: &str, t: &str) -> (u16, String) {
        let response = self.http.get(self.at(base, t)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Polls until an answer holds a packet that begins so.
    pub(crate) async fn poll_until(&self, t: &str, packet: &str) -> String {
        for n in 0.. {
            let (status, body) = self.poll(&format!("{t}{n}")).await;
            assert_eq!(status, 200, "{body}");
            if body.split('\u{1e}').any(|one| one.starts_with(packet)) {
                return body;
            }
        }
        unreachable!("polling goes on")
    }

    pub(crate) async fn post(&self, t: &str, body: &str) -> (u16, String) {
        self.post_at(&self.base, t, body).await
    }

    pub(crate) async fn post_at(&self, base: &str, t: &str, body: &str) -> (u16, String) {
        let response = self
            .http
            .post(self.at(base, t))
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}
