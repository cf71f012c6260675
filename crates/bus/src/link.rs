//! The delivery link: the one connection over which an edge gets the events of its rooms.
//!
//! It speaks the NATS client protocol itself, because an edge has a subscription per room: here that costs
//! nothing but the subject on the server. Deliveries are handed over on the link's own task, without a queue in
//! between; whoever takes them must not block. Where one read brought several, they are announced as a turn, so
//! that what they cause can be done at once at its end.

mod client;
mod codec;
mod dial;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
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
    pub subject: &'a str,
    /// The raw header block, or nothing.
    pub headers: &'a [u8],
    pub body: Bytes,
}

/// What an edge does with its deliveries. All calls come from the link's one task, in order.
pub trait Deliveries: Send + Sync + 'static {
    /// Several messages follow at once, until [`Deliveries::end_turn`]; a message alone has no turn.
    fn begin_turn(&self) {}

    /// Takes a message.
    fn deliver(&self, delivery: Delivery<'_>);

    /// No further message is at hand.
    fn end_turn(&self) {}

    /// The link stands (again): names every subscription, which is then made before anything else.
    fn connected(&self, subscribe: &mut dyn FnMut(u64, &str));

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
    /// Subscriptions are taken. This is set before they are all named, and publishing is possible only after
    /// it, so that a publish is always behind every subscription that was made before it.
    accepting: AtomicBool,
    state: watch::Sender<LinkState>,
}

/// The link is down, or the server does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery link is down")]
pub struct Down;

impl Link {
    /// Starts the link; it connects, and connects again, until it is told to stop.
    pub fn start(
        settings: Nats,
        name: &str,
        deliveries: Arc<dyn Deliveries>,
        stop: CancellationToken,
    ) -> Self {
        let (state, _) = watch::channel(LinkState {
            connected: false,
            generation: 0,
        });
        let link = Self(Arc::new(Shared {
            waiting: Mutex::default(),
            written: Notify::new(),
            accepting: AtomicBool::new(false),
            state,
        }));
        let client = client::Client {
            settings,
            name: name.to_owned(),
            link: link.clone(),
            deliveries,
        };
        tokio::spawn(client.run(stop));
        link
    }

    /// Returns whether the link stands, to be watched.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.0.state.subscribe()
    }

    /// Subscribes with an id of the caller's choice. While the link is down this does nothing: every
    /// subscription is named again when it stands.
    pub fn subscribe(&self, id: u64, subject: &str) {
        if self.0.accepting.load(Ordering::SeqCst) {
            self.write(|buffer| codec::subscribe(buffer, id, subject)).ok();
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
