//! From polling to a WebSocket: the probe, then the change.
//!
//! Until the client says that it changes, polling goes on as if nothing were; when it does, it has its last poll's
//! answer, and what waits leaves by the socket.

use std::sync::Arc;

use carillon_protocol::engineio::{Packet, RequestError, fixed};
use carillon_protocol::ids::EngineId;
use carillon_protocol::session::Transport;
use carillon_protocol::websocket::{Message, close};
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::relay;
use super::wire::{Wire, farewell, write};
use crate::accept::Body;
use crate::address::Peer;
use crate::conversation::Conversation;
use crate::engine::{CHANGE, Engine};
use crate::frame::Chunk;
use crate::http::{Front, serve_engine_socket};
use crate::hub::Hub;
use crate::metrics;
use crate::outbox::Sink;
use crate::socket::Socket;
use crate::upgrade::Upgraded;

impl Front {
    /// Accepts the WebSocket that shall replace a session's polling.
    pub(crate) fn upgrade(
        &self,
        mut request: Request<Incoming>,
        peer: Peer,
        sid: EngineId,
    ) -> Response<Body> {
        let hub = Arc::clone(&self.hub);
        let own = match (sid.edge() == hub.id).then(|| hub.engines.get(sid)).transpose() {
            Ok(own) => own,
            Err(refused) => return self.engine_error(&request, refused),
        };
        let offer = match self.offer(&mut request, &peer) {
            Ok(offer) => offer,
            Err(refused) => return refused,
        };
        let (response, pending) = offer.accept_engine();
        let slots = self.slots.clone();
        tokio::spawn(async move {
            let Ok(upgraded) = pending.open().await else {
                return;
            };
            match own {
                Some(engine) => change_here(&hub, &engine, upgraded).await,
                None => relay::serve(&hub, sid, upgraded, &slots, peer.address).await,
            }
        });
        response
    }
}

/// Where the session of a socket is.
pub(super) enum Owner {
    Here(Arc<Engine>),
    Elsewhere(Arc<Hub>, EngineId),
}

impl Owner {
    async fn prepare(&self) -> Result<(), RequestError> {
        match self {
            Self::Here(engine) => engine.probe().await,
            Self::Elsewhere(hub, sid) => hub.probe_owner(*sid).await,
        }
    }
}

/// Changes a session of this edge.
async fn change_here(hub: &Arc<Hub>, engine: &Arc<Engine>, upgraded: Upgraded) {
    let Upgraded {
        socket,
        leftover,
        seat,
    } = upgraded;
    let socket = Arc::new(socket);
    let mut wire = Wire::new(&socket, &leftover, max_message(hub));
    if !engine.is_polling().await
        || probe(&socket, &mut wire, &Owner::Here(Arc::clone(engine)))
            .await
            .is_err()
        || engine.give_up().await.is_err()
    {
        return farewell(&socket, close::POLICY, "upgrade failed").await;
    }
    let leftover = wire.into_leftover();
    let (client, conversation) = (&engine.client, &engine.conversation);
    client.change_sink(Transport::Websocket, Sink::Socket(Arc::clone(&socket)));
    client.wake();
    metrics::changed(Transport::Polling, Transport::Websocket);
    hub.note_transport(conversation);
    let closing = serve_engine_socket(Arc::clone(&socket), &leftover, conversation).await;
    conversation.end(&closing.reason).await;
    metrics::closed(Transport::Websocket, closing.code);
    drop(seat);
}

/// Answers the client's probe, and waits until it changes.
pub(super) async fn probe(socket: &Socket, wire: &mut Wire<'_>, owner: &Owner) -> Result<(), RequestError> {
    let changes = async {
        let mut probed = false;
        loop {
            let Some(Message::Text(text)) = wire.next().await else {
                return Err(RequestError::BadRequest);
            };
            match Packet::from_text(&text) {
                Ok(Packet::Ping { probe: true }) => {
                    owner.prepare().await?;
                    probed = true;
                    let answer = Chunk::text(fixed::PROBE_ANSWER.as_bytes());
                    write(socket, &answer.bytes)
                        .await
                        .map_err(|_| RequestError::BadRequest)?;
                }
                Ok(Packet::Upgrade) if probed => return Ok(()),
                _ => return Err(RequestError::BadRequest),
            }
        }
    };
    tokio::time::timeout(CHANGE, changes)
        .await
        .unwrap_or(Err(RequestError::BadRequest))
}

pub(super) fn max_message(hub: &Hub) -> usize {
    usize::try_from(hub.config.max_payload).unwrap_or(usize::MAX)
}

impl Hub {
    /// Lets the records say how a client is connected now.
    pub(crate) fn note_transport(self: &Arc<Self>, conversation: &Conversation) {
        let transport = conversation.client.transport();
        for session in conversation.sessions() {
            let hub = Arc::clone(self);
            // Nothing depends on it; a later write of the same record carries it too.
            tokio::spawn(async move {
                session
                    .keeper
                    .change(&hub, |record| record.transport = transport)
                    .await
            });
        }
    }
}
