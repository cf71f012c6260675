//! Small servers to drive the clients against.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// Answers every WebSocket message with the same one, prefixed by the name in text messages.
pub(crate) async fn websocket(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(socket) = tokio_tungstenite::accept_async(stream).await else {
                    return;
                };
                let (mut sink, mut messages) = socket.split();
                while let Some(Ok(message)) = messages.next().await {
                    let answer = match message {
                        message if message.is_text() => {
                            format!("{name}:{}", message.to_text().unwrap()).into()
                        }
                        message if message.is_binary() => message,
                        _ => continue,
                    };
                    if sink.send(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// The reference implementation of Socket.IO, with its address.
pub(crate) async fn socket_io() -> (Child, String) {
    let mut child = Command::new("node")
        .arg("test-server.mjs")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/clients"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let port = line.strip_prefix("listening ").unwrap().to_owned();
    (child, format!("http://127.0.0.1:{port}"))
}
