use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use carillon_service::telemetry::{self, Config, TRACEPARENT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::wire::soon;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Takes one HTTP/2 connection and reads it until all of these were sent.
async fn collect(listener: TcpListener, wanted: [&[u8]; 3]) {
    let (mut stream, _) = listener.accept().await.unwrap();
    // An empty SETTINGS frame, and the acknowledgement of the client's.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await.unwrap();
    let mut seen = Vec::new();
    let holds = |seen: &[u8], part: &[u8]| seen.windows(part.len()).any(|window| window == part);
    while !wanted.iter().all(|part| holds(&seen, part)) {
        let read = stream.read_buf(&mut seen).await.unwrap();
        assert_ne!(read, 0, "the exporter closed before it sent everything");
    }
}

/// One test, since a process has one subscriber.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_continue_a_trace_and_reach_the_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let config = Config {
        otlp_endpoint: Some(endpoint),
        ..Config::default()
    };
    let running = telemetry::start(&config, "carillon-edge").unwrap();
    assert!(telemetry::start(&config, "carillon-edge").is_err());
    let trace_id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
    let collector =
        tokio::spawn(async move { collect(listener, [b"carillon-edge", b"deliver-one", &trace_id]).await });

    let span = tracing::info_span!(target: "carillon_edge", "deliver-one");
    telemetry::adopt(
        &span,
        telemetry::extract(|name| (name == TRACEPARENT).then_some(PARENT)),
    );
    let mut headers = BTreeMap::new();
    telemetry::inject(&telemetry::context_of(&span), |name, value| {
        headers.insert(name, value);
    });
    let passed = &headers[TRACEPARENT];
    assert_eq!(passed[..36], PARENT[..36], "the trace is the caller's");
    assert_ne!(passed[36..52], PARENT[36..52], "the span is ours");
    drop(span);

    // The collector never answers, so the flush ends at its deadline and not later.
    let stopping = Instant::now();
    running.shutdown(Duration::from_secs(2)).await;
    assert!(stopping.elapsed() < Duration::from_secs(4));
    soon(collector).await.unwrap();
}
