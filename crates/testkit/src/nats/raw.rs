//! Messages as no client library would send them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Server;

/// Header blocks that the server passes on and that not every client can read.
pub const STRANGE_HEADERS: [&[u8]; 9] = [
    b"NATS/1.0\r\nX-Team: \xff\xfe\r\n\r\n",
    b"NATS/1.0\r\nX Team: 1\r\n\r\n",
    b"NATS/1.0\r\nX-T\xc3\xa9am: 1\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\nX-Team: a\rb\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Team: 1\r\n\r\n",
    b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"\r\n",
];

impl Server {
    /// Publishes bytes as they are, and waits until the server has taken them.
    pub async fn publish_raw(&self, subject: &[u8], headers: &[u8], body: &[u8]) {
        let mut text = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nHPUB ".to_vec();
        text.extend_from_slice(subject);
        let (header_size, size) = (headers.len(), headers.len() + body.len());
        text.extend_from_slice(format!(" {header_size} {size}\r\n").as_bytes());
        text.extend_from_slice(&[headers, body, b"\r\nPING\r\n"].concat());
        let mut seen = Vec::new();
        let exchanged = async {
            let mut stream = TcpStream::connect(self.client).await?;
            stream.write_all(&text).await?;
            while !seen.ends_with(b"PONG\r\n") && stream.read_buf(&mut seen).await? > 0 {}
            std::io::Result::Ok(())
        };
        exchanged
            .await
            .unwrap_or_else(|e| panic!("cannot publish to {}: {e}", self.client));
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.ends_with("PONG\r\n"), "the server refused: {seen}");
    }
}
