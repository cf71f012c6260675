use std::io::ErrorKind;

use http_body_util::Empty;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;
use crate::accept::Door;
use crate::accept::tests::{Edge, door, head};
use crate::address::Peer;
use crate::tls::Tls;
use crate::tls::tests::{FIRST, Files, connect};

const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: carillon.v1, bearer.a.b.c\r\n\r\n";

/// An edge that sends back whatever arrives on an upgraded connection.
fn echo(door: Door) -> (Edge, mpsc::UnboundedReceiver<&'static str>) {
    let (ends, ended) = mpsc::unbounded_channel();
    let edge = Edge::open(door, move |mut request: Request<Incoming>, _peer: Peer| {
        let ends = ends.clone();
        async move {
            let offer = match offer(&mut request) {
                Ok(offer) => offer,
                Err(refusal) => return refusal,
            };
            assert_eq!(offer.handshake.bearer(), Some("a.b.c"));
            let subprotocol = offer.carillon();
            let (response, pending) = offer.accept(subprotocol);
            tokio::spawn(async move {
                let upgraded = pending.open().await.unwrap();
                let kind = match &upgraded.socket {
                    Socket::Tcp(_) => "tcp",
                    Socket::Pair(_) => "pair",
                };
                send_back(&upgraded).await;
                ends.send(kind).unwrap();
            });
            response
        }
    });
    (edge, ended)
}

async fn send_back(upgraded: &Upgraded) {
    let mut waiting = upgraded.leftover.to_vec();
    let mut buffer = [0; 4096];
    loop {
        while !waiting.is_empty() {
            upgraded.socket.writable().await.unwrap();
            match upgraded.socket.try_write(&waiting) {
                Ok(written) => drop(waiting.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        upgraded.socket.readable().await.unwrap();
        match upgraded.socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => waiting.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    // The first bytes come in one piece with the request.
    stream
        .write_all(format!("{REQUEST}first").as_bytes())
        .await
        .unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(
        answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("sec-websocket-protocol: carillon.v1\r\n"),
        "{answer}"
    );
    let mut first = [0; 5];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first");

    let sent: Vec<u8> = (0..2_000_000_u32)
        .map(|number| (number * 7 % 253) as u8)
        .collect();
    let mut received = vec![0; sent.len()];
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (read, written) = tokio::join!(reader.read_exact(&mut received), writer.write_all(&sent));
    read.unwrap();
    written.unwrap();
    assert!(received == sent);
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_plain_connection_becomes_its_socket() {
    let (edge, mut ended) = echo(door());
    talk(edge.connect().await).await;
    assert_eq!(ended.recv().await, Some("tcp"));
}

#[tokio::test]
async fn a_tls_connection_becomes_a_pair() {
    let files = Files::new(FIRST);
    let tls = Tls::load(&files.config()).unwrap();
    let (edge, mut ended) = echo(Door {
        tls: Some(tls.acceptor()),
        ..door()
    });
    talk(connect(edge.connect().await, FIRST.0).await.unwrap()).await;
    assert_eq!(ended.recv().await, Some("pair"));

    // The edge stops when the last of its TLS connections has ended.
    edge.stop.accepting.cancel();
    tokio::time::timeout(SWITCH, edge.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_harms_nobody() {
    let files = Files::new(FIRST);
    let tls = Tls::load(&files.config()).unwrap();
    let (edge, _ended) = echo(Door {
        tls: Some(tls.acceptor()),
        ..door()
    });
    let mut plain = edge.connect().await;
    plain.write_all(REQUEST.as_bytes()).await.unwrap();
    assert!(!head(&mut plain).await.starts_with("HTTP/1.1"));
    talk(connect(edge.connect().await, FIRST.0).await.unwrap()).await;
}

#[tokio::test]
async fn a_request_that_is_no_handshake_gets_a_clear_answer() {
    let (edge, _ended) = echo(door());
    for (change, status, code) in [
        (("GET", "POST"), "405", "method_not_allowed"),
        (("Upgrade: websocket\r\n", ""), "426", "upgrade_required"),
        (("Version: 13", "Version: 8"), "426", "upgrade_required"),
        (("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400", "bad_handshake"),
        (("HTTP/1.1", "HTTP/1.0"), "400", "bad_handshake"),
        (
            ("Host: edge\r\n", "Host: edge\r\nContent-Length: 5\r\n"),
            "400",
            "bad_handshake",
        ),
    ] {
        let mut stream = edge.connect().await;
        stream
            .write_all(REQUEST.replacen(change.0, change.1, 1).as_bytes())
            .await
            .unwrap();
        let answer = head(&mut stream).await;
        let body = answer
            .split("content-length: ")
            .nth(1)
            .unwrap()
            .split('\r')
            .next()
            .unwrap();
        let mut text = vec![0; body.parse().unwrap()];
        stream.read_exact(&mut text).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{change:?}: {answer}");
        assert!(
            text.contains(&format!(r#""code":"{code}""#)),
            "{change:?}: {text}"
        );
        if status == "426" {
            assert!(answer.contains("sec-websocket-version: 13\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_an_error() {
    let (opened, mut outcome) = mpsc::unbounded_channel();
    let edge = Edge::open(door(), move |mut request: Request<Incoming>, _peer| {
        let opened = opened.clone();
        async move {
            let (_, pending) = offer(&mut request).unwrap().accept(None);
            tokio::spawn(async move { opened.send(pending.open().await.err()).unwrap() });
            std::future::pending().await
        }
    });
    let mut stream = edge.connect().await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    drop(stream);
    let outcome = outcome.recv().await;
    assert!(
        matches!(outcome, Some(Some(UpgradeError::Ended(_)))),
        "{outcome:?}"
    );
}

#[test]
fn a_refusal_needs_no_connection() {
    let mut request = Request::new(Empty::<Bytes>::new());
    let response = offer(&mut request).err().unwrap();
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
}
