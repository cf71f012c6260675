use std::time::Duration;

use bytes::Bytes;
use carillon_bus::Lease;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::offset::Offset;
use carillon_testkit::{http, tokens, wait};
use serde_json::{Value, json};

use crate::stage::{Stage, data, header};

fn event() -> Value {
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

#[tokio::test]
async fn the_same_idempotency_key_is_the_same_publish() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let key = [("idempotency-key", "k1")];
    let first = publisher.post_with("/v1/events", &key, event().to_string()).await;
    let again = publisher.post_with("/v1/events", &key, event().to_string()).await;
    assert_eq!(first.0, 202);
    assert_eq!(first, again);
    let mut receipt = event();
    receipt["receipt"] = json!(true);
    let (status, answer) = publisher.post_with("/v1/events", &key, receipt.to_string()).await;
    let stored = stage.room("a", 1).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(
        answer["offset"]
            .as_str()
            .unwrap()
            .parse::<Offset>()
            .unwrap()
            .sequence,
        stored[0].sequence
    );

    let batch = json!([event(), event()]).to_string();
    let keyed = [("idempotency-key", "k2")];
    let first = publisher
        .post_with("/v1/events/batch", &keyed, batch.clone())
        .await;
    assert_eq!(
        first,
        publisher.post_with("/v1/events/batch", &keyed, batch).await
    );
    // Another caller's key is another key.
    let token = format!(
        "Bearer {}",
        tokens::hs256(tokens::DEV_SECRET, &json!({ "sub": "u", "scope": "publish" }))
    );
    let other = [("idempotency-key", "k1"), ("authorization", token.as_str())];
    assert_eq!(
        publisher
            .post_with("/v1/events", &other, event().to_string())
            .await
            .0,
        202
    );
    assert_eq!(data(&stage.room("a", 4).await).len(), 4);
    stage.ingest_is_empty().await;
    assert_eq!(stage.room("a", 4).await.len(), 4);
    let long = "k".repeat(256);
    let refused = publisher
        .post_with("/v1/events", &[("idempotency-key", &long)], event().to_string())
        .await;
    assert_eq!(
        (refused.0, refused.1["code"].as_str()),
        (400, Some("bad_idempotency_key"))
    );
    publisher.stop().await;
}

#[tokio::test]
async fn a_signal_with_the_same_idempotency_key_is_sent_once() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let mut heard = stage.bus.subscribe("rt.out.main.>", None).await.unwrap();
    let send = async |key: &'static str, n: u64| {
        let body = json!({ "rooms": ["a"], "event": "e", "data": n, "ephemeral": true });
        let key = [("idempotency-key", key)];
        publisher.post_with("/v1/events", &key, body.to_string()).await
    };
    let first = send("k1", 1).await;
    assert_eq!(first.0, 202);
    assert_eq!(send("k1", 1).await, first);
    assert_eq!(send("k2", 2).await.0, 202);
    for n in ["1", "2"] {
        assert_eq!(heard.next().await.unwrap().body, n);
    }
    publisher.stop().await;
}

#[tokio::test]
async fn a_receipt_tells_the_place_and_who_is_there() {
    let stage = Stage::new().await;
    let owner = stage.publisher().await;
    owner.owns_all(&stage).await;
    let standby = stage.publisher().await;
    let mut questions = stage
        .bus
        .subscribe("rt.router.union", Some("router"))
        .await
        .unwrap();
    stage.bus.flush().await;
    let router = async {
        let question = questions.next().await.unwrap();
        let body = Bytes::from_static(br#"{"users":2,"connections":3}"#);
        stage
            .bus
            .publish(&question.reply.unwrap(), &Headers::new(), body)
            .await
            .unwrap();
        serde_json::from_slice::<Value>(&question.body).unwrap()
    };
    let body = json!({ "rooms": ["user:1", "user:2"], "event": "e", "receipt": true });
    let ((status, answer), question) = tokio::join!(standby.post("/v1/events", body), router);
    assert_eq!(
        (status, &answer["users"], &answer["connections"]),
        (202, &json!(2), &json!(3)),
        "{answer}"
    );
    assert_eq!(
        question,
        json!({ "namespace": "/", "rooms": ["user:1", "user:2"] })
    );
    let last = stage.room("user:2", 1).await;
    assert_eq!(
        answer["offset"]
            .as_str()
            .unwrap()
            .parse::<Offset>()
            .unwrap()
            .sequence,
        last[0].sequence
    );

    // Without a router the rest of the receipt still comes.
    drop(questions);
    stage.bus.flush().await;
    let body = json!({ "rooms": ["a"], "event": "e", "receipt": true });
    let (status, answer) = standby.post("/v1/events", body).await;
    assert_eq!((status, &answer["users"]), (202, &Value::Null), "{answer}");
    assert!(answer["offset"].is_string());
    standby.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn a_receipt_that_does_not_come_is_a_timeout_of_an_accepted_event() {
    let mut stage = Stage::new().await;
    stage.options.config.receipt_timeout = Duration::from_millis(500);
    stage.publisher().await.stop().await;
    let mut leases = Vec::new();
    for partition in 0..stage.options.partitions {
        let name = format!("publisher.{partition}");
        leases.push(Lease::acquire(&stage.bus, &name, "test", Duration::from_secs(60)).await);
    }
    let publisher = stage.publisher().await;
    let body = json!({ "rooms": ["a"], "event": "e", "data": 1, "receipt": true });
    let (status, problem) = publisher.post("/v1/events", body).await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("receipt_timeout")));
    drop(leases);
    assert_eq!(data(&stage.room("a", 1).await), ["1"]);
    publisher.stop().await;
}

