use std::net::Ipv4Addr;

use carillon_testkit::clients::{Driver, SioOptions, WsOptions};
use carillon_testkit::proxy::RoundRobin;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::echo;

#[tokio::test]
async fn a_websocket_client_sends_and_receives() {
    let addr = echo::websocket("echo").await;
    let driver = Driver::start().await;
    let client = driver.ws(format!("ws://{addr}"), WsOptions::new());
    client.opened().await;
    client.send_text("plain");
    assert_eq!(client.next_message().await, json!("echo:plain"));
    client.send_binary("AAEC");
    assert_eq!(client.next_message().await, json!({ "$binary": "AAEC" }));
    client.close(4000, "done");
    let closed = client.closed().await;
    assert_eq!(closed.code, 4000);
}

#[tokio::test]
async fn a_refused_upgrade_tells_its_status() {
    let proxy = RoundRobin::start([]).await;
    let driver = Driver::start().await;
    let client = driver.ws(proxy.ws_url("/"), WsOptions::new());
    assert_eq!(client.rejected().await.status, 502);
}

#[tokio::test]
#[should_panic(expected = "in vain for message of which there is none")]
async fn a_vain_wait_tells_what_came_instead() {
    let addr = echo::websocket("echo").await;
    let driver = Driver::start().await;
    let client = driver.ws(format!("ws://{addr}"), WsOptions::new());
    client.opened().await;
    client.send_text("other");
    client.set_patience(std::time::Duration::from_millis(300));
    client
        .next_matching("of which there is none", |message| message == "none")
        .await;
}

#[tokio::test]
async fn an_event_source_resumes_with_its_last_id() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/sse", listener.local_addr().unwrap());
    let driver = Driver::start().await;
    let client = driver.sse(&url, &[("authorization", "Bearer t")]);

    for (id, expected) in [("1", None), ("2", Some("last-event-id: 1"))] {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let n = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..n]).to_lowercase();
        assert!(request.contains("authorization: bearer t"), "{request}");
        assert!(expected.is_none_or(|line| request.contains(line)), "{request}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nretry: 50\nid: {id}\ndata: {{\"n\":{id}}}\n\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        client.opened().await;
        let message = client.next_message().await;
        assert_eq!(message.last_event_id, id);
        assert_eq!(message.json["n"].to_string(), id);
        drop(stream);
        client.interrupted().await;
    }
}

#[tokio::test]
async fn a_socket_io_client_emits_answers_and_carries_bytes() {
    let driver = Driver::start().await;
    let (_server, url) = echo::socket_io().await;
    let client = driver.sio(&url, SioOptions::websocket("good"));
    let connected = client.connected().await;
    assert_eq!(connected.transport, "websocket");
    assert!(!connected.recovered);

    assert_eq!(
        client.emit_ack("echo", json!([1, "two", { "three": 3 }])).await,
        [json!(1), json!("two"), json!({ "three": 3 })]
    );
    client.emit("mirror", json!([{ "$binary": "AQID" }]));
    assert_eq!(
        client.next_event("mirrored").await.data(),
        &json!({ "$binary": "AQID" })
    );

    client.answer("ask", json!([42])).await;
    assert_eq!(client.emit_ack("question", json!([])).await, [json!(42)]);
    assert!(client.next_event("ask").await.asks);
    client
        .expect_silence_until(client.emit_ack("echo", json!([])))
        .await;
    client.assert_stayed_connected();

    client.disconnect();
    assert_eq!(client.disconnected().await, "io client disconnect");
}

#[tokio::test]
async fn an_unanswered_emit_is_an_error_of_the_client() {
    let driver = Driver::start().await;
    let (_server, url) = echo::socket_io().await;
    let client = driver.sio(&url, SioOptions::websocket("good"));
    client.connected().await;
    client.set_patience(std::time::Duration::from_millis(500));
    let error = client.try_emit_ack("nobody", json!([])).await.unwrap_err();
    assert_eq!(error, "operation has timed out");
}

#[tokio::test]
async fn a_socket_io_client_upgrades_and_recovers() {
    let driver = Driver::start().await;
    let (_server, url) = echo::socket_io().await;
    let client = driver.sio(&url, SioOptions::new().token("good"));
    let first = client.connected().await;
    assert_eq!(client.upgraded().await, "websocket");
    client.emit("mirror", json!(["x"]));
    assert!(client.next_event("mirrored").await.offset().is_some());

    client.kill_transport();
    client.disconnected().await;
    let second = client.connected().await;
    assert_eq!((second.sid, second.recovered), (first.sid, true));
}

#[tokio::test]
async fn a_refused_socket_io_client_tells_message_and_data() {
    let driver = Driver::start().await;
    let (_server, url) = echo::socket_io().await;
    let client = driver.sio(&url, SioOptions::polling("bad"));
    let refused = client.refused().await;
    assert_eq!(refused.message, "Invalid token");
    assert_eq!(refused.data, json!({ "code": "invalid_token" }));
    assert!(!refused.active);

    client.set_auth(json!({ "token": "good" })).await;
    client.connect();
    assert_eq!(client.connected().await.transport, "polling");
}
