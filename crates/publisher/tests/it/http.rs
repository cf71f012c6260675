use carillon_protocol::headers::name;
use carillon_testkit::{http, tokens};
use serde_json::{Value, json};

use crate::stage::{Stage, header};

pub(crate) fn event() -> Value {
    json!({ "rooms": ["a"], "event": "e", "data": 1 })
}

#[tokio::test]
async fn an_event_gets_an_id_and_is_stored() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let (status, answer) = publisher.post("/v1/events", event()).await;
    assert_eq!(status, 202);
    let id = answer["id"].as_str().unwrap().to_owned();
    assert_eq!(answer, json!({ "id": id }));
    let stored = &stage.room("a", 1).await[0];
    assert_eq!(header(stored, name::ID), id);

    let own = json!({ "namespace": "/chat", "rooms": ["a"], "event": "e", "args": [1, 2], "id": "mine" });
    assert_eq!(
        publisher.post("/v1/events", own).await,
        (202, json!({ "id": "mine" }))
    );
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = json!({ "rooms": ["traced"], "event": "e" }).to_string();
    assert_eq!(
        publisher
            .post_with("/v1/events", &[("traceparent", parent)], traced)
            .await
            .0,
        202
    );
    assert_eq!(
        header(&stage.room("traced", 1).await[0], name::TRACEPARENT),
        parent
    );
    publisher.stop().await;
}

#[tokio::test]
async fn bad_requests_are_problem_documents() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let rooms: Vec<String> = (0..1001).map(|room| room.to_string()).collect();
    let many: Vec<Value> = (0..1001).map(|_| event()).collect();
    let cases = [
        ("/v1/events", "{".to_owned(), 400, "not_json"),
        ("/v1/events", String::new(), 400, "not_json"),
        ("/v1/events", "[]".to_owned(), 400, "bad_request"),
        (
            "/v1/events",
            json!({ "rooms": ["a"], "event": "e", "foo": 1 }).to_string(),
            400,
            "unknown_field",
        ),
        (
            "/v1/events",
            json!({ "rooms": "a", "event": "e" }).to_string(),
            400,
            "bad_field",
        ),
        (
            "/v1/events",
            json!({ "rooms": [], "event": "e" }).to_string(),
            400,
            "bad_rooms",
        ),
        (
            "/v1/events",
            json!({ "rooms": rooms, "event": "e" }).to_string(),
            400,
            "too_many_rooms",
        ),
        (
            "/v1/events",
            json!({ "rooms": ["a"] }).to_string(),
            400,
            "no_event",
        ),
        (
            "/v1/events",
            json!({ "rooms": ["a"], "event": "x".repeat(129) }).to_string(),
            400,
            "bad_event",
        ),
        (
            "/v1/events",
            json!({ "namespace": "/no", "rooms": ["a"], "event": "e" }).to_string(),
            400,
            "unknown_namespace",
        ),
        (
            "/v1/events",
            json!({ "rooms": ["a"], "event": "e", "data": "x".repeat(300_000) }).to_string(),
            413,
            "too_large",
        ),
        ("/v1/events", "x".repeat((1 << 20) + 1), 413, "too_large"),
        ("/v1/events", "x".repeat(5 << 20), 413, "too_large"),
        ("/v1/events/batch", event().to_string(), 400, "bad_request"),
        (
            "/v1/events/batch",
            json!(many).to_string(),
            400,
            "too_many_events",
        ),
        (
            "/v1/events/batch",
            json!([event(), { "rooms": ["a"] }]).to_string(),
            400,
            "no_event",
        ),
        ("/v1/nothing", event().to_string(), 404, "not_found"),
    ];
    for (path, body, status, code) in cases {
        let shown: String = body.chars().take(80).collect();
        let (found, problem) = publisher.post_with(path, &[], body).await;
        assert_eq!(
            (found, problem["code"].as_str()),
            (status, Some(code)),
            "{path} {shown}: {problem}"
        );
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
    }
    let response = http::client()
        .get(format!("http://{}/v1/events", publisher.addr))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 405);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(
        stage
            .bus
            .last("RT_EVENTS", &["rt.event.>".to_owned()], 0)
            .await
            .unwrap()
            .len(),
        0
    );
    publisher.stop().await;
}

#[tokio::test]
async fn callers_need_a_scope_and_a_namespace() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let token = |scope: &str| {
        format!(
            "Bearer {}",
            tokens::hs256(tokens::DEV_SECRET, &json!({ "scope": scope }))
        )
    };
    let chat = json!({ "namespace": "/chat", "rooms": ["a"], "event": "e" });
    for (authorization, body, status) in [
        ("", event(), 401),
        ("Bearer nonsense", event(), 401),
        ("Bearer read-key", event(), 403),
        ("Bearer chat-key", event(), 403),
        ("Bearer chat-key", chat, 202),
        (&token("read publish"), event(), 202),
        (&token("read"), event(), 403),
    ] {
        let (found, answer) = publisher
            .post_with(
                "/v1/events",
                &[("authorization", authorization)],
                body.to_string(),
            )
            .await;
        assert_eq!(found, status, "{authorization}: {answer}");
    }
    let mixed = json!([{ "namespace": "/chat", "rooms": ["b"], "event": "e" }, event()]).to_string();
    let refused = publisher
        .post_with("/v1/events/batch", &[("authorization", "Bearer chat-key")], mixed)
        .await;
    assert_eq!(refused.0, 403);
    assert!(
        stage.read("RT_EVENTS", "rt.event.chat.r.b").await.is_empty(),
        "nothing of a refused batch is published"
    );
    for path in ["/openapi.json", "/healthz"] {
        let response = http::client()
            .get(format!("http://{}{path}", publisher.addr))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 200);
    }
    let url = format!("http://{}/openapi.json", publisher.addr);
    let document: Value = http::client()
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(document["paths"]["/v1/events"]["post"].is_object());
    publisher.stop().await;
}

#[tokio::test]
async fn a_batch_is_published_in_order() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let batch: Vec<Value> = (0..1000)
        .map(|data| json!({ "rooms": ["a"], "event": "e", "data": data }))
        .collect();
    let (status, answer) = publisher.post("/v1/events/batch", json!(batch)).await;
    assert_eq!(status, 202);
    let results = answer["results"].as_array().unwrap();
    let stored = stage.room("a", 1000).await;
    crate::stage::is_numbered(&stored, 1000);
    for (result, stored) in results.iter().zip(&stored) {
        assert_eq!(result["id"], header(stored, name::ID));
    }
    assert_eq!(
        publisher.post("/v1/events/batch", json!([])).await,
        (202, json!({ "results": [] }))
    );
    publisher.stop().await;
}
