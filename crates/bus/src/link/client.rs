//! The link's task: connect, read, write, and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use carillon_service::settings::Nats;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use super::codec::{self, Operation};
use super::dial::{Address, DialError, Info, Stream, connect_options};
use super::{Deliveries, Delivery, Link, back_off};

/// How long a connection may take to stand.
const DIAL: Duration = Duration::from_secs(5);
/// How often the server is asked whether it lives; two questions without an answer end the connection.
const PING: Duration = Duration::from_secs(5);
/// Operations of one turn, before other tasks get theirs.
const TURN: usize = 256;

pub(super) struct Client {
    pub(super) settings: Nats,
    pub(super) name: String,
    pub(super) link: Link,
    pub(super) deliveries: Arc<dyn Deliveries>,
}

struct Connected {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    urls: Vec<String>,
}

impl Client {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut attempts = 0;
        let mut known: Vec<Address> = Vec::new();
        while !stop.is_cancelled() {
            if known.is_empty() {
                known = self.addresses();
            }
            let address = known.swap_remove(fastrand::usize(..known.len()));
            let dialled = tokio::time::timeout(DIAL, self.dial(&address)).await;
            match dialled {
                Ok(Ok(connected)) => {
                    attempts = 0;
                    known = self.addresses();
                    known.extend(
                        connected
                            .urls
                            .iter()
                            .filter_map(|url| Address::parse(url).ok())
                            .map(|other| other.with_login_of(&address)),
                    );
                    let reason = self.serve(connected, &stop).await;
                    if !stop.is_cancelled() {
                        tracing::warn!(reason, link = self.name, "link is down");
                    }
                }
                Ok(Err(DialError::Refused(reason))) => {
                    tracing::warn!(reason, link = self.name, "link is refused by the server");
                }
                Ok(Err(error)) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    link = self.name,
                    "link cannot connect"
                ),
                Err(_) => tracing::debug!(link = self.name, "link cannot connect in time"),
            }
            attempts += 1;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(back_off(attempts)) => {}
            }
        }
    }

    fn addresses(&self) -> Vec<Address> {
        let addresses = self.settings.url.split(',').map(|url| Address::parse(url.trim()));
        let (good, bad): (Vec<_>, Vec<_>) = addresses.partition(Result::is_ok);
        for error in bad.into_iter().filter_map(Result::err) {
            tracing::error!(%error, "server address is left out");
        }
        let mut good: Vec<Address> = good.into_iter().filter_map(Result::ok).collect();
        if good.is_empty() {
            good.push(Address::parse("127.0.0.1:4222").expect("the default address is one"));
        }
        good
    }

    async fn dial(&self, address: &Address) -> Result<Connected, DialError> {
        let protocol = |error: &dyn std::fmt::Display| DialError::Protocol(error.to_string());
        let mut stream = address.connect().await?;
        let mut buffer = BytesMut::with_capacity(4096);
        let info = loop {
            if let Some((operation, length)) = codec::decode(&buffer).map_err(|error| protocol(&error))? {
                let info = match operation {
                    Operation::Info(json) => {
                        serde_json::from_slice::<Info>(json).map_err(|error| protocol(&error))?
                    }
                    Operation::Error(text) => return Err(DialError::Refused(text.into_owned())),
                    _ => return Err(DialError::Protocol("no INFO at the start".to_owned())),
                };
                buffer.advance(length);
                break info;
            }
            if stream
                .read_buf(&mut buffer)
                .await
                .map_err(|error| protocol(&error))?
                == 0
            {
                return Err(DialError::Protocol("closed before INFO".to_owned()));
            }
        };
        let mut stream = address.secure(stream, &self.settings, info.tls_required).await?;
        let options = connect_options(&self.settings, &self.name, address, &info)?;
        let hello = format!("CONNECT {options}\r\nPING\r\n");
        stream
            .write_all(hello.as_bytes())
            .await
            .map_err(|error| protocol(&error))?;
        loop {
            match codec::decode(&buffer).map_err(|error| protocol(&error))? {
                Some((Operation::Error(text), _)) => return Err(DialError::Refused(text.into_owned())),
                Some((operation, length)) => {
                    let stands = operation == Operation::Pong;
                    buffer.advance(length);
                    if stands {
                        return Ok(Connected {
                            stream,
                            buffer,
                            urls: info.connect_urls,
                        });
                    }
                }
                None => {
                    if stream
                        .read_buf(&mut buffer)
                        .await
                        .map_err(|error| protocol(&error))?
                        == 0
                    {
                        return Err(DialError::Protocol("closed before PONG".to_owned()));
                    }
                }
            }
        }
    }

    async fn serve(&self, connected: Connected, stop: &CancellationToken) -> String {
        let shared = &self.link.0;
        shared.waiting.lock().clear();
        shared.accepting.store(true, Ordering::SeqCst);
        self.deliveries.connected(&mut |id, subject, queue| {
            codec::subscribe(&mut shared.waiting.lock(), id, subject, queue);
        });
        shared.state.send_modify(|state| {
            state.connected = true;
            state.generation += 1;
        });
        shared.written.notify_one();
        let (reading, writing) = tokio::io::split(connected.stream);
        let reason = tokio::select! {
            reason = self.read(reading, connected.buffer) => reason,
            reason = self.write(writing) => reason,
            () = stop.cancelled() => "stopped".to_owned(),
        };
        shared.state.send_modify(|state| state.connected = false);
        shared.accepting.store(false, Ordering::SeqCst);
        shared.waiting.lock().clear();
        shared.taken.notify_waiters();
        self.deliveries.disconnected();
        reason
    }

    async fn read(&self, mut stream: ReadHalf<Box<dyn Stream>>, mut buffer: BytesMut) -> String {
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        let mut unanswered = 0;
        loop {
            loop {
                match self.turn(&buffer, &mut unanswered) {
                    Ok((handled, has_more)) => {
                        buffer.advance(handled);
                        if !has_more {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                    Err(reason) => return reason,
                }
            }
            if buffer.capacity() - buffer.len() < 16 * 1024 {
                buffer.reserve(64 * 1024);
            }
            tokio::select! {
                read = stream.read_buf(&mut buffer) => match read {
                    Ok(0) => return "closed by the server".to_owned(),
                    Ok(_) => {}
                    Err(error) => return error.to_string(),
                },
                _ = tick.tick() => {
                    unanswered += 1;
                    if unanswered > 2 {
                        return "the server does not answer".to_owned();
                    }
                    let _ = self.link.write(|buffer| buffer.put_slice(b"PING\r\n"));
                }
            }
        }
    }

    /// Handles what was read, up to a number of operations; returns the length of what was handled, and whether there
    /// may be more.
    fn turn(&self, bytes: &[u8], unanswered: &mut u32) -> Result<(usize, bool), String> {
        let mut is_turn = false;
        let (mut operations, mut at) = (0, 0);
        let mut decoded = codec::decode(bytes);
        let outcome = loop {
            let (operation, length) = match decoded {
                Ok(Some(decoded)) => decoded,
                Ok(None) => break Ok((at, operations == TURN)),
                Err(error) => break Err(error.to_string()),
            };
            operations += 1;
            at += length;
            // One ahead: a message that nothing follows is not to wait for the end of a turn.
            decoded = if operations < TURN {
                codec::decode(&bytes[at..])
            } else {
                Ok(None)
            };
            if !is_turn && matches!(decoded, Ok(Some((Operation::Message { .. }, _)))) {
                is_turn = true;
                self.deliveries.begin_turn();
            }
            if let Err(reason) = self.handle(operation, unanswered) {
                break Err(reason);
            }
        };
        if is_turn {
            self.deliveries.end_turn();
        }
        outcome
    }

    fn handle(&self, operation: Operation<'_>, unanswered: &mut u32) -> Result<(), String> {
        match operation {
            Operation::Message {
                id,
                subject,
                reply,
                headers,
                body,
            } => self.deliveries.deliver(Delivery {
                id,
                subject,
                reply: reply.and_then(|reply| std::str::from_utf8(reply).ok()),
                headers,
                body,
            }),
            Operation::Ping => {
                let _ = self.link.write(|buffer| buffer.put_slice(b"PONG\r\n"));
            }
            Operation::Pong => *unanswered = 0,
            Operation::Info(json) => {
                if serde_json::from_slice::<Info>(json).is_ok_and(|info| info.ldm) {
                    return Err("the server shuts down".to_owned());
                }
            }
            // A permission that is missing concerns one subject; anything else ends with a close.
            Operation::Error(error) => tracing::error!(%error, "the server refused"),
            Operation::Ok => {}
        }
        Ok(())
    }

    async fn write(&self, mut stream: WriteHalf<Box<dyn Stream>>) -> String {
        loop {
            let bytes = std::mem::take(&mut *self.link.0.waiting.lock());
            self.link.0.taken.notify_waiters();
            if bytes.is_empty() {
                self.link.0.written.notified().await;
                continue;
            }
            if let Err(error) = stream.write_all(&bytes).await {
                return error.to_string();
            }
            if let Err(error) = stream.flush().await {
                return error.to_string();
            }
        }
    }
}