#[tokio::test]
async fn a_receipt_tells_that_the_ttl_was_over() {
    let stage = Stage::new().await;
    stage.publisher().await.stop().await;
    let mut leases = Vec::new();
    for partition in 0..stage.options.partitions {
        let name = format!("publisher.{partition}");
        leases.push(Lease::acquire(&stage.bus, &name, "test", Duration::from_secs(60)).await);
    }
    let publisher = stage.publisher().await;
    let body = json!({ "rooms": ["a"], "event": "e", "ttl": 1, "receipt": true });
    let owner = async {
        let all = ["rt.ingest.>".to_owned()];
        let now = carillon_bus::history::now;
        wait::until_true("an event that has expired", crate::stage::LIMIT, async || {
            let waiting = stage.bus.last("RT_INGEST", &all, 0).await.unwrap();
            waiting.first().is_some_and(|event| now() > event.time + 1500)
        })
        .await;
        drop(leases);
    };
    let ((status, problem), ()) = tokio::join!(publisher.post("/v1/events", body), owner);
    assert_eq!(
        (status, problem["code"].as_str()),
        (503, Some("expired")),
        "{problem}"
    );
    publisher.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_request() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let plain = json!({ "rooms": ["a"], "event": "e" });
    let with = |fields: Value| {
        let mut event = plain.clone();
        let fields = fields.as_object().unwrap().clone();
        event.as_object_mut().unwrap().extend(fields);
        event
    };
    let cases = [
        (
            with(json!({ "id": "A" })),
            with(json!({ "id": "B", "receipt": true })),
        ),
        (plain.clone(), with(json!({ "rooms": ["b"], "receipt": true }))),
        (with(json!({ "rooms": ["a", "b"] })), plain.clone()),
        (plain.clone(), with(json!({ "event": "other" }))),
        (with(json!({ "ephemeral": true })), plain.clone()),
        (plain.clone(), with(json!({ "ephemeral": true }))),
        (plain.clone(), with(json!({ "namespace": "/chat" }))),
    ];
    for (index, (first, second)) in cases.into_iter().enumerate() {
        let key = format!("k{index}");
        let key = [("idempotency-key", key.as_str())];
        let sent = publisher.post_with("/v1/events", &key, first.to_string()).await;
        assert_eq!(sent.0, 202, "{first}: {}", sent.1);
        let (status, problem) = publisher.post_with("/v1/events", &key, second.to_string()).await;
        let code = problem["code"].as_str();
        assert_eq!(
            (status, code),
            (422, Some("idempotency_key_reused")),
            "{second}: {problem}"
        );
        let again = publisher.post_with("/v1/events", &key, first.to_string()).await;
        assert_eq!(again, sent, "{first}");
    }
    let batch = json!([plain, plain]).to_string();
    let key = [("idempotency-key", "k0")];
    assert_eq!(publisher.post_with("/v1/events/batch", &key, batch).await.0, 422);
    stage.ingest_is_empty().await;
    assert_eq!(stage.room("a", 6).await.len(), 6);
    assert_eq!(stage.room("b", 1).await.len(), 1);
    publisher.stop().await;
}
