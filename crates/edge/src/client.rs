//! One client's transport, as the rest of the edge sees it: something to send to, and to close.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use carillon_bus::history::now;
use carillon_protocol::clientjson::encode;
use carillon_protocol::session::Transport;
use carillon_service::settings::Overflow;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::accept::{Seat, Slot};
use crate::asks::Asks;
use crate::frame::{Chunk, Wire};
use crate::metrics;
use crate::outbox::{Outbox, Sent, Sink};
use crate::turn::Turn;

/// How long a client may take nothing of its history before it is closed.
const STALLED: Duration = Duration::from_secs(30);
/// Between two looks at the queue of a transport that takes from it by itself.
const LOOK: Duration = Duration::from_millis(20);

/// Why a transport is closed: the WebSocket close code, and the text for the client and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) code: u16,
    pub(crate) reason: String,
    /// What waits is sent before.
    pub(crate) flush: bool,
}

/// A connected client.
pub(crate) struct Client {
    pub(crate) wire: Wire,
    pub(crate) asks: Asks,
    transport: AtomicU8,
    outbox: Mutex<Outbox>,
    closing: Mutex<Option<Box<Closing>>>,
    /// Milliseconds since 1970 at which the client last sent something.
    heard: AtomicU64,
    parted: AtomicBool,
    silent: AtomicBool,
    wake: Notify,
    /// Its place among the connections of its address and of the edge.
    _place: Option<(Slot, Seat)>,
}

impl Client {
    pub(crate) fn new(wire: Wire, transport: Transport, sink: Sink, limit: usize) -> Self {
        Self {
            wire,
            asks: Asks::default(),
            transport: AtomicU8::new(transport as u8),
            outbox: Mutex::new(Outbox::new(sink, limit)),
            closing: Mutex::new(None),
            heard: AtomicU64::new(now()),
            parted: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            wake: Notify::new(),
            _place: None,
        }
    }

    /// Keeps the places that the connection has taken until it is gone.
    #[must_use]
    pub(crate) fn at(self, place: (Slot, Seat)) -> Self {
        Self {
            _place: Some(place),
            ..self
        }
    }

    /// Notes that the client is there.
    pub(crate) fn hear(&self) {
        self.heard.store(now(), Ordering::Relaxed);
    }

    /// Notes that the client itself says that it goes.
    pub(crate) fn part(&self) {
        self.parted.store(true, Ordering::Relaxed);
    }

    /// Returns whether the client said that it goes.
    pub(crate) fn has_parted(&self) -> bool {
        self.parted.load(Ordering::Relaxed)
    }

    /// Notes that the transport ends because nothing comes from the client any more.
    pub(crate) fn fall_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Returns when the client was there last, in milliseconds since 1970: one that fell silent was gone before that was
    /// noticed.
    pub(crate) fn last_there(&self) -> u64 {
        if self.silent.load(Ordering::Relaxed) {
            self.heard.load(Ordering::Relaxed)
        } else {
            now()
        }
    }

    /// Returns how the client is connected now; an upgrade changes it.
    pub(crate) fn transport(&self) -> Transport {
        const ALL: [Transport; 4] = [
            Transport::Websocket,
            Transport::Polling,
            Transport::Ws,
            Transport::Sse,
        ];
        let number = self.transport.load(Ordering::Relaxed);
        ALL.into_iter()
            .find(|transport| *transport as u8 == number)
            .unwrap_or(Transport::Websocket)
    }

    /// Sends an event's chunks behind what waits.
    pub(crate) fn send_event(&self, text: Chunk, attachments: &[Chunk], overflow: Overflow) {
        self.push_event(self.outbox.lock(), text, attachments, overflow);
    }

    /// Sends an event's chunks at the end of the turn, in one write with the others for this client.
    pub(crate) fn send_event_in(
        self: &Arc<Self>,
        turn: &mut Turn,
        text: Chunk,
        attachments: &[Chunk],
        overflow: Overflow,
    ) {
        let mut outbox = self.outbox.lock();
        if outbox.cork() {
            turn.touch(self);
        }
        self.push_event(outbox, text, attachments, overflow);
    }

    /// Sends a piece of several frames at the end of the turn; `false` where the transport takes single frames.
    pub(crate) fn send_joined_in(
        self: &Arc<Self>,
        turn: &mut Turn,
        piece: &Chunk,
        accepted: impl FnOnce() -> u64,
    ) -> bool {
        let mut outbox = self.outbox.lock();
        if matches!(outbox.sink, Sink::Pull) {
            return false;
        }
        if outbox.cork() {
            turn.touch(self);
        }
        let mut piece = piece.clone();
        piece.accepted = accepted();
        self.push_event(outbox, piece, &[], Overflow::CloseAndRecover);
        true
    }

