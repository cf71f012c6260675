//! What others send to this process: a link of its own, whose messages go to whoever waits for them.
//!
//! Messages of a subscription go into its channel, the answer of a request to who asked. All that is done here on
//! the link's task is quick.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_protocol::headers::Headers;
use carillon_service::settings::Nats;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::{Message, RequestError};
use crate::link::{Deliveries, Delivery, Down, Link};

/// Messages that may wait in one subscription; further ones are lost.
const WAITING: usize = 1 << 16;
/// The subscription to the answers of all requests.
const ANSWERS: u64 = 0;
/// What the server says in place of an answer.
pub(crate) const NO_RESPONDERS: u16 = 503;

/// The link with its subscriptions; cheap to clone, and closed with its last clone.
#[derive(Clone)]
pub(crate) struct Intake(Arc<Inner>);

struct Inner {
    link: Link,
    routes: Arc<Routes>,
    stop: CancellationToken,
    _guard: DropGuard,
}

/// A message, with the status that the server may have given it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) status: Option<Status>,
    /// Bytes of subject, reply, headers and body.
    pub(crate) size: usize,
}

/// The first line of a header block beyond its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) text: String,
}

/// What becomes of a subscription when the link breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// It is made again.
    Lasting,
    /// It ends: its channel is closed.
    OneConnection,
}

/// The channel of a subscription.
pub(crate) struct Channel {
    pub(crate) id: u64,
    pub(crate) messages: mpsc::Receiver<Received>,
}

struct Routes {
    /// Requests are answered on `<inbox>.<number>`.
    inbox: String,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    subscriptions: HashMap<u64, Route>,
    requests: HashMap<u64, oneshot::Sender<Received>>,
}

struct Route {
    subject: String,
    queue: Option<String>,
    span: Span,
    /// The server was told to send no more.
    ended: bool,
    /// Messages that found no room since the last one that did.
    lost: u64,
    channel: mpsc::Sender<Received>,
}

/// An answer that is waited for; dropping it ends that.
pub(crate) struct Answer {
    number: u64,
    routes: Arc<Routes>,
    received: oneshot::Receiver<Received>,
}

