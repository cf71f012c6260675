use bytes::BytesMut;
use carillon_testkit::nats::Server;
use carillon_testkit::process::Carillon;
use carillon_testkit::{http, tokens};
use reqwest::Response;
use serde_json::{Value, json};

use crate::LIMIT;
use crate::dev::{Dev, Edge};

const CLIENTS: usize = 10;
const EVENTS: usize = 100;
const SIZE: usize = 200_000;

/// A client of `/sse` that reads only what it is told to.
struct Reader {
    response: Response,
    unread: BytesMut,
}

impl Reader {
    async fn connect(edge: &Edge, user: &str, since: &str) -> Self {
        let url = format!("http://{}/sse?token={}&{since}", edge.listen, tokens::dev(user));
        let response = http::client().get(url).timeout(LIMIT).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self {
            response,
            unread: BytesMut::new(),
        }
    }

    /// Reads the next message.
    async fn next(&mut self) -> Value {
        loop {
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(end + 1);
                if let Some(data) = line.strip_prefix(b"data: ") {
                    return serde_json::from_slice(data).unwrap();
                }
            }
            let chunk = self.response.chunk().await.unwrap();
            self.unread.extend_from_slice(&chunk.expect("the stream goes on"));
        }
    }
}

/// Bytes of memory that a process has.
fn resident(process: &Carillon) -> usize {
    let path = format!("/proc/{}/status", process.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_resume_and_read_nothing_do_not_fill_the_memory() {
    let nats = Server::start().await;
    let dev = Dev::over(&nats).await;
    let edge = Edge::over(&nats).await;
    let mut first = Reader::connect(&edge, "first", "").await;
    let offset = first.next().await["offset"].as_str().unwrap().to_owned();
    drop(first);
    let publisher = format!("http://{}/v1/events", dev.addresses("publisher")[0]);
    let filling = "x".repeat(SIZE);
    for number in 0..EVENTS {
        let event =
            json!({ "rooms": ["all"], "event": "large", "data": { "n": number, "filling": filling } });
        let stored = http::client()
            .post(&publisher)
            .bearer_auth("dev-key")
            .json(&event);
        assert_eq!(stored.send().await.unwrap().status(), 202);
    }

    let before = resident(&edge.process);
    let mut readers = Vec::new();
    for number in 0..CLIENTS {
        let user = format!("user{number}");
        readers.push(Reader::connect(&edge, &user, &format!("since={offset}")).await);
    }
    let grown = resident(&edge.process).saturating_sub(before);
    // A queue for each, what is being read, and much for what nobody counts; everything would be far more.
    let bound = CLIENTS * (8 << 20);
    assert!(bound * 2 < CLIENTS * EVENTS * SIZE);
    assert!(grown < bound, "{CLIENTS} clients hold {grown} bytes");

    for reader in &mut readers {
        assert_eq!(reader.next().await["recovered"], true);
        for number in 0..EVENTS {
            let event = reader.next().await;
            assert_eq!(event["payload"]["n"], number, "{}", event["event"]);
        }
    }
}
