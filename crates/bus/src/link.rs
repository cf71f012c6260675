//! A link: a connection over which comes what others send.
//!
//! It speaks the NATS client protocol itself, for two reasons. The server passes on whatever somebody wrote into
//! a subject or a header, and `async-nats` ends its connection on what it cannot read; here nothing that a message
//! says ends the link. And an edge has a subscription per room: here that costs nothing but the subject on the
//! server. Deliveries are handed over on the link's own task, without a queue in
//! between; whoever takes them must not block. Where one read brought several, they are announced as a turn, so
//! that what they cause can be done at once at its end.

mod client;
mod codec;
mod dial;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use carillon_protocol::headers::Headers;
use carillon_service::settings::Nats;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::connection::LinkState;

/// Bytes that may wait to be written; more means that the server does not read.
const MAX_WAITING: usize = 64 << 20;

/// A message on a subscription of the link.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// The id that the subscription was made with.
    pub id: u64,
    pub subject: &'a [u8],
    pub reply: Option<&'a str>,
    /// The raw header block, or nothing.
    pub headers: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// Returns the subject, with replacement characters for what is not UTF-8.
    pub fn subject(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.subject)
    }
}

/// What is done with what comes over a link. All calls come from the link's one task, in order.
pub trait Deliveries: Send + Sync + 'static {
    /// Several messages follow at once, until [`Deliveries::end_turn`]; a message alone has no turn.
    fn begin_turn(&self) {}

    /// Takes a message.
    fn deliver(&self, delivery: Delivery<'_>);

    /// No further message is at hand.
    fn end_turn(&self) {}

    /// The link stands (again): names every subscription, with its queue group, which is then made before
    /// anything else.
    fn connected(&self, subscribe: &mut dyn FnMut(u64, &str, Option<&str>));

    /// The link broke: messages may be lost from now on until it stands again.
    fn disconnected(&self);
}

/// The link's handle; cheap to clone.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    /// What waits to be written; dropped when the connection breaks.
    waiting: Mutex<BytesMut>,
    written: Notify,
    /// What waited was taken to be written, or dropped.
    taken: Notify,
    /// Subscriptions are taken. This is set before they are all named, and publishing is possible only after
    /// it, so that a publish is always behind every subscription that was made before it.
    accepting: AtomicBool,
    state: watch::Sender<LinkState>,
}

/// The link is down, or the server does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the link is down")]
pub struct Down;

impl Link {
    /// Makes a link, and the task that connects it, and connects it again, until it is told to stop.
    pub fn new(
        settings: Nats,
        name: &str,
        deliveries: Arc<dyn Deliveries>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (state, _) = watch::channel(LinkState {
            connected: false,
            generation: 0,
        });
        let link = Self(Arc::new(Shared {
            waiting: Mutex::default(),
            written: Notify::new(),
            taken: Notify::new(),
            accepting: AtomicBool::new(false),
            state,
        }));
        let client = client::Client {
            settings,
            name: name.to_owned(),
            link: link.clone(),
            deliveries,
        };
        (link, client.run(stop))
    }

    /// Returns whether the link stands, to be watched.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.0.state.subscribe()
    }

    /// Subscribes with an id of the caller's choice. While the link is down this does nothing: every
    /// subscription is named again when it stands.
    pub fn subscribe(&self, id: u64, subject: &str) {
        self.subscribe_in(id, subject, None);
    }

    /// Subscribes as a member of a queue group.
    pub(crate) fn subscribe_in(&self, id: u64, subject: &str, queue: Option<&str>) {
        if self.0.accepting.load(Ordering::SeqCst) {
            self.write(|buffer| codec::subscribe(buffer, id, subject, queue))
                .ok();
        }
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, id: u64) {
        if self.0.accepting.load(Ordering::SeqCst) {
            self.write(|buffer| codec::unsubscribe(buffer, id)).ok();
        }
    }

    /// Publishes behind every subscription made before.
    pub fn publish(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: &Headers,
        body: &[u8],
    ) -> Result<(), Down> {
        if !self.0.state.borrow().connected {
            return Err(Down);
        }
        self.write(|buffer| codec::publish(buffer, subject, reply, headers, body))
    }

    /// Publishes over the connection of a generation, and over no later one.
    pub(crate) fn publish_on(
        &self,
        generation: u64,
        subject: &str,
        reply: Option<&str>,
        headers: &Headers,
        body: &[u8],
    ) -> Result<(), Down> {
        let stands = LinkState {
            connected: true,
            generation,
        };
        let mut waiting = self.0.waiting.lock();
        // A break changes the state before it drops what waits, so that this is written now or never.
        if *self.0.state.borrow() != stands || waiting.len() > MAX_WAITING {
            return Err(Down);
        }
        codec::publish(&mut waiting, subject, reply, headers, body);
        drop(waiting);
        self.0.written.notify_one();
        Ok(())
    }

    /// Waits while more waits to be written than the half of what may.
    pub(crate) async fn has_room(&self) {
        let is_roomy = || self.0.waiting.lock().len() <= MAX_WAITING / 2;
        while !is_roomy() {
            let mut taken = std::pin::pin!(self.0.taken.notified());
            taken.as_mut().enable();
            if !is_roomy() {
                taken.await;
            }
        }
    }

    fn write(&self, write: impl FnOnce(&mut BytesMut)) -> Result<(), Down> {
        let mut waiting = self.0.waiting.lock();
        if waiting.len() > MAX_WAITING {
            return Err(Down);
        }
        write(&mut waiting);
        drop(waiting);
        self.0.written.notify_one();
        Ok(())
    }
}

/// The pause before the next attempt to connect.
fn back_off(attempts: u32) -> Duration {
    Duration::from_millis(20 << attempts.min(6)).mul_f64(0.5 + fastrand::f64() / 2.0)
}
