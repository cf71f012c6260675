//! The page `/demo`, to try an edge from a browser during development.
//!
//! The page is one file without outside resources, and its policy lets nothing else run in it. It speaks the
//! protocol of `/ws`, and publishes through the edge that served it, so that no other address needs to allow it.

use std::future::Future;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use carillon_protocol::headers::Headers;
use carillon_protocol::names::{Namespace, Room, check_event};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::accept::{Body, error, full, json, read};
use crate::address::Peer;
use crate::hub::Hub;
use crate::origin::{Origins, Verdict};

/// Where the page is.
pub(crate) const PATH: &str = "/demo";
/// Where the page publishes.
pub(crate) const PUBLISH_PATH: &str = "/demo/publish";

const PAGE: &str = include_str!("../assets/demo.html");
const MAX_BODY: usize = 256 * 1024;
const BODY_TIME: Duration = Duration::from_secs(10);

/// The page, ready to be sent.
pub(crate) struct Demo {
    page: Bytes,
    policy: HeaderValue,
}

impl Demo {
    /// Makes the page for an edge with this path of `/ws`; `publisher` is the URL that the page shows for `curl`.
    pub(crate) fn new(ws_path: &str, publisher: Option<&str>) -> Self {
        let page = PAGE
            .replacen("{{ws_path}}", &attribute(ws_path), 1)
            .replacen("{{publish_path}}", PUBLISH_PATH, 1)
            .replacen("{{publisher}}", &attribute(publisher.unwrap_or_default()), 1);
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; connect-src 'self' ws: wss:; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash_of(&page, "<script>", "</script>"),
            hash_of(&page, "<style>", "</style>"),
        );
        Self {
            policy: HeaderValue::try_from(policy).expect("a policy of hashes is a header value"),
            page: page.into(),
        }
    }

    /// Returns the page.
    pub(crate) fn page(&self) -> Response<Body> {
        let mut response = Response::new(full(self.page.clone()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

impl Hub {
    /// Publishes what the demo page was asked to, as a backend team does.
    pub(crate) async fn publish_for_demo(&self, publish: Publish) -> Result<String, String> {
        let room = publish.room;
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let body = serde_json::json!({ "event": publish.event, "data": publish.data, "id": id }).to_string();
        let (subjects, main) = (self.bus.subjects(), Namespace::main());
        if publish.ephemeral {
            let sent = self
                .bus
                .publish(&subjects.signal(&main, &room), &Headers::new(), body.into())
                .await;
            return sent.map(|()| id).map_err(|error| error.to_string());
        }
        let stored = self
            .bus
            .store(&subjects.publish(&main, &room), &Headers::new(), body.into())
            .await;
        stored.map(|_| id).map_err(|error| error.to_string())
    }
}

/// Quotes a value for an attribute in double quotes.
fn attribute(value: &str) -> String {
    value
        .replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
}

/// The source expression of what stands between two tags.
fn hash_of(page: &str, open: &str, close: &str) -> String {
    let inner = page.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    let (inner, _) = inner.expect("the page has one element of each kind");
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inner)))
}

/// What somebody publishes with the page, into the main namespace.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    #[serde(deserialize_with = "room")]
    pub(crate) room: Room,
    #[serde(deserialize_with = "event")]
    pub(crate) event: String,
    /// Any JSON.
    pub(crate) data: Box<RawValue>,
    /// Not stored: a signal.
    #[serde(default)]
    pub(crate) ephemeral: bool,
}

fn room<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Room, D::Error> {
    Room::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn event<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    check_event(&name).map_err(serde::de::Error::custom)?;
    Ok(name)
}

