//! The WebSocket of a client whose session is at another edge.
//!
//! The owner keeps the session and encodes the frames; this edge asks for them, as a client that polls does, and
//! writes them as they are. What the client sends is posted. A request is answered before the next is made, in
//! each direction, so both directions keep their order and neither holds more than one answer.
//!
//! As soon as nothing is under way the session moves here: nothing is taken from the client then, everything that
//! the owner sent is written, and the owner holds the rest until the session's records are this edge's.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use carillon_protocol::engineio::{RequestError, fixed};
use carillon_protocol::ids::EngineId;
use carillon_protocol::message::Relay;
use carillon_protocol::session::Transport;
use carillon_protocol::websocket::{Message, Opcode, close};
use tokio::sync::{Mutex, MutexGuard, watch};

use super::upgrade::{Owner, max_message, probe};
use super::wire::{Wire, farewell, write};
use crate::accept::Slots;
use crate::conversation::Handover;
use crate::entrance::{Arrived, NotMoved};
use crate::frame::Chunk;
use crate::http::serve_engine_socket;
use crate::hub::Hub;
use crate::metrics;
use crate::outbox::Sink;
use crate::socket::Socket;
use crate::upgrade::Upgraded;

/// How often a relay looks whether the edge drains.
const LOOK: Duration = Duration::from_millis(500);
/// When the owner is asked first whether the session can move, and the longest pause until it is asked again.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// A client's socket and where its session is.
struct Line<'a> {
    hub: &'a Arc<Hub>,
    sid: EngineId,
    relay: Relay,
    socket: &'a Arc<Socket>,
    /// Held while a frame is written, since a pong may not come into the middle of another one.
    writing: Mutex<()>,
    /// Held from the first byte of a client's message until the owner has it.
    taking: Mutex<()>,
    pulls: AtomicU64,
    pushes: AtomicU64,
}

/// Whether the owner is still asked for frames.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The owner decides whether the session can move: it does once it has nothing for the client.
    Asking,
    Frozen,
}

/// The socket has ended, or the session.
struct Over;

/// Serves the socket until either side ends.
pub(super) async fn serve(hub: &Arc<Hub>, sid: EngineId, upgraded: Upgraded, slots: &Slots, address: IpAddr) {
    let Upgraded {
        socket,
        leftover,
        seat,
    } = upgraded;
    let socket = Arc::new(socket);
    let mut wire = Wire::new(&socket, &leftover, max_message(hub));
    if probe(&socket, &mut wire, &Owner::Elsewhere(Arc::clone(hub), sid))
        .await
        .is_err()
    {
        return farewell(&socket, close::POLICY, "upgrade failed").await;
    }
    let relay = Relay {
        edge: hub.id,
        number: rand::random(),
    };
    if hub.change_owner_to(sid, relay).await.is_err() {
        return farewell(&socket, close::TRY_AGAIN_LATER, "the session is gone").await;
    }
    let line = Line {
        hub,
        sid,
        relay,
        socket: &socket,
        writing: Mutex::default(),
        taking: Mutex::default(),
        pulls: AtomicU64::new(0),
        pushes: AtomicU64::new(0),
    };
    let mut drained = pin!(drained(hub));
    let mut pause = FIRST;
    loop {
        let (handover, taking) = tokio::select! {
            frozen = line.serve_owner(pause) => match frozen {
                Ok(frozen) => frozen,
                Err(Over) => break,
            },
            () = line.take(&mut wire) => break,
            () = &mut drained => {
                farewell(&socket, close::RESTART, "restart").await;
                break;
            }
        };
        pause = LONGEST;
        // The client has no place at this edge yet, and it may have none for it.
        let slot = slots.address(address).filter(|_| wire.is_between_messages());
        let moved = match &slot {
            Some(_) => hub.take_in(handover, slots.clone()).await,
            None => Err(NotMoved::Unchanged),
        };
        match moved {
            Ok(arrived) => {
                drop(taking);
                let leftover = wire.into_leftover();
                line.go_on(arrived, leftover).await;
                drop((seat, slot));
                return;
            }
            Err(NotMoved::Unchanged) => hub.thaw_owner(sid, relay).await,
            Err(NotMoved::Broken) => {
                farewell(&socket, close::RESTART, "the session's edge is not known").await;
                break;
            }
        }
        drop(taking);
    }
    // The socket is gone, for whatever reason: the session's client is away.
    let _ = hub
        .post(
            sid,
            Some("end".to_owned()),
            Some(relay),
            Bytes::from_static(fixed::CLOSE.as_bytes()),
        )
        .await;
    drop(seat);
}

/// Waits for this socket's turn when the edge drains: the owner does not know that this edge is about to stop.
async fn drained(hub: &Hub) {
    while !hub.is_draining() {
        tokio::time::sleep(LOOK).await;
    }
    let time = hub
        .config
        .drain
        .saturating_sub(hub.config.drain_delay)
        .mul_f64(0.75 * fastrand::f64());
    let _ = tokio::time::timeout(time, hub.stop.cancelled()).await;
}

