use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post as on_post};
use carillon_service::listen::{self, Limits};
use carillon_service::problem::{self, Json, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::wire::{get as fetch, post, request};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Body {
    room: String,
    #[serde(default)]
    ttl: u32,
}

fn start() -> std::net::SocketAddr {
    let app = Router::new()
        .route("/echo", on_post(async |Json(body): Json<Body>| Json(body)))
        .route("/busy", get(async || Problem::unavailable("NATS is away", 5)))
        .route(
            "/who",
            get(async || Problem::unauthorized("expected a bearer token")),
        )
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(DefaultBodyLimit::max(64));
    let listener = listen::bind("router", "127.0.0.1:0".parse().unwrap(), 64).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listen::serve(
        listener,
        app,
        Limits::default(),
        CancellationToken::new(),
    ));
    address
}

#[tokio::test]
async fn a_good_body_passes() {
    let (head, body) = post(start(), "/echo", r#"{"room":"a"}"#).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(body, r#"{"room":"a","ttl":0}"#);
}

#[tokio::test]
async fn every_bad_body_is_a_problem_document() {
    let address = start();
    let large = format!(r#"{{"room":"{}"}}"#, "x".repeat(100));
    for (body, status, code, detail) in [
        ("", 400, "bad_request", "expected a JSON body, got none"),
        (
            "{",
            400,
            "bad_request",
            "the body is not JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            "{} x",
            400,
            "bad_request",
            "missing field `room` at line 1 column 2",
        ),
        (
            r#"{"room":"a"} x"#,
            400,
            "bad_request",
            "the body is not JSON: trailing characters at line 1 column 14",
        ),
        (
            r#"{"room":1}"#,
            400,
            "bad_request",
            "invalid type: integer `1`, expected a string at line 1 column 9",
        ),
        (
            r#"{"room":"a","to":1}"#,
            400,
            "bad_request",
            "unknown field `to`, expected `room` or `ttl` at line 1 column 16",
        ),
        (
            large.as_str(),
            413,
            "too_large",
            "the body is larger than the limit",
        ),
    ] {
        let (head, told) = post(address, "/echo", body).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{body}: {head}");
        assert!(
            head.contains("content-type: application/problem+json"),
            "{body}: {head}"
        );
        let told: Value = serde_json::from_str(&told).unwrap();
        let title = if status == 400 {
            "Bad Request"
        } else {
            "Payload Too Large"
        };
        let expected =
            json!({"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail});
        assert_eq!(told, expected, "{body}");
    }
}

#[tokio::test]
async fn a_chunked_body_is_bounded_too() {
    let chunk = format!("60\r\n{}\r\n0\r\n\r\n", "x".repeat(0x60));
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let (head, _) = request(start(), &(head.to_owned() + &chunk)).await;
    assert!(head.starts_with("http/1.1 413"), "{head}");
}

#[tokio::test]
async fn other_refusals_are_problem_documents_with_their_headers() {
    let address = start();
    let (head, body) = fetch(address, "/busy").await;
    assert!(
        head.starts_with("http/1.1 503") && head.contains("retry-after: 5"),
        "{head}"
    );
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["code"],
        "unavailable"
    );
    let (head, _) = fetch(address, "/who").await;
    assert!(
        head.starts_with("http/1.1 401") && head.contains("www-authenticate: bearer"),
        "{head}"
    );
    let (head, body) = fetch(address, "/nowhere").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], 404);
    let (head, _) = fetch(address, "/echo").await;
    assert!(
        head.starts_with("http/1.1 405") && head.contains("application/problem+json"),
        "{head}"
    );
}
