//! The published rules of Engine.IO 4 and Socket.IO 5, spoken by hand over HTTP and WebSocket.

use carillon_testkit::clients::{WsClient, WsOptions};
use carillon_testkit::{http, wait};
use serde_json::{Value, json};

use crate::stage::{LIMIT, Stage};

/// A server that echoes, as the protocols' own tests ask for.
const ECHO: &str = r#"
[edge]
ping_interval = "20s"
[namespaces."/"]
anonymous = true
[[namespaces."/".on]]
event = "message"
do = [{ emit = { event = "message-back", data = "data" } }]
[[namespaces."/".on]]
event = "message-with-ack"
do = [{ reply = "data" }]
[namespaces."/custom"]
anonymous = true
[[namespaces."/custom".on]]
event = "message"
do = [{ emit = { event = "message-back", data = "data" } }]
"#;

async fn stage() -> Stage {
    Stage::config(ECHO.to_owned(), &[]).await
}

/// Engine.IO by hand; requests go to both edges in turn.
struct Engine<'a> {
    stage: &'a Stage,
    http: reqwest::Client,
}

impl<'a> Engine<'a> {
    fn new(stage: &'a Stage) -> Self {
        Self {
            stage,
            http: http::client(),
        }
    }

    fn url(&self, edge: usize, query: &str) -> String {
        format!("http://{}/socket.io/?{query}", self.stage.edges[edge % 2])
    }

