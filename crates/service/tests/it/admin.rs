use carillon_service::admin::AdminServer;
use carillon_service::metrics;
use carillon_service::readiness::Readiness;
use tokio_util::sync::CancellationToken;

use crate::wire::{get, soon};

#[tokio::test]
async fn health_readiness_and_metrics() {
    let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
    let recorder = metrics::install().unwrap();
    ::metrics::gauge!("ws_connections_active").set(3.0);
    let server = AdminServer::bind("127.0.0.1:0".parse().unwrap(), readiness.clone(), recorder).unwrap();
    let address = server.local_addr().unwrap();
    let running = tokio::spawn(server.run(shutdown.clone()));

    let (head, body) = get(address, "/readyz").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(body, r#"{"ready":true,"reasons":[]}"#);

    let (nats, _resync) = (readiness.hold("nats"), readiness.hold("resync"));
    let (head, body) = get(address, "/readyz").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(body, r#"{"ready":false,"reasons":["nats","resync"]}"#);
    drop(nats);
    assert_eq!(
        get(address, "/readyz").await.1,
        r#"{"ready":false,"reasons":["resync"]}"#
    );
    assert!(get(address, "/healthz").await.0.starts_with("http/1.1 200"));

    let (head, body) = get(address, "/metrics").await;
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert!(body.contains("ws_connections_active 3"), "{body}");

    shutdown.cancel();
    soon(running).await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