/// Answers a request to publish: 202 with the id that `send` returns, or 503 with the reason it gives.
pub(crate) async fn publish<B, F, S>(request: Request<B>, peer: &Peer, send: S) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S: FnOnce(Publish) -> F,
    F: Future<Output = Result<String, String>>,
{
    if request.method() != Method::POST {
        let mut response = error(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this address takes POST",
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    // Nobody needs a token here, so pages of other hosts must be kept out.
    if Origins::default().decide(request.headers(), true, peer) == Verdict::Forbidden {
        return error(
            StatusCode::FORBIDDEN,
            "forbidden",
            "only the page of this edge may publish here",
        );
    }
    if !is_json(request.headers()) {
        let message = "the body must be application/json";
        return error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            message,
        );
    }
    let body = match read(request.into_body(), MAX_BODY, BODY_TIME).await {
        Ok(body) => body,
        Err(reason) => return reason.response(),
    };
    let publish = match serde_json::from_slice::<Publish>(&body) {
        Ok(publish) => publish,
        Err(reason) => return error(StatusCode::BAD_REQUEST, "bad_request", &reason.to_string()),
    };
    match send(publish).await {
        Ok(id) => json(StatusCode::ACCEPTED, &serde_json::json!({ "id": id })),
        Err(reason) => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &reason),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    kind.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::header::{HOST, ORIGIN};

    use super::*;

    fn request(body: &'static str) -> Request<Body> {
        let mut request = Request::new(full(body));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:7000"));
        headers.insert(ORIGIN, HeaderValue::from_static("http://127.0.0.1:7000"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        request
    }

    async fn answer(request: Request<Body>) -> (u16, String) {
        let peer =
            crate::address::Proxies::default().resolve([127, 0, 0, 1].into(), false, request.headers());
        let response = publish(request, &peer, async |publish: Publish| {
            match publish.room.as_str() {
                "away" => Err("nats is away".to_owned()),
                room => Ok(format!(
                    "{room} {} {} {}",
                    publish.event, publish.data, publish.ephemeral
                )),
            }
        });
        let response = response.await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn the_page_runs_its_own_script_only_and_loads_nothing() {
        let demo = Demo::new("/ws?\"<&", Some("http://127.0.0.1:7100"));
        let page = std::str::from_utf8(&demo.page).unwrap();
        assert!(page.contains(r#"data-ws-path="/ws?&quot;&lt;&amp;""#));
        assert!(page.contains(r#"data-publisher="http://127.0.0.1:7100""#));
        assert!(!page.contains("{{"));
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("<style").count(), 1);
        for outside in [
            "src=",
            "href=\"http",
            "url(",
            "@import",
            " style=",
            " onclick=",
            "innerHTML",
            "eval(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        let response = demo.page();
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[tokio::test]
    async fn what_the_page_publishes_is_checked_and_handed_on() {
        let good = r#"{"room":"user:42","event":"hello","data":{"a":[1, 2]}}"#;
        let (status, body) = answer(request(good)).await;
        assert_eq!(
            (status, body.as_str()),
            (202, r#"{"id":"user:42 hello {\"a\":[1, 2]} false"}"#)
        );
        let (status, body) = answer(request(
            r#"{"room":"away","event":"e","data":1,"ephemeral":true}"#,
        ))
        .await;
        assert_eq!(
            (status, body.as_str()),
            (503, r#"{"code":"unavailable","message":"nats is away"}"#)
        );
        for bad in [
            "",
            "[]",
            r#"{"room":"","event":"e","data":1}"#,
            r#"{"room":"a","event":"","data":1}"#,
            r#"{"room":"a","event":"e"}"#,
            r#"{"room":"a","event":"e","data":1,"x":2}"#,
        ] {
            assert_eq!(answer(request(bad)).await.0, 400, "{bad}");
        }
    }

    #[tokio::test]
    async fn other_pages_may_not_publish() {
        let good = r#"{"room":"a","event":"e","data":1}"#;
        let mut foreign = request(good);
        foreign
            .headers_mut()
            .insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert_eq!(answer(foreign).await.0, 403);
        let mut form = request(good);
        form.headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert_eq!(answer(form).await.0, 415);
        let mut get = request(good);
        *get.method_mut() = Method::GET;
        assert_eq!(answer(get).await.0, 405);
        let mut shell = request(good);
        shell.headers_mut().remove(ORIGIN);
        assert_eq!(answer(shell).await.0, 202);
    }
}