    async fn get(&self, edge: usize, query: &str) -> (u16, String) {
        let response = self.http.get(self.url(edge, query)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn post(&self, edge: usize, query: &str, body: &str) -> (u16, String) {
        let request = self.http.post(self.url(edge, query)).body(body.to_owned());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Opens a session by polling and returns the query of its requests.
    async fn open(&self) -> String {
        let (status, body) = self.get(0, "EIO=4&transport=polling").await;
        assert_eq!(status, 200, "{body}");
        let open: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
        format!("EIO=4&transport=polling&sid={}", open["sid"].as_str().unwrap())
    }

    fn socket(&self, edge: usize, query: &str) -> WsClient {
        let url = self.url(edge, query).replace("http://", "ws://");
        self.stage.driver.ws(url, WsOptions::new())
    }
}

/// The next frame as text, whatever it would be as JSON.
async fn frame(socket: &WsClient) -> String {
    match socket.next_message().await {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Opens Engine.IO over WebSocket and enters the main namespace.
async fn enter(engine: &Engine<'_>, edge: usize) -> WsClient {
    let socket = engine.socket(edge, "EIO=4&transport=websocket");
    assert!(frame(&socket).await.starts_with("0{"));
    socket.send_text("40");
    assert!(frame(&socket).await.starts_with("40{\"sid\":\""));
    socket
}

#[tokio::test]
async fn a_session_opens_over_either_transport_and_bad_requests_are_numbered() {
    let stage = stage().await;
    let engine = Engine::new(&stage);
    let (status, body) = engine.get(0, "EIO=4&transport=polling").await;
    let polling: Value = serde_json::from_str(&body[1..]).unwrap();
    let socket = engine.socket(1, "EIO=4&transport=websocket");
    let websocket: Value = serde_json::from_str(&frame(&socket).await[1..]).unwrap();
    for (open, upgrades) in [(&polling, json!(["websocket"])), (&websocket, json!([]))] {
        assert!(open["sid"].as_str().is_some_and(|sid| sid.len() >= 20), "{open}");
        let rest = json!({ "upgrades": open["upgrades"], "pingInterval": open["pingInterval"],
            "pingTimeout": open["pingTimeout"], "maxPayload": open["maxPayload"] });
        let expected = json!({ "upgrades": upgrades, "pingInterval": 20_000, "pingTimeout": 20_000, "maxPayload": 1_000_000 });
        assert_eq!((status, rest), (200, expected));
    }
    for (query, code) in [
        ("transport=polling", 5),
        ("EIO=abc&transport=polling", 5),
        ("EIO=4", 0),
        ("EIO=4&transport=abc", 0),
        ("EIO=4&transport=polling&sid=abc", 1),
        ("EIO=4&transport=websocket&sid=abc", 1),
    ] {
        let (status, body) = engine.get(1, query).await;
        let error: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{query}");
    }
    let (status, body) = engine.post(0, "EIO=4&transport=polling", "").await;
    assert_eq!(
        (status, body.as_str()),
        (400, r#"{"code":2,"message":"Bad handshake method"}"#)
    );
    for query in [
        "transport=websocket",
        "EIO=abc&transport=websocket",
        "EIO=4",
        "EIO=4&transport=abc",
    ] {
        assert_eq!(engine.socket(0, query).rejected().await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn packets_are_exchanged_by_polling_at_any_edge() {
    let stage = stage().await;
    let engine = Engine::new(&stage);
    let session = engine.open().await;
    assert_eq!(engine.post(1, &session, "40").await, (200, "ok".to_owned()));
    let (_, body) = engine.get(0, &session).await;
    assert!(body.starts_with("40{\"sid\":\""), "{body}");
    let packets = "42[\"message\",1]\u{1e}42[\"message\",{\"a\":\"ü€💩\"}]";
    assert_eq!(engine.post(0, &session, packets).await.0, 200);
    let mut heard = String::new();
    let expected = "42[\"message-back\",1]\u{1e}42[\"message-back\",{\"a\":\"ü€💩\"}]";
    while heard != expected {
        let (status, body) = engine.get(1, &session).await;
        assert_eq!(status, 200, "{body}");
        heard = [heard, body]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("\u{1e}");
        assert!(expected.starts_with(&heard), "{heard}");
    }
    assert_eq!(engine.post(0, &session, "abc").await.0, 400);
    let (status, body) = engine.get(1, &session).await;
    assert!(status == 400 && body.contains("\"code\":1"), "{body}");
}

#[tokio::test]
async fn a_session_is_closed_by_the_client_over_either_transport() {
    let stage = stage().await;
    let engine = Engine::new(&stage);
    let session = engine.open().await;
    let (polled, posted) = tokio::join!(engine.get(0, &session), engine.post(1, &session, "1"));
    assert_eq!(posted, (200, "ok".to_owned()));
    assert!(polled == (200, "6".to_owned()) || polled.0 == 400, "{polled:?}");
    assert_eq!(engine.get(0, &session).await.0, 400);

    let socket = enter(&engine, 0).await;
    socket.send_text("1");
    assert_eq!(socket.closed().await.code, 1000);
}

#[tokio::test]
async fn heartbeats_keep_a_session_and_silence_ends_it() {
    let quick = ECHO.replace("\"20s\"", "\"400ms\"\nping_timeout = \"400ms\"");
    let stage = Stage::config(quick, &[]).await;
    let engine = Engine::new(&stage);
    let session = engine.open().await;
    engine.post(1, &session, "40").await;
    assert!(engine.get(0, &session).await.1.starts_with("40{"));
    for _ in 0..3 {
        assert_eq!(engine.get(0, &session).await, (200, "2".to_owned()));
        assert_eq!(engine.post(1, &session, "3").await, (200, "ok".to_owned()));
    }
    let ended = async || (engine.get(1, &session).await.0 == 400).then_some(());
    wait::until("the end of the silent session", LIMIT, ended).await;

    let socket = enter(&engine, 1).await;
    for _ in 0..3 {
        assert_eq!(frame(&socket).await, "2");
        socket.send_text("3");
    }
    assert_eq!(frame(&socket).await, "2");
    assert_eq!(socket.closed().await.code, 1008);
}

#[tokio::test]
async fn an_upgrade_is_probed_and_ends_polling() {
    let stage = stage().await;
    let engine = Engine::new(&stage);
    let session = engine.open().await;
    engine.post(0, &session, "40").await;
    assert!(engine.get(0, &session).await.1.starts_with("40{"));
    let query = session.replace("transport=polling", "transport=websocket");
    // At the edge that does not own the session.
    let socket = engine.socket(1, &query);
    socket.opened().await;
    socket.send_text("2probe");
    assert_eq!(frame(&socket).await, "3probe");
    // The open poll is answered, so that nothing is under way when the client changes over.
    let (status, body) = engine.get(0, &session).await;
    assert_eq!((status, body.as_str()), (200, "6"));
    socket.send_text("5");
    socket.send_text("42[\"message\",\"over\"]");
    let heard = frame(&socket).await;
    assert!(heard.starts_with("42[\"message-back\",\"over\""), "{heard}");
    let late = engine.get(0, &session).await;
    assert_eq!(late.0, 400, "{late:?}");
    let second = engine.socket(0, &query);
    let refused = tokio::select! {
        rejected = second.rejected() => rejected.status == 400,
        closed = second.closed() => closed.code != 1000,
    };
    assert!(refused);
    socket.send_text("42[\"message\",\"still\"]");
    assert!(frame(&socket).await.starts_with("42[\"message-back\",\"still\""));
}

#[tokio::test]
async fn namespaces_are_entered_and_left() {
    let stage = stage().await;
    let engine = Engine::new(&stage);
    let socket = enter(&engine, 0).await;
    socket.send_text("40/custom,{\"a\":1}");
    assert!(frame(&socket).await.starts_with("40/custom,{\"sid\":\""));
    socket.send_text("40/random");
    assert_eq!(
        frame(&socket).await,
        r#"44/random,{"message":"Invalid namespace"}"#
    );
    socket.send_text("40/ran\u{e9}dom?a=b,");
    assert_eq!(
        frame(&socket).await,
        "44/ran\u{e9}dom,{\"message\":\"Invalid namespace\"}"
    );
    // Leaving one leaves the others.
    socket.send_text("41/custom,");
    socket.send_text("42/custom,[\"message\",1]");
    socket.send_text("42[\"message\",2]");
    assert_eq!(frame(&socket).await, "42[\"message-back\",2]");
    socket.send_text("41");
    socket.send_text("40/custom,");
    assert!(frame(&socket).await.starts_with("40/custom,"));

    for broken in [
        "4abc",
        "4",
        "42{}",
        "42[]",
        "42[{}]",
        "42[\"connect\"]",
        "49",
        "461-[]",
        "40/custom,[]",
    ] {
        let socket = enter(&engine, 1).await;
        socket.send_text(broken);
        assert_eq!(socket.closed().await.code, 1002, "{broken}");
    }
}

#[tokio::test]
async fn events_acknowledgements_and_bytes_go_both_ways() {
    let stage = stage().await;
    let engine = Engine::new(&stage);
    let socket = enter(&engine, 1).await;
    socket.send_text(r#"42["message",1,"2",{"3":[true]}]"#);
    assert_eq!(frame(&socket).await, r#"42["message-back",[1,"2",{"3":[true]}]]"#);
    socket.send_text(r#"42456["message-with-ack",1,"2",{"3":[false]}]"#);
    assert_eq!(frame(&socket).await, r#"43456[[1,"2",{"3":[false]}]]"#);

    socket.send_text(r#"452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#);
    socket.send_binary("AQID");
    socket.send_binary("BAUG");
    let expected = r#"452-["message-back",[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]]"#;
    assert_eq!(frame(&socket).await, expected);
    assert_eq!(socket.next_message().await, json!({ "$binary": "AQID" }));
    assert_eq!(socket.next_message().await, json!({ "$binary": "BAUG" }));

    socket.send_text(r#"451-789["message-with-ack",{"_placeholder":true,"num":0}]"#);
    socket.send_binary("AQID");
    assert_eq!(frame(&socket).await, r#"461-789[{"_placeholder":true,"num":0}]"#);
    assert_eq!(socket.next_message().await, json!({ "$binary": "AQID" }));
}

#[tokio::test]
async fn a_backend_asks_and_the_client_acknowledges() {
    let stage = stage().await;
    let engine = Engine::new(&stage);
    let sockets = [enter(&engine, 0).await, enter(&engine, 1).await];
    let question = json!({ "event": "sure?", "data": { "n": 1 }, "timeoutMs": 30_000 });
    let (answers, ()) = tokio::join!(stage.backend.request("rt.ask.main.all", question), async {
        for socket in &sockets {
            let asked = frame(socket).await;
            let id = asked
                .strip_prefix("42")
                .and_then(|rest| rest.split_once('['))
                .unwrap()
                .0;
            assert_eq!(asked, format!(r#"42{id}["sure?",{{"n":1}}]"#));
            socket.send_text(&format!(r#"461-{id}[{{"_placeholder":true,"num":0}}]"#));
            socket.send_binary("AQID");
        }
    });
    let answers: Vec<&Value> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| &answer["data"])
        .collect();
    assert_eq!(
        answers,
        [&json!({ "$binary": "AQID" }), &json!({ "$binary": "AQID" })]
    );
}