impl Line<'_> {
    /// Writes what the owner has for the client until the session can move: everything that the owner sent is
    /// written then, and nothing is taken from the client as long as the guard is kept.
    async fn serve_owner(&self, pause: Duration) -> Result<(Handover, MutexGuard<'_, ()>), Over> {
        let (phase, seen) = watch::channel(Phase::Open);
        let ((), frozen) = tokio::try_join!(self.send(seen), self.freeze(phase, pause))?;
        Ok(frozen)
    }

    /// Writes what the owner has for the client, until it holds the session.
    async fn send(&self, mut phase: watch::Receiver<Phase>) -> Result<(), Over> {
        loop {
            let number = self.pulls.fetch_add(1, Ordering::Relaxed);
            let had_nothing = match self
                .hub
                .poll(self.sid, Some(format!("pull-{number}")), Some(self.relay))
                .await
            {
                Ok(answer) => {
                    self.write(&answer.body).await?;
                    if answer.last {
                        return Err(Over);
                    }
                    answer.body.is_empty()
                }
                Err(_) => {
                    farewell(self.socket, close::RESTART, "the session's edge is gone").await;
                    return Err(Over);
                }
            };
            let decided = phase
                .wait_for(|phase| !had_nothing || *phase != Phase::Asking)
                .await;
            if decided.is_ok_and(|phase| *phase == Phase::Frozen) {
                return Ok(());
            }
        }
    }

    /// Asks the owner to hold the session, until it does.
    async fn freeze(
        &self,
        phase: watch::Sender<Phase>,
        mut pause: Duration,
    ) -> Result<(Handover, MutexGuard<'_, ()>), Over> {
        loop {
            tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST);
            let taking = self.taking.lock().await;
            phase.send_replace(Phase::Asking);
            match self.hub.freeze_owner(self.sid, self.relay).await {
                Ok(handover) => {
                    phase.send_replace(Phase::Frozen);
                    return Ok((handover, taking));
                }
                Err(RequestError::BadRequest) => {}
                // It may hold the session although its answer was lost. An owner that is gone is noticed by whoever
                // waits for its frames.
                Err(_) => self.hub.thaw_owner(self.sid, self.relay).await,
            }
            phase.send_replace(Phase::Open);
        }
    }

    /// Posts what the client sends, until it sends no more.
    async fn take(&self, wire: &mut Wire<'_>) {
        let mut taking = None;
        loop {
            if taking.is_none() {
                if wire.input().await.is_none() {
                    return;
                }
                taking = Some(self.taking.lock().await);
            }
            let packet = match wire.receive().await {
                Some(Message::Text(text)) => Some(text.into_bytes()),
                Some(Message::Binary(bytes)) => Some(format!("b{}", STANDARD.encode(bytes)).into()),
                Some(Message::Ping(payload)) => {
                    let pong = Chunk::new(Opcode::Pong, &payload);
                    if self.write(&pong.bytes).await.is_err() {
                        return;
                    }
                    None
                }
                Some(Message::Pong(_)) => None,
                Some(Message::Close(_)) | None => return,
            };
            if let Some(packet) = packet {
                let number = self.pushes.fetch_add(1, Ordering::Relaxed);
                let posted =
                    self.hub
                        .post(self.sid, Some(format!("push-{number}")), Some(self.relay), packet);
                if posted.await.is_err() {
                    return;
                }
            }
            if wire.is_between_messages() {
                taking = None;
            }
        }
    }

    async fn write(&self, bytes: &[u8]) -> Result<(), Over> {
        let _writing = self.writing.lock().await;
        write(self.socket, bytes).await.map_err(|_| Over)
    }

    /// Serves the client of a session that has moved here.
    async fn go_on(&self, arrived: Arrived, leftover: Bytes) {
        let Arrived { client, conversation } = arrived;
        metrics::opened(Transport::Websocket);
        // Whatever waited there leaves before anything of this edge.
        let farewell = self.hub.relieve_owner(self.sid, self.relay).await;
        let written = self.write(&farewell.rest()).await.is_ok();
        for session in conversation.sessions() {
            session.settle(farewell.signals_of(session.sid));
            session.release();
        }
        for session in conversation.sessions() {
            // A revocation that came while the session was on its way.
            if self.hub.revocations.covers(&session.user.load()) {
                self.hub.disconnect(&session, "revoked").await;
            }
        }
        if !written {
            conversation.end("transport error").await;
            return metrics::closed(Transport::Websocket, close::GOING_AWAY);
        }
        client.change_sink(Transport::Websocket, Sink::Socket(Arc::clone(self.socket)));
        client.wake();
        let closing = serve_engine_socket(Arc::clone(self.socket), &leftover, &conversation).await;
        conversation.end(&closing.reason).await;
        metrics::closed(Transport::Websocket, closing.code);
    }
}