    fn push_event(
        &self,
        mut outbox: MutexGuard<'_, Outbox>,
        text: Chunk,
        attachments: &[Chunk],
        overflow: Overflow,
    ) {
        let mut sent = outbox.push(text, overflow);
        for chunk in attachments {
            sent = sent.max(outbox.push(chunk.clone(), overflow));
        }
        drop(outbox);
        self.after(sent);
    }

    /// Sends a chunk that is no event.
    pub(crate) fn send(&self, chunk: Chunk) {
        let sent = self.outbox.lock().push(chunk, Overflow::CloseAndRecover);
        self.after(sent);
    }

    /// Sends a text message.
    pub(crate) fn send_text(&self, text: &[u8]) {
        self.send(Chunk::text(text));
    }

    fn after(&self, sent: Sent) {
        match sent {
            Sent::Done => {}
            Sent::Waiting => self.wake.notify_one(),
            Sent::Overflow => self.overflow(),
        }
    }

    /// Collects what is sent until [`Client::uncork`], so that it leaves in one write.
    pub(crate) fn cork(&self) {
        self.outbox.lock().cork();
    }

    /// Writes what was collected.
    pub(crate) fn uncork(&self) {
        let done = self.outbox.lock().flush();
        if !matches!(done, Ok(true)) {
            self.wake.notify_one();
        }
    }

    /// Closes the transport; the first reason counts.
    pub(crate) fn close(&self, closing: Closing) {
        self.closing.lock().get_or_insert_with(|| Box::new(closing));
        self.wake.notify_one();
    }

    /// Returns why the transport is being closed, if it is.
    pub(crate) fn closing(&self) -> Option<Closing> {
        self.closing.lock().as_deref().cloned()
    }

    /// Waits until the connection's task has something to do: to write, or to close.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Returns whether history of so many bytes may join what waits.
    pub(crate) fn has_room(&self, size: usize) -> bool {
        self.outbox.lock().has_room(size)
    }

    /// Waits until history of so many bytes may join what waits, and writes meanwhile; `false` if the client takes
    /// nothing any more, or is being closed.
    pub(crate) async fn drained(&self, size: usize) -> bool {
        let mut waiting = usize::MAX;
        let mut deadline = Instant::now() + STALLED;
        loop {
            let (left, socket) = {
                let mut outbox = self.outbox.lock();
                if outbox.flush().is_err() {
                    return false;
                }
                if outbox.has_room(size) {
                    return true;
                }
                let socket = match &outbox.sink {
                    Sink::Socket(socket) => Some(Arc::clone(socket)),
                    Sink::Pull => None,
                };
                (outbox.waiting(), socket)
            };
            let look = if socket.is_some() { LOOK * 10 } else { LOOK };
            if left < waiting {
                waiting = left;
                deadline = Instant::now() + STALLED;
            }
            if self.closing().is_some() || Instant::now() >= deadline {
                return false;
            }
            let turn = async {
                match socket {
                    Some(socket) => socket.writable().await,
                    None => std::future::pending().await,
                }
            };
            // A socket that cannot be written to is looked at too, since its client may be closed meanwhile.
            if let Ok(Err(_)) = tokio::time::timeout(look, turn).await {
                return false;
            }
        }
    }

    /// Tells the client that too much waits for it, instead of what waits, and closes it; it comes back for that.
    pub(crate) fn overflow(&self) {
        const CODE: &str = "slow_client";
        const MESSAGE: &str = "too much waits for this connection";
        metrics::error(CODE);
        let told = matches!(self.wire, Wire::Json).then(|| {
            let mut text = Vec::new();
            encode::Error {
                code: CODE,
                message: MESSAGE,
                ..encode::Error::default()
            }
            .write(&mut text);
            Chunk::text(&text)
        });
        self.outbox.lock().abandon(told);
        self.close(Closing {
            code: 1013,
            reason: format!("{CODE}: {MESSAGE}"),
            flush: true,
        });
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Works on the queue; nothing may wait in here.
    pub(crate) fn with_outbox<T>(&self, work: impl FnOnce(&mut Outbox) -> T) -> T {
        work(&mut self.outbox.lock())
    }

    /// Changes the transport below the client, as an upgrade does.
    pub(crate) fn change_sink(&self, transport: Transport, sink: Sink) {
        self.outbox.lock().sink = sink;
        self.transport.store(transport as u8, Ordering::Relaxed);
    }
}