impl Intake {
    /// Starts the link; `inbox` is a subject of this process alone.
    pub(crate) fn start(settings: Nats, name: &str, inbox: String) -> Self {
        let routes = Arc::new(Routes {
            inbox,
            table: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let deliveries = Arc::clone(&routes) as Arc<dyn Deliveries>;
        let (link, task) = Link::new(settings, name, deliveries, stop.clone());
        tokio::spawn(task);
        Self(Arc::new(Inner {
            link,
            routes,
            _guard: stop.clone().drop_guard(),
            stop,
        }))
    }

    /// Closes the link while there are clones.
    pub(crate) fn close(&self) {
        self.0.stop.cancel();
    }

    pub(crate) fn link(&self) -> &Link {
        &self.0.link
    }

    /// Subscribes to a subject, as a member of a queue group where one is named.
    pub(crate) fn subscribe(&self, subject: &str, queue: Option<&str>, span: Span) -> Channel {
        let (channel, messages) = mpsc::channel(WAITING);
        let route = Route {
            subject: subject.to_owned(),
            queue: queue.map(str::to_owned),
            span,
            ended: false,
            lost: 0,
            channel,
        };
        let id = {
            let mut table = self.0.routes.table.lock();
            table.last += 1;
            let id = table.last;
            table.subscriptions.insert(id, route);
            id
        };
        self.0.link.subscribe_in(id, subject, queue);
        Channel { id, messages }
    }

    /// Forgets a subscription.
    pub(crate) fn unsubscribe(&self, id: u64) {
        let route = self.0.routes.table.lock().subscriptions.remove(&id);
        if route.is_some_and(|route| !route.ended) {
            self.0.link.unsubscribe(id);
        }
    }

    /// Tells the server to send no more. What it sent before the returned message still comes.
    pub(crate) fn end(&self, id: u64) -> Result<Answer, Down> {
        if let Some(route) = self.0.routes.table.lock().subscriptions.get_mut(&id) {
            route.ended = true;
        }
        self.0.link.unsubscribe(id);
        self.mark()
    }

    /// Waits until the server has read what was written before.
    pub(crate) async fn flush(&self) {
        self.0.link.has_room().await;
        if let Ok(marker) = self.mark() {
            marker.come().await;
        }
    }

    /// Sends a message to this process itself, which comes once the server has read all that was written before.
    fn mark(&self) -> Result<Answer, Down> {
        let answer = self.expect();
        let subject = self.0.routes.answer_subject(answer.number);
        self.0.link.publish(&subject, None, &Headers::new(), b"")?;
        Ok(answer)
    }

    /// Sends a message behind every subscription that was made before.
    pub(crate) async fn publish(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: &Headers,
        body: &[u8],
    ) -> Result<(), Down> {
        self.0.link.has_room().await;
        self.0.link.publish(subject, reply, headers, body)
    }

    /// Sends a request now; its first answer is awaited by the returned future.
    pub(crate) async fn request_later(
        &self,
        subject: &str,
        headers: &Headers,
        body: Bytes,
        timeout: Duration,
    ) -> Result<impl Future<Output = Result<Message, RequestError>> + Send + use<>, RequestError> {
        let begun = Instant::now();
        let answer = self.expect();
        let reply = self.0.routes.answer_subject(answer.number);
        tokio::time::timeout(timeout, self.publish(subject, Some(&reply), headers, &body))
            .await
            .map_err(|_| RequestError::Timeout)?
            .map_err(|_| RequestError::Away)?;
        Ok(async move {
            let received = tokio::time::timeout(timeout.saturating_sub(begun.elapsed()), answer.come())
                .await
                .map_err(|_| RequestError::Timeout)?
                .ok_or(RequestError::Away)?;
            match received.status {
                // An answer with a body is somebody's, whatever its headers say.
                Some(status) if status.code == NO_RESPONDERS && received.message.body.is_empty() => {
                    Err(RequestError::NoResponders)
                }
                _ => Ok(received.message),
            }
        })
    }

    /// Sends a request over the connection of a generation, and over no later one.
    pub(crate) async fn request_on(
        &self,
        generation: u64,
        subject: &str,
        headers: &Headers,
        body: &[u8],
    ) -> Result<Answer, Down> {
        self.0.link.has_room().await;
        let answer = self.expect();
        let reply = self.0.routes.answer_subject(answer.number);
        self.0
            .link
            .publish_on(generation, subject, Some(&reply), headers, body)?;
        Ok(answer)
    }

    fn expect(&self) -> Answer {
        let (sender, received) = oneshot::channel();
        let mut table = self.0.routes.table.lock();
        table.last += 1;
        let number = table.last;
        table.requests.insert(number, sender);
        Answer {
            number,
            routes: Arc::clone(&self.0.routes),
            received,
        }
    }
}

impl Answer {
    /// Waits for the answer; `None` when there will be none.
    pub(crate) async fn come(mut self) -> Option<Received> {
        (&mut self.received).await.ok()
    }

    /// Waits until the message is there, again and again if that is broken off.
    pub(crate) async fn arrive(&mut self) {
        let _ = (&mut self.received).await;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.routes.table.lock().requests.remove(&self.number);
    }
}

impl Routes {
    fn answer_subject(&self, number: u64) -> String {
        format!("{}.{number}", self.inbox)
    }
}

impl Deliveries for Routes {
    fn deliver(&self, delivery: Delivery<'_>) {
        let mut table = self.table.lock();
        if delivery.id == ANSWERS {
            let subject = delivery.subject();
            let number = subject.rsplit('.').next();
            let number = number.and_then(|number| number.parse().ok());
            if let Some(waiting) = number.and_then(|number: u64| table.requests.remove(&number)) {
                let _ = waiting.send(delivery.into());
            }
            return;
        }
        let Some(route) = table.subscriptions.get_mut(&delivery.id) else {
            return;
        };
        match route.channel.try_send(delivery.into()) {
            Ok(()) => route.lost = 0,
            Err(_) => {
                if route.lost == 0 {
                    tracing::warn!(
                        subject = route.subject,
                        "too many messages wait, further ones are lost"
                    );
                }
                route.lost += 1;
            }
        }
    }

    fn connected(&self, subscribe: &mut dyn FnMut(u64, &str, Option<&str>)) {
        subscribe(ANSWERS, &format!("{}.*", self.inbox), None);
        for (&id, route) in &self.table.lock().subscriptions {
            if !route.ended {
                subscribe(id, &route.subject, route.queue.as_deref());
            }
        }
    }

    fn disconnected(&self) {
        let mut table = self.table.lock();
        table.subscriptions.retain(|_, route| route.span == Span::Lasting);
    }
}

impl From<Delivery<'_>> for Received {
    fn from(delivery: Delivery<'_>) -> Self {
        Self {
            status: Status::read(delivery.headers),
            size: delivery.subject.len()
                + delivery.reply.map_or(0, str::len)
                + delivery.headers.len()
                + delivery.body.len(),
            message: Message {
                subject: delivery.subject().into_owned(),
                reply: delivery.reply.map(str::to_owned),
                headers: Headers::read(delivery.headers),
                body: Bytes::copy_from_slice(delivery.body),
            },
        }
    }
}

impl Status {
    /// Reads the first line of a header block, `NATS/1.0 100 Idle Heartbeat`.
    fn read(block: &[u8]) -> Option<Self> {
        let line = block
            .strip_prefix(b"NATS/1.0 ")?
            .split(|&byte| byte == b'\n')
            .next()?;
        let line = String::from_utf8_lossy(line);
        let (code, text) = match line.trim().split_once(' ') {
            Some((code, text)) => (code, text.trim()),
            None => (line.trim(), ""),
        };
        Some(Self {
            code: code.parse().ok()?,
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_stands_in_the_first_line() {
        let status = |block: &[u8]| Status::read(block).map(|status| (status.code, status.text));
        assert_eq!(status(b"NATS/1.0 503\r\n\r\n"), Some((503, String::new())));
        let heartbeat = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n";
        assert_eq!(status(heartbeat), Some((100, "Idle Heartbeat".to_owned())));
        for block in [
            &b"NATS/1.0\r\nA: 503\r\n\r\n"[..],
            b"HTTP/1.1 503\r\n\r\n",
            b"NATS/1.0 x\r\n",
            b"",
        ] {
            assert_eq!(status(block), None);
        }
    }
}
