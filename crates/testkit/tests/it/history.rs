//! A server of the JSON protocol with one room and a history, which breaks off as the test of the
//! fleet needs it.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// What one connection is served: from where it must resume, and what it gets after which steps.
struct Script {
    since: Option<&'static str>,
    events: std::ops::RangeInclusive<u32>,
    settles_first: bool,
    ends: bool,
}

/// The first connection breaks off after it had caught up, the second one before.
const SCRIPTS: [Script; 3] = [
    Script {
        since: None,
        events: 1..=10,
        settles_first: true,
        ends: true,
    },
    Script {
        since: Some("0010"),
        events: 11..=20,
        settles_first: false,
        ends: true,
    },
    Script {
        since: Some("0010"),
        events: 11..=30,
        settles_first: false,
        ends: false,
    },
];

pub(crate) async fn server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for script in SCRIPTS {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, script).await;
        }
    });
    addr
}

async fn serve(stream: TcpStream, script: Script) {
    let mut query = String::new();
    #[allow(clippy::result_large_err, reason = "the handshake's own error type")]
    let read_query = |request: &Request, response: Response| {
        query = request.uri().query().unwrap_or_default().to_owned();
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, read_query)
        .await
        .unwrap();
    let expected = script.since.map_or("token=good".to_owned(), |since| {
        format!("token=good&since={since}")
    });
    assert_eq!(query, expected);

    send(
        &mut socket,
        json!({ "type": "welcome", "sid": "s", "recovered": script.since.is_some() }),
    )
    .await;
    let sub = receive(&mut socket).await;
    assert_eq!(
        (&sub["type"], sub["since"].as_str()),
        (&json!("sub"), script.since)
    );
    send(
        &mut socket,
        json!({ "type": "subscribed", "topic": "room", "offset": "0000" }),
    )
    .await;
    assert_eq!(receive(&mut socket).await["type"], "ping");

    let pong = |offset: u32| json!({ "type": "pong", "ts": 0, "offset": format!("{offset:04}") });
    if script.settles_first {
        send(&mut socket, pong(0)).await;
    }
    let last = *script.events.end();
    for n in script.events {
        let event = json!({ "topic": "room", "event": "e", "id": format!("id-{n}"), "ts": 0,
            "offset": format!("{n:04}"), "payload": { "s": "room", "n": n } });
        send(&mut socket, event).await;
    }
    if script.ends {
        return;
    }
    send(&mut socket, pong(last)).await;
    // Until the client ends it.
    while let Some(Ok(_)) = socket.next().await {}
}

async fn send(socket: &mut WebSocketStream<TcpStream>, message: Value) {
    socket.send(message.to_string().into()).await.unwrap();
}

async fn receive(socket: &mut WebSocketStream<TcpStream>) -> Value {
    let message = socket.next().await.unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}
