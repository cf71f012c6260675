//! The way to NATS: requests, subscriptions, and whether it stands.
//!
//! There are two connections. What others send comes in over a link of ours ([`Intake`]), which reads whatever the
//! server passes on, and requests and messages go out over it; `async-nats` has what only the server answers.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use carillon_protocol::headers::Headers;
use carillon_protocol::subject::Subjects;
use carillon_service::settings::Nats;
use tokio::sync::watch;

use crate::Subscription;
use crate::intake::{Intake, Span};

/// Oldest server with everything that is used: atomic batches, schedules, per-message TTL.
const OLDEST_SERVER: (i64, i64, i64) = (2, 12, 0);

/// Between two pings: a server that hangs counts as away when it has left three of them unanswered.
const PING: Duration = Duration::from_secs(4);
/// How long the connections may take to be known to stand.
const STANDING: Duration = Duration::from_secs(5);
/// How long a flush may take.
const FLUSH: Duration = Duration::from_secs(2);

/// The connection to NATS; cheap to clone.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) intake: Intake,
    pub(crate) settings: Nats,
    subjects: Subjects,
    state: watch::Receiver<LinkState>,
}

/// Whether the connection stands; the generation rises with every new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    pub connected: bool,
    pub generation: u64,
}

/// A message that came in.
#[derive(Debug, Clone)]
pub struct Message {
    pub subject: String,
    pub reply: Option<String>,
    pub headers: Headers,
    pub body: Bytes,
}

/// Why NATS could not be reached at the start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to NATS at {url}")]
    Connect {
        url: String,
        source: async_nats::ConnectError,
    },
    #[error("cannot read the NATS credentials {path}")]
    Credentials { path: String, source: std::io::Error },
    #[error("nats-server {found} is too old, 2.12 or newer is needed")]
    TooOld { found: String },
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("the message is larger than the server's max_payload")]
    TooLarge,
    #[error("no subject has white space, or is empty")]
    Subject,
    #[error("the connection to NATS is closed: {0}")]
    Closed(String),
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("nobody answers on the subject")]
    NoResponders,
    #[error("no answer in time")]
    Timeout,
    #[error("NATS is away")]
    Away,
}

impl Bus {
    /// Connects, and checks that the server has what is needed; later losses are repaired in the background.
    pub async fn connect(settings: &Nats, name: &str) -> Result<Self, ConnectError> {
        let (sender, own) = watch::channel(LinkState {
            connected: false,
            generation: 0,
        });
        let options = options(settings, name).await?.event_callback(move |event| {
            sender.send_if_modified(|state| match event {
                async_nats::Event::Connected => {
                    *state = LinkState {
                        connected: true,
                        generation: state.generation + 1,
                    };
                    true
                }
                async_nats::Event::Disconnected | async_nats::Event::Closed => {
                    std::mem::replace(&mut state.connected, false)
                }
                _ => false,
            });
            std::future::ready(())
        });
        let servers: Vec<String> = settings.url.split(',').map(|url| url.trim().to_owned()).collect();
        let client = options
            .connect(servers)
            .await
            .map_err(|source| ConnectError::Connect {
                url: settings.url.clone(),
                source,
            })?;
        let found = client.server_info().version;
        if version(&found).is_none_or(|version| version < OLDEST_SERVER) {
            return Err(ConnectError::TooOld { found });
        }
        let intake = Intake::start(settings.clone(), &format!("{name}-intake"), client.new_inbox());
        let mut state = both(own, intake.link().state());
        // The event of the connection may come after the connection, and requests ask for it.
        let _ = tokio::time::timeout(STANDING, state.wait_for(|state| state.connected)).await;
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .ack_timeout(Duration::from_secs(5))
            .max_ack_inflight(200_000)
            .build(client.clone());
        let subjects = Subjects::new(&settings.prefix);
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                jetstream,
                intake,
                settings: settings.clone(),
                subjects,
                state,
            }),
        })
    }

    /// Returns the subjects below the configured prefix.
    pub fn subjects(&self) -> &Subjects {
        &self.inner.subjects
    }

    /// Returns whether the connection stands, to be watched.
    pub fn link_state(&self) -> watch::Receiver<LinkState> {
        self.inner.state.clone()
    }

    /// Returns the largest message that the server takes, in bytes.
    pub fn max_payload(&self) -> usize {
        self.inner.client.server_info().max_payload
    }

    /// Returns whether the server is the only one: what it sends to one connection has no other way to go astray than
    /// with that connection.
    pub fn is_single(&self) -> bool {
        self.inner.client.server_info().cluster.is_none()
    }

    /// Sends a message that nobody acknowledges, behind every subscription that was made before.
    pub async fn publish(&self, subject: &str, headers: &Headers, body: Bytes) -> Result<(), PublishError> {
        let client = &self.inner.client;
        if wire_size(headers, &body) > client.max_payload() {
            return Err(PublishError::TooLarge);
        }
        if subject.is_empty() || subject.contains([' ', '\t', '\r', '\n']) {
            return Err(PublishError::Subject);
        }
        if self
            .inner
            .intake
            .publish(subject, None, headers, &body)
            .await
            .is_ok()
        {
            return Ok(());
        }
        // The link does not keep what it cannot send; this connection does.
        let sent = if headers.is_empty() {
            client.publish(subject.to_owned(), body).await
        } else {
            client
                .publish_with_headers(subject.to_owned(), write_headers(headers), body)
                .await
        };
        sent.map_err(|error| PublishError::Closed(error.to_string()))
    }

    /// Waits until the server has what was published, and every subscription that was made, before.
    pub async fn flush(&self) {
        let flushed = async {
            let _ = self.inner.client.flush().await;
            self.inner.intake.flush().await;
        };
        let _ = tokio::time::timeout(FLUSH, flushed).await;
    }

    /// Stops listening to others, while there are clones; what is told before the end still leaves.
    pub fn close(&self) {
        self.inner.intake.close();
    }

    /// Sends a request and waits for its first answer.
    pub async fn request(
        &self,
        subject: &str,
        headers: &Headers,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Message, RequestError> {
        self.request_later(subject, headers, body, timeout).await?.await
    }

    /// Sends a request now, behind what was published before; its first answer is awaited by the returned future.
    pub async fn request_later(
        &self,
        subject: &str,
        headers: &Headers,
        body: Bytes,
        timeout: Duration,
    ) -> Result<impl Future<Output = Result<Message, RequestError>> + Send + use<>, RequestError> {
        if wire_size(headers, &body) > self.inner.client.max_payload() {
            return Err(RequestError::Away);
        }
        let intake = &self.inner.intake;
        intake.request_later(subject, headers, body, timeout).await
    }

    /// Subscribes to a subject, as a member of a queue group where one is named.
    pub async fn subscribe(&self, subject: &str, queue: Option<&str>) -> Result<Subscription, PublishError> {
        Ok(Subscription::new(
            &self.inner.intake,
            subject,
            queue,
            Span::Lasting,
        ))
    }

    /// Returns a subject that only this connection listens to.
    pub fn inbox(&self) -> String {
        self.inner.client.new_inbox()
    }
}

