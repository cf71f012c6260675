use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use carillon_testkit::clients::{Driver, WsOptions};
use carillon_testkit::proxy::{Action, RoundRobin};
use carillon_testkit::{http, net};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use crate::echo;

/// Answers with its name and the body it got, and counts.
async fn server(name: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let served = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let served = served.clone();
            let handler = service_fn(move |request: Request<Incoming>| {
                let served = served.clone();
                async move {
                    served.fetch_add(1, Ordering::Relaxed);
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let text = format!("{name}{}", String::from_utf8_lossy(&body));
                    Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from(text))))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), handler),
            );
        }
    });
    (addr, count)
}

#[tokio::test]
async fn every_request_of_one_connection_goes_to_the_next_server() {
    let ((a, _), (b, _), (c, _)) = tokio::join!(server("a"), server("b"), server("c"));
    let proxy = RoundRobin::start([a, b, c]).await;
    let client = http::client();
    let mut answers = String::new();
    for i in 0..6 {
        let response = client.post(proxy.url()).body(i.to_string()).send().await.unwrap();
        answers += &response.text().await.unwrap();
    }
    assert_eq!(answers, "a0b1c2a3b4c5");
    assert_eq!(proxy.served(), [2, 2, 2]);
    assert_eq!(proxy.requests(), 6);
}

#[tokio::test]
async fn a_server_that_is_down_is_passed_over() {
    let (a, _) = server("a").await;
    let proxy = RoundRobin::start([net::free_addr(), a]).await;
    let client = http::client();
    for _ in 0..4 {
        assert_eq!(
            client
                .get(proxy.url())
                .send()
                .await
                .unwrap()
                .text()
                .await
                .unwrap(),
            "a"
        );
    }
    proxy.set_upstreams([net::free_addr()]);
    assert_eq!(client.get(proxy.url()).send().await.unwrap().status(), 502);
}

#[tokio::test]
async fn a_response_is_lost_or_a_request_repeated_as_planned() {
    let ((a, served_a), (b, served_b)) = tokio::join!(server("a"), server("b"));
    let proxy = RoundRobin::start([a, b]).await;
    proxy.plan(|seen| match seen.target.as_str() {
        "/lost" => Action::LoseResponse,
        "/twice" => Action::Repeat,
        "/b" => Action::To(1),
        "/busy" => Action::Refuse(503),
        _ => Action::Forward,
    });
    let client = http::client();
    let get = |path: &str| client.post(format!("{}{path}", proxy.url())).body("!").send();

    assert!(get("/lost").await.is_err());
    assert_eq!(
        (served_a.load(Ordering::Relaxed), served_b.load(Ordering::Relaxed)),
        (1, 0)
    );

    assert_eq!(get("/twice").await.unwrap().text().await.unwrap(), "a!");
    assert_eq!(
        (served_a.load(Ordering::Relaxed), served_b.load(Ordering::Relaxed)),
        (2, 1)
    );

    assert_eq!(get("/b").await.unwrap().text().await.unwrap(), "b!");
    assert_eq!(get("/busy").await.unwrap().status(), 503);
}

#[tokio::test]
async fn a_websocket_passes_through_and_can_be_cut() {
    let (one, two) = tokio::join!(echo::websocket("one"), echo::websocket("two"));
    let proxy = RoundRobin::start([one, two]).await;
    let driver = Driver::start().await;
    let first = driver.ws(proxy.ws_url("/"), WsOptions::new());
    first.opened().await;
    let second = driver.ws(proxy.ws_url("/"), WsOptions::new());
    second.opened().await;
    first.send_text("hello");
    second.send_text("hello");
    assert_eq!(first.next_message().await, json!("one:hello"));
    assert_eq!(second.next_message().await, json!("two:hello"));

    proxy.cut();
    assert_eq!(first.closed().await.code, 1006);
    assert_eq!(second.closed().await.code, 1006);
    let third = driver.ws(proxy.ws_url("/"), WsOptions::new());
    third.opened().await;
}
