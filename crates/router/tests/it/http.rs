use carillon_protocol::session::{Record, State};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Running};

struct Api<'a>(&'a Running);

impl Api<'_> {
    async fn call(&self, key: Option<&str>, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.0.address);
        let mut request = carillon_testkit::http::client().request(method.parse().unwrap(), url);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.body(body.to_owned());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Some("reader"), "GET", path, None).await;
        assert_eq!(status, 200, "{path} {body}");
        body
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_rooms_are_shown() {
    let cluster = Cluster::start().await;
    let router = cluster.router().await;
    let api = Api(&router);
    let edge = cluster.edge().await;
    let sid = edge
        .open(Record {
            since: 1_700_000_000_123,
            ..edge.record(Some("a/b"), &["x/y"])
        })
        .await;
    let user = api.get("/v1/users/a%2Fb").await;
    assert_eq!(user["online"], true);
    assert_eq!(
        user["connections"],
        json!([{
            "sid": sid,
            "namespace": "/",
            "edge": edge.id,
            "transport": "ws",
            "since": "2023-11-14T22:13:20.123Z",
            "rooms": ["all", format!("session:{sid}"), "user:a/b", "x/y"],
        }])
    );
    let members = json!({ "count": 1, "members": [{ "userId": "a/b", "sid": sid }] });
    assert_eq!(api.get("/v1/rooms/x%2Fy?namespace=/").await, members);
    assert_eq!(
        api.get("/v1/users/nobody").await,
        json!({ "online": false, "count": 0, "connections": [] })
    );
    assert_eq!(
        api.get("/v1/rooms/nowhere").await,
        json!({ "count": 0, "members": [] })
    );
    assert_eq!(api.get("/v1/users/a%2Fb?namespace=/brief").await["online"], false);
    edge.away(sid).await;
    assert_eq!(api.get("/v1/users/a%2Fb").await["online"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_parts() {
    let cluster = Cluster::start().await;
    let router = cluster.router().await;
    let api = Api(&router);
    let edge = cluster.edge().await;
    for _ in 0..5 {
        edge.connect(Some("42"), &["chat"]).await;
    }
    for (path, list) in [("/v1/rooms/chat", "members"), ("/v1/users/42", "connections")] {
        let first = api.get(&format!("{path}?limit=3")).await;
        assert_eq!(
            (&first["count"], first[list].as_array().unwrap().len()),
            (&json!(5), 3),
            "{first}"
        );
        let next = first["next"].as_str().unwrap();
        let second = api.get(&format!("{path}?limit=3&next={next}")).await;
        assert_eq!(second[list].as_array().unwrap().len(), 2);
        assert!(second.get("next").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_carried_out() {
    let cluster = Cluster::start().await;
    let router = cluster.router().await;
    let api = Api(&router);
    let edge = cluster.edge().await;
    let sid = edge.connect(Some("42"), &[]).await;
    let done = async |method: &str, path: String| {
        let (status, body) = api.call(Some("admin"), method, &path, None).await;
        assert_eq!((status, body), (204, Value::Null), "{path}");
    };
    done("POST", "/v1/rooms/chat/members/42".to_owned()).await;
    assert_eq!(cluster.count("chat").await, 1);
    done("DELETE", "/v1/rooms/chat/members/42".to_owned()).await;
    assert_eq!(cluster.count("chat").await, 0);
    done("POST", format!("/v1/rooms/chat/connections/{sid}")).await;
    assert_eq!(cluster.count("chat").await, 1);
    done("DELETE", format!("/v1/rooms/chat/connections/{sid}")).await;
    assert_eq!(cluster.count("chat").await, 0);
    done("POST", "/v1/rooms/chat/members/nobody".to_owned()).await;
    done("POST", "/v1/rooms/chat/connections/none".to_owned()).await;
    done("POST", "/v1/users/nobody/disconnect".to_owned()).await;
    let (status, _) = api
        .call(
            Some("admin"),
            "POST",
            "/v1/users/42/disconnect",
            Some(r#"{"reason":"enough"}"#),
        )
        .await;
    assert_eq!(status, 204);
    assert_eq!(cluster.state(sid).await, Some(State::Ended));
    assert_eq!(edge.orders.lock().last().unwrap()["reason"], "enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_document() {
    let cluster = Cluster::start().await;
    let router = cluster.router().await;
    let api = Api(&router);
    let reader = carillon_testkit::tokens::hs256("dev-secret", &json!({ "sub": "x", "scope": "read" }));
    let nobody = carillon_testkit::tokens::dev("x");
    let long = format!("/v1/rooms/{}", "x".repeat(257));
    for (key, method, path, body, status, code) in [
        (None, "GET", "/v1/rooms/chat", None, 401, "unauthorized"),
        (Some("wrong"), "GET", "/v1/rooms/chat", None, 401, "unauthorized"),
        (None, "POST", "/v1/revocations", Some("{}"), 401, "unauthorized"),
        (Some("publisher"), "GET", "/v1/rooms/chat", None, 403, "forbidden"),
        (Some(&*nobody), "GET", "/v1/users/x", None, 403, "forbidden"),
        (
            Some("reader"),
            "POST",
            "/v1/users/42/disconnect",
            None,
            403,
            "forbidden",
        ),
        (
            Some(&*reader),
            "DELETE",
            "/v1/rooms/chat/members/42",
            None,
            403,
            "forbidden",
        ),
        (
            Some("reader"),
            "POST",
            "/v1/revocations",
            Some(r#"{"user":"1","ttl":5}"#),
            403,
            "forbidden",
        ),
        (
            Some("brief-admin"),
            "GET",
            "/v1/rooms/chat",
            None,
            403,
            "forbidden",
        ),
        (
            Some("brief-admin"),
            "POST",
            "/v1/revocations",
            Some(r#"{"user":"1","ttl":5}"#),
            403,
            "forbidden",
        ),
        (
            Some("admin"),
            "GET",
            "/v1/rooms/chat?namespace=/nowhere",
            None,
            400,
            "unknown_namespace",
        ),
        (
            Some("admin"),
            "GET",
            "/v1/rooms/chat?namespace=nowhere",
            None,
            400,
            "bad_namespace",
        ),
        (
            Some("admin"),
            "GET",
            "/v1/rooms/chat?limit=x",
            None,
            400,
            "bad_request",
        ),
        (
            Some("admin"),
            "GET",
            "/v1/rooms/chat?limit=1001",
            None,
            400,
            "bad_limit",
        ),
        (
            Some("admin"),
            "GET",
            "/v1/rooms/chat?next=x",
            None,
            400,
            "bad_next",
        ),
        (
            Some("admin"),
            "GET",
            "/v1/rooms/chat?unknown=1",
            None,
            400,
            "bad_request",
        ),
        (Some("admin"), "GET", "/v1/rooms/%FF", None, 400, "bad_request"),
        (Some("admin"), "GET", &*long, None, 400, "bad_room"),
        (
            Some("admin"),
            "POST",
            "/v1/users/42/disconnect",
            Some("[]"),
            400,
            "bad_field",
        ),
        (
            Some("admin"),
            "POST",
            "/v1/users/42/disconnect",
            Some(r#"{"why":1}"#),
            400,
            "bad_field",
        ),
        (Some("admin"), "POST", "/v1/revocations", None, 400, "not_json"),
        (
            Some("admin"),
            "POST",
            "/v1/revocations",
            Some(r#"["1",null,5]"#),
            400,
            "bad_field",
        ),
        (
            Some("admin"),
            "POST",
            "/v1/revocations",
            Some("{}"),
            400,
            "bad_ttl",
        ),
        (
            Some("admin"),
            "POST",
            "/v1/revocations",
            Some(r#"{"ttl":5}"#),
            400,
            "no_target",
        ),
        (
            Some("admin"),
            "POST",
            "/v1/revocations",
            Some(r#"{"user":"1","jti":"2","ttl":5}"#),
            400,
            "bad_target",
        ),
        (
            Some("admin"),
            "POST",
            "/v1/revocations",
            Some(r#"{"user":"1","ttl":5,"x":1}"#),
            400,
            "bad_field",
        ),
        (Some("admin"), "GET", "/v1/nothing", None, 404, "not_found"),
        (
            Some("admin"),
            "PUT",
            "/v1/rooms/chat",
            None,
            405,
            "method_not_allowed",
        ),
    ] {
        let (got, problem) = api.call(key, method, path, body).await;
        assert_eq!(
            (got, &problem["code"]),
            (status, &json!(code)),
            "{method} {path} {problem}"
        );
        assert_eq!(problem["status"], status);
    }
    let large = "x".repeat(100_000);
    for path in ["/v1/revocations", "/v1/users/42/disconnect"] {
        let (status, problem) = api.call(Some("admin"), "POST", path, Some(&large)).await;
        assert_eq!(
            (status, &problem["status"]),
            (413, &json!(413)),
            "{path} {problem}"
        );
    }
    assert_eq!(api.get("/v1/rooms/chat").await["count"], 0);
    let (status, _) = api.call(Some(&reader), "GET", "/v1/rooms/chat", None).await;
    assert_eq!(status, 200);
    let (status, document) = api.call(None, "GET", "/openapi.json", None).await;
    assert_eq!(status, 200);
    assert!(document["paths"]["/v1/rooms/{room}"]["get"].is_object());
    for path in ["/healthz", "/readyz"] {
        assert!(document["paths"][path]["get"].is_object());
        let (status, _) = api.call(None, "GET", path, None).await;
        assert_eq!(status, 200, "{path}");
    }
}
