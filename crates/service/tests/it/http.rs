use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use carillon_service::listen::{self, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::wire::{self, soon};

fn start(app: Router, limits: Limits) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = listen::bind("publisher", "127.0.0.1:0".parse().unwrap(), 64).unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let running = tokio::spawn(listen::serve(listener, app, limits, shutdown.clone()));
    (address, shutdown, running)
}

async fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn handlers_know_the_peer() {
    let app = Router::new().route(
        "/",
        get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string()),
    );
    let (address, ..) = start(app, Limits::default());
    assert_eq!(wire::get(address, "/").await.1, "127.0.0.1");
}

#[tokio::test]
async fn a_peer_that_sends_no_head_is_closed_and_its_slot_is_free() {
    let app = Router::new().route("/", get(async || "here"));
    let limits = Limits {
        connections: 1,
        header_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let (address, ..) = start(app, limits);
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nx-half: ").await.unwrap();
    assert_eq!(wire::get(address, "/").await.1, "here");
    ends(&mut silent).await;
    ends(&mut slow).await;
}

#[tokio::test]
async fn connections_beyond_the_cap_wait() {
    let (entered, mut entries) = mpsc::channel(8);
    let gate = CancellationToken::new();
    let app = Router::new().route(
        "/",
        get({
            let gate = gate.clone();
            async move || {
                entered.send(()).await.unwrap();
                gate.cancelled().await;
                "done"
            }
        }),
    );
    let (address, ..) = start(
        app,
        Limits {
            connections: 2,
            ..Limits::default()
        },
    );
    let requests: Vec<_> = (0..3).map(|_| tokio::spawn(wire::get(address, "/"))).collect();
    soon(entries.recv()).await.unwrap();
    soon(entries.recv()).await.unwrap();
    assert!(entries.try_recv().is_err());
    gate.cancel();
    for request in requests {
        assert_eq!(soon(request).await.unwrap().1, "done");
    }
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_cuts_those_that_do_not() {
    let (entered, mut entries) = mpsc::channel(8);
    let release = CancellationToken::new();
    let app = Router::new()
        .route(
            "/short",
            get({
                let (release, entered) = (release.clone(), entered.clone());
                async move || {
                    entered.send(()).await.unwrap();
                    release.cancelled().await;
                    "short"
                }
            }),
        )
        .route(
            "/endless",
            get(async move || {
                entered.send(()).await.unwrap();
                std::future::pending::<&str>().await
            }),
        );
    let limits = Limits {
        drain: Duration::from_millis(500),
        ..Limits::default()
    };
    let (address, shutdown, running) = start(app, limits);
    let short = tokio::spawn(wire::get(address, "/short"));
    let mut endless = TcpStream::connect(address).await.unwrap();
    endless
        .write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    soon(entries.recv()).await.unwrap();
    soon(entries.recv()).await.unwrap();
    shutdown.cancel();
    release.cancel();
    assert_eq!(soon(short).await.unwrap().1, "short");
    soon(running).await.unwrap();
    ends(&mut endless).await;
    assert!(TcpStream::connect(address).await.is_err());
}
