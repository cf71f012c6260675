//! WebSockets: how one is opened, and what is kept while it stands.

use std::sync::Arc;

use carillon_protocol::ids::EngineId;
use carillon_protocol::session::Transport;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::{Front, query_value};
use crate::accept::{Body, Places, Seat, Slot, unavailable};
use crate::address::Peer;
use crate::admission::Shown;
use crate::client::{Client, Closing};
use crate::conversation::Conversation;
use crate::frame::Wire;
use crate::hub::Hub;
use crate::metrics;
use crate::outbox::Sink;
use crate::plain::Plain;
use crate::socket::Socket;
use crate::transport::websocket::{self, Connection, Heartbeat, Speaker};
use crate::upgrade::{self, Offer};

impl Front {
    /// Opens an Engine.IO session over WebSocket.
    pub(super) fn open_engine(
        self: Arc<Self>,
        offer: Offer,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Response<Body> {
        let Some(slot) = self.slots.address(peer.address) else {
            metrics::error("too_many_connections");
            return unavailable("too_many_connections", "too many connections of this address", 5);
        };
        let shown = Shown::of(request.headers(), request.uri().query());
        let (response, pending) = offer.accept_engine();
        tokio::spawn(async move {
            let Ok(upgraded) = pending.open().await else {
                return;
            };
            let hub = &self.hub;
            let socket = Arc::new(upgraded.socket);
            let place = (slot, upgraded.seat);
            let client = client(hub, &socket, Wire::SocketIo, Transport::Websocket, place);
            let id = EngineId::of_edge(hub.id, rand::random());
            let places = Places::new(self.slots.clone());
            let conversation = Conversation::new(Arc::clone(hub), Arc::clone(&client), shown, places);
            client.send_text(&hub.open_packet(id, &[]));
            metrics::opened(Transport::Websocket);
            let connection = engine_connection(&conversation, socket, &upgraded.leftover);
            // A task of its own: this one has room for all that an upgrade needs.
            tokio::spawn(keep_engine(connection, conversation));
        });
        response
    }

    /// `/ws`: the token is checked before the upgrade.
    pub(super) async fn plain(self: Arc<Self>, mut request: Request<Incoming>, peer: Peer) -> Response<Body> {
        if let Err(refused) = self.admit_new() {
            return refused;
        }
        if let Err(refused) = self.check_origin(&request, &peer) {
            return refused;
        }
        // The token comes first: who shows none is told so, also where the handshake is wrong.
        let shown = Shown::of(request.headers(), request.uri().query());
        let user = match self.hub.identify_plain(&shown).await {
            Ok(user) => user,
            Err(refused) => return refused,
        };
        let offer = match upgrade::offer(&mut request) {
            Ok(offer) => offer,
            Err(refused) => return refused,
        };
        let place = match user.id() {
            Some(id) => self.slots.user(id).map(Some),
            None => Some(None),
        };
        let (Some(slot), Some(place)) = (self.slots.address(peer.address), place) else {
            metrics::error("too_many_connections");
            return unavailable("too_many_connections", "too many connections", 5);
        };
        let since = query_value(request.uri().query(), "since");
        let carillon = offer.carillon();
        let (response, pending) = offer.accept(carillon);
        tokio::spawn(async move {
            let Ok(upgraded) = pending.open().await else {
                return;
            };
            let hub = &self.hub;
            let socket = Arc::new(upgraded.socket);
            let client = client(hub, &socket, Wire::Json, Transport::Ws, (slot, upgraded.seat));
            metrics::opened(Transport::Ws);
            match Plain::open(hub, &client, user, since, &[]).await {
                Ok(plain) => {
                    let plain = Arc::new(plain);
                    plain.session.occupy(place);
                    let connection = plain_connection(&plain, socket, &upgraded.leftover);
                    // A task of its own: this one has room for all that opening a session needs.
                    tokio::spawn(keep_plain(connection, plain));
                }
                Err(refused) => {
                    let closing = refused.closing();
                    Box::pin(websocket::goodbye(&client, &socket, &closing)).await;
                    metrics::closed(Transport::Ws, closing.code);
                }
            }
        });
        response
    }
}

fn client(
    hub: &Hub,
    socket: &Arc<Socket>,
    wire: Wire,
    transport: Transport,
    place: (Slot, Seat),
) -> Arc<Client> {
    let limit = usize::try_from(hub.config.queue).unwrap_or(usize::MAX);
    let sink = Sink::Socket(Arc::clone(socket));
    Arc::new(Client::new(wire, transport, sink, limit).at(place))
}

fn plain_connection(plain: &Arc<Plain>, socket: Arc<Socket>, leftover: &[u8]) -> Box<Connection> {
    let config = &plain.hub.config;
    let interval = config.ws_ping_interval;
    let heartbeat = Heartbeat {
        interval,
        timeout: interval,
        handshake: interval,
    };
    let max = usize::try_from(config.max_payload).unwrap_or(usize::MAX);
    let client = Arc::clone(&plain.client);
    Box::new(Connection::new(
        client,
        socket,
        leftover,
        Speaker::Json(Arc::clone(plain)),
        heartbeat,
        max,
    ))
}

fn engine_connection(
    conversation: &Arc<Conversation>,
    socket: Arc<Socket>,
    leftover: &[u8],
) -> Box<Connection> {
    let config = &conversation.hub.config;
    let heartbeat = Heartbeat {
        interval: config.ping_interval,
        timeout: config.ping_timeout,
        handshake: config.handshake_timeout,
    };
    let max = usize::try_from(config.max_payload).unwrap_or(usize::MAX);
    let client = Arc::clone(&conversation.client);
    let speaker = Speaker::SocketIo(Arc::clone(conversation));
    Box::new(Connection::new(client, socket, leftover, speaker, heartbeat, max))
}

/// Serves a client of `/ws` until it is gone.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps each of its arguments twice"
)]
fn keep_plain(mut connection: Box<Connection>, plain: Arc<Plain>) -> impl Future<Output = ()> {
    async move {
        let closing = connection.serve().await;
        Box::pin(plain.hub.close_session(&plain.session, &closing.reason, true)).await;
        metrics::closed(Transport::Ws, closing.code);
    }
}

/// Serves the WebSocket of an Engine.IO session until the client is gone.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps each of its arguments twice"
)]
fn keep_engine(mut connection: Box<Connection>, conversation: Arc<Conversation>) -> impl Future<Output = ()> {
    async move {
        let closing = connection.serve().await;
        Box::pin(conversation.end(&closing.reason)).await;
        metrics::closed(Transport::Websocket, closing.code);
    }
}

/// Serves the WebSocket of an Engine.IO session that began with polling.
pub(crate) async fn serve_engine_socket(
    socket: Arc<Socket>,
    leftover: &[u8],
    conversation: &Arc<Conversation>,
) -> Closing {
    let mut connection = engine_connection(conversation, socket, leftover);
    // One that has entered nothing is not pinged.
    if conversation.has_entered() {
        connection.ping_soon();
    }
    connection.serve().await
}

/// Returns the bytes of what [`keep_engine`] and [`keep_plain`] keep while a connection is idle.
#[cfg(test)]
pub(crate) fn task_sizes() -> (usize, usize) {
    fn size<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }
    (size(keep_engine), size(keep_plain))
}
