//! A peer that speaks HTTP by hand.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest time that anything here may take.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Fails a test that waits for something that does not come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what)
        .await
        .expect("it happens in time")
}

/// Sends a request and returns the answer's head and body.
pub(crate) async fn request(address: SocketAddr, text: &str) -> (String, String) {
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> (String, String) {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
    .await
}

pub(crate) async fn post(address: SocketAddr, path: &str, body: &str) -> (String, String) {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    request(address, &(head + body)).await
}
