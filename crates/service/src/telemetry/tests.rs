use std::io::Write;
use std::sync::Arc;

use opentelemetry::trace::{Span, Tracer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tracing_subscriber::fmt::format::FmtSpan;

use super::*;

const CERTIFICATE: &str = include_str!("fixtures/collector.pem");
const KEY: &str = include_str!("fixtures/collector.key");
const LIMIT: Duration = Duration::from_secs(10);

/// A collector that speaks TLS.
struct Collector {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Collector {
    async fn bind() -> Self {
        let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tls: TlsAcceptor::from(Arc::new(tls)),
        }
    }

    fn endpoint(&self) -> String {
        format!("https://{}", self.listener.local_addr().unwrap())
    }

    /// Takes one connection and reads until these bytes were sent.
    async fn receives(&self, wanted: &[u8]) -> std::io::Result<()> {
        let (stream, _) = self.listener.accept().await?;
        let mut stream = self.tls.accept(stream).await?;
        // An empty SETTINGS frame, and the acknowledgement of the client's.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
        stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await?;
        stream.flush().await?;
        let mut seen = Vec::new();
        while !seen.windows(wanted.len()).any(|part| part == wanted) {
            if stream.read_buf(&mut seen).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// Ends one span with these settings; the exporter works on a thread of its own.
fn export(config: &Config) -> std::thread::JoinHandle<()> {
    let provider = provider(config, "carillon-edge").unwrap();
    provider.tracer("test").start("deliver-one").end();
    std::thread::spawn(move || {
        // The collector never answers, so there is nothing to be learnt from the result.
        let _ = provider.shutdown_with_timeout(LIMIT / 5);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_go_to_a_collector_over_tls() {
    let collector = Collector::bind().await;
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, CERTIFICATE).unwrap();
    let exported = export(&Config {
        otlp_endpoint: Some(collector.endpoint()),
        otlp_ca: Some(authority),
        ..Config::default()
    });
    tokio::time::timeout(LIMIT, collector.receives(b"deliver-one"))
        .await
        .expect("a span in time")
        .unwrap();
    tokio::task::spawn_blocking(|| exported.join())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_nobody_vouches_for_gets_nothing() {
    let collector = Collector::bind().await;
    let exported = export(&Config {
        otlp_endpoint: Some(collector.endpoint()),
        ..Config::default()
    });
    let refused = tokio::time::timeout(LIMIT, collector.receives(b"deliver-one"))
        .await
        .expect("an attempt in time");
    assert!(refused.is_err());
    tokio::task::spawn_blocking(|| exported.join())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_stops_the_start() {
    let config = Config {
        otlp_endpoint: Some("https://127.0.0.1:4317".to_owned()),
        otlp_ca: Some("/nonexistent/ca.pem".into()),
        ..Config::default()
    };
    let error = provider(&config, "carillon-edge").unwrap_err();
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
}

#[derive(Clone, Default)]
struct Written(Arc<parking_lot::Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_setting_brings_out_what_libraries_print_of_their_connections() {
    for log in [
        "trace",
        "async_nats=trace,h2=debug",
        "info,async_nats::connection=trace",
    ] {
        let config: Config = toml::from_str(&format!("log = {log:?}")).unwrap();
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_filter(filter(&config));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::trace!(target: "async_nats::connection", "secret");
            tracing::debug!(target: "h2::codec", "secret");
            let span = tracing::trace_span!(target: "async_nats", "connection", token = "secret");
            span.in_scope(|| tracing::info!(target: "async_nats", "connected"));
            tracing::trace!(target: "carillon_edge", "ours");
        });
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        assert!(!text.contains("secret"), "{log}: {text}");
        assert!(text.contains("connected"), "{log}: {text}");
        assert_eq!(text.contains("ours"), log == "trace", "{log}: {text}");
    }
}

#[test]
fn frequent_spans_are_made_for_a_collector_alone() {
    for exported in [false, true] {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_span_events(FmtSpan::CLOSE)
            .with_filter(filter_fn(is_traced(exported)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            drop(tracing::info_span!(target: "carillon_publisher", "seldom"));
            drop(tracing::debug_span!(target: "carillon_publisher", "frequent"));
            tracing::debug!(target: "carillon_publisher", "detail");
            drop(tracing::info_span!(target: "h2", "foreign"));
        });
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        let found = ["seldom", "frequent", "detail", "foreign"].map(|name| text.contains(name));
        assert_eq!(found, [true, exported, false, false], "{text}");
    }
}
