use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

pub(crate) const FIRST: (&str, &str) = (
    include_str!("fixtures/first.pem"),
    include_str!("fixtures/first.key"),
);
pub(crate) const SECOND: (&str, &str) = (
    include_str!("fixtures/second.pem"),
    include_str!("fixtures/second.key"),
);

/// A folder with a certificate and its key, removed on drop.
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(crate) fn new((certificate, key): (&str, &str)) -> Self {
        let name = format!("carillon-edge-tls-{}-{}", std::process::id(), fastrand::u64(..));
        let files = Self {
            folder: std::env::temp_dir().join(name),
        };
        std::fs::create_dir(&files.folder).unwrap();
        files.write((certificate, key));
        files
    }

    pub(crate) fn write(&self, (certificate, key): (&str, &str)) {
        std::fs::write(self.config().certificate, certificate).unwrap();
        std::fs::write(self.config().key, key).unwrap();
    }

    pub(crate) fn config(&self) -> config::Tls {
        config::Tls {
            certificate: self.folder.join("tls.crt"),
            key: self.folder.join("tls.key"),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Connects as a client that trusts one certificate only.
pub(crate) async fn connect(stream: TcpStream, trusted: &str) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Whether a server with this acceptor shows the certificate.
async fn shows(tls: &Tls, trusted: &str) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        tls.acceptor().accept(stream).await
    };
    let client = async { connect(TcpStream::connect(address).await.unwrap(), trusted).await };
    let (server, client) = tokio::join!(server, client);
    if let Ok(client) = &client {
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert!(server.is_ok());
    }
    client.is_ok()
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_to_the_next_client() {
    let files = Files::new(FIRST);
    let tls = Tls::load(&files.config()).unwrap();
    assert!(shows(&tls, FIRST.0).await && !shows(&tls, SECOND.0).await);
    let shutdown = CancellationToken::new();
    let watch = tls.watch(shutdown.clone());
    let replaced = async {
        files.write(SECOND);
        let limit = Duration::from_secs(20);
        carillon_testkit::wait::until_true("the second certificate", limit, async || {
            shows(&tls, SECOND.0).await
        })
        .await;
        // A broken file leaves it in place.
        std::fs::write(files.config().certificate, "nothing").unwrap();
        assert!(tls.reload().is_err());
        assert!(shows(&tls, SECOND.0).await);
        shutdown.cancel();
    };
    let (watched, ()) = tokio::join!(watch, replaced);
    watched.unwrap();
}

#[test]
fn each_unusable_file_is_named() {
    let load = |certificate: &str, key: &str| {
        let files = Files::new((certificate, key));
        Tls::load(&files.config()).err().unwrap().to_string()
    };
    let ends = |error: String, part: &str| assert!(error.contains(part), "{error}");
    ends(load("", FIRST.1), "tls.crt is not a PEM file with a certificate");
    ends(
        load(FIRST.1, FIRST.1),
        "tls.crt is not a PEM file with a certificate",
    );
    ends(
        load(FIRST.0, "nothing"),
        "tls.key is not a PEM file with a private key",
    );
    ends(load(FIRST.0, SECOND.1), "cannot be used with the key");
    let missing = config::Tls {
        certificate: "/nonexistent/a.pem".into(),
        key: "/nonexistent/a.key".into(),
    };
    assert_eq!(
        Tls::load(&missing).err().unwrap().to_string(),
        "cannot read /nonexistent/a.pem"
    );
}