/// Returns the state of two connections together: they stand when both do, and a new one of either counts.
fn both(
    mut own: watch::Receiver<LinkState>,
    mut link: watch::Receiver<LinkState>,
) -> watch::Receiver<LinkState> {
    let (sender, state) = watch::channel(LinkState {
        connected: false,
        generation: 0,
    });
    tokio::spawn(async move {
        loop {
            let (first, second) = (*own.borrow_and_update(), *link.borrow_and_update());
            let now = LinkState {
                connected: first.connected && second.connected,
                // Both together are the first.
                generation: (first.generation + second.generation).saturating_sub(1),
            };
            sender.send_if_modified(|state| std::mem::replace(state, now) != now);
            let changed = tokio::select! {
                changed = own.changed() => changed,
                changed = link.changed() => changed,
                () = sender.closed() => return,
            };
            if changed.is_err() {
                return;
            }
        }
    });
    state
}

/// What the server counts against its `max_payload`.
pub(crate) fn wire_size(headers: &Headers, body: &[u8]) -> usize {
    let lines: usize = headers
        .iter()
        .map(|(name, value)| name.len() + ": \r\n".len() + value.len())
        .sum();
    let frame = if headers.is_empty() {
        0
    } else {
        "NATS/1.0\r\n\r\n".len()
    };
    frame + lines + body.len()
}

async fn options(settings: &Nats, name: &str) -> Result<async_nats::ConnectOptions, ConnectError> {
    let mut options = async_nats::ConnectOptions::new()
        .name(name)
        .ping_interval(PING)
        .subscription_capacity(1 << 16)
        .client_capacity(1 << 14)
        .request_timeout(Some(Duration::from_secs(5)))
        .reconnect_delay_callback(|attempts| {
            let base = Duration::from_millis(50 << attempts.min(5));
            base.mul_f64(0.5 + fastrand::f64() / 2.0)
        });
    if let Some(path) = &settings.credentials {
        let text = read(path).await?;
        options = options
            .credentials(&text)
            .map_err(|source| ConnectError::Credentials {
                path: path.display().to_string(),
                source,
            })?;
    }
    if let Some(path) = &settings.nkey {
        options = options.nkey(read(path).await?.trim().to_owned());
    }
    let tls = &settings.tls;
    if tls.required {
        options = options.require_tls(true);
    }
    if let Some(ca) = &tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

async fn read(path: &std::path::Path) -> Result<String, ConnectError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|source| ConnectError::Credentials {
            path: path.display().to_string(),
            source,
        })
}

fn version(text: &str) -> Option<(i64, i64, i64)> {
    let mut parts = text.split(['.', '-']).map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

pub(crate) fn write_headers(headers: &Headers) -> async_nats::HeaderMap {
    let mut map = async_nats::HeaderMap::new();
    for (name, value) in headers.iter() {
        // A value with a line break would end the header; nothing of ours has one.
        let value: String = value
            .chars()
            .filter(|char| !matches!(char, '\r' | '\n'))
            .collect();
        if let Ok(name) = name.parse::<async_nats::HeaderName>() {
            map.append(name, value.as_str());
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("2.9.10").unwrap() < OLDEST_SERVER);
        assert!(version("2.12.0").unwrap() >= OLDEST_SERVER);
        assert!(version("2.15.1-RC.2").unwrap() >= OLDEST_SERVER);
        assert_eq!(version("nonsense"), None);
    }
}
