//! The WebSocket of a client whose session is at another edge.
//!
//! The owner keeps the session and encodes the frames; this edge asks for them, as a client that polls does, and
//! writes them as they are. What the client sends is posted. A request is answered before the next is made, in
//! each direction, so both directions keep their order and neither holds more than one answer.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use carillon_protocol::engineio::fixed;
use carillon_protocol::ids::EngineId;
use carillon_protocol::message::Relay;
use carillon_protocol::websocket::{Message, close};

use super::upgrade::{Owner, max_message, probe};
use super::wire::{Wire, farewell, write};
use crate::hub::Hub;
use crate::socket::Socket;
use crate::upgrade::Upgraded;

/// How often a relay looks whether the edge drains.
const LOOK: Duration = Duration::from_millis(500);

/// Serves the socket until either side ends.
pub(super) async fn serve(hub: &Arc<Hub>, sid: EngineId, upgraded: Upgraded) {
    let Upgraded {
        socket,
        leftover,
        seat,
    } = upgraded;
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
    tokio::select! {
        () = send(hub, sid, relay, &socket) => {}
        () = receive(hub, sid, relay, &mut wire) => {}
        () = drained(hub) => farewell(&socket, close::RESTART, "restart").await,
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

/// Writes what the owner has for the client, until that is all.
async fn send(hub: &Arc<Hub>, sid: EngineId, relay: Relay, socket: &Socket) {
    for number in 0u64.. {
        match hub.poll(sid, Some(format!("pull-{number}")), Some(relay)).await {
            Ok(answer) => {
                if write(socket, &answer.body).await.is_err() || answer.last {
                    return;
                }
            }
            Err(_) => return farewell(socket, close::RESTART, "the session's edge is gone").await,
        }
    }
}

/// Posts what the client sends, until it sends no more.
async fn receive(hub: &Arc<Hub>, sid: EngineId, relay: Relay, wire: &mut Wire<'_>) {
    for number in 0u64.. {
        let packet = match wire.next().await {
            Some(Message::Text(text)) => text.into_bytes(),
            Some(Message::Binary(bytes)) => format!("b{}", STANDARD.encode(bytes)).into(),
            Some(Message::Pong(_)) => continue,
            Some(Message::Ping(_) | Message::Close(_)) | None => return,
        };
        if hub
            .post(sid, Some(format!("push-{number}")), Some(relay), packet)
            .await
            .is_err()
        {
            return;
        }
    }
}
