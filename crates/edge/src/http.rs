//! Which request goes where, and who may make it.

use std::sync::Arc;

use carillon_auth::credentials::Source;
use carillon_protocol::engineio::{Query, RequestError, Transport as EngineTransport};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::EngineId;
use carillon_protocol::session::Transport;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};

use crate::accept::{Body, Rate, Seat, Slot, Slots, empty, error, full, unavailable};
use crate::address::Peer;
use crate::admission::{Shown, Unknown};
use crate::client::{Client, Closing};
use crate::conversation::Conversation;
use crate::demo::{self, Demo};
use crate::entrance::Refused;
use crate::frame::Wire;
use crate::hub::Hub;
use crate::metrics;
use crate::origin::{Origins, Verdict};
use crate::outbox::Sink;
use crate::plain::Plain;
use crate::session::Session;
use crate::socket::Socket;
use crate::transport::websocket::{self, Connection, Heartbeat, Speaker};
use crate::upgrade::{self, Offer};

/// The front of an edge.
pub(crate) struct Front {
    pub(crate) hub: Arc<Hub>,
    pub(crate) origins: Origins,
    pub(crate) slots: Slots,
    pub(crate) rate: Rate,
    /// The page for trying things out, in development.
    pub(crate) demo: Option<Demo>,
}

impl Front {
    /// Answers a request.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let config = &self.hub.config;
        let path = request.uri().path();
        if is(path, &config.path) {
            return self.engine(request, peer).await;
        }
        if is(path, &config.ws_path) {
            return self.plain(request, peer).await;
        }
        if is(path, &config.sse_path) {
            return self.events(request, peer).await;
        }
        if let Some(page) = &self.demo {
            match path {
                demo::PATH => return page.page(),
                demo::PUBLISH_PATH => {
                    let hub = Arc::clone(&self.hub);
                    return demo::publish(request, &peer, |publish| async move {
                        hub.publish_for_demo(publish).await
                    })
                    .await;
                }
                _ => {}
            }
        }
        error(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing at this path",
        )
    }

    /// Engine.IO: a new session, or a request of one that stands.
    async fn engine(self: Arc<Self>, mut request: Request<Incoming>, peer: Peer) -> Response<Body> {
        if request.method() == Method::OPTIONS {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            self.origins
                .allow_preflight(request.headers(), response.headers_mut());
            return response;
        }
        let query = match Query::read(request.uri().query().unwrap_or_default()) {
            Ok(query) => query,
            Err(error) => return self.engine_error(&request, error),
        };
        match (query.transport, &query.sid) {
            (EngineTransport::Polling, _) => self.polling(request, peer, query).await,
            (EngineTransport::WebSocket, Some(sid)) => match sid.parse() {
                Ok(sid) => self.upgrade(request, peer, sid),
                Err(_) => self.engine_error(&request, RequestError::UnknownSession),
            },
            (EngineTransport::WebSocket, None) => {
                if request.method() != Method::GET {
                    return self.engine_error(&request, RequestError::BadHandshakeMethod);
                }
                if !request.headers().contains_key(UPGRADE) {
                    return self.engine_error(&request, RequestError::BadRequest);
                }
                if let Err(refused) = self.admit_new() {
                    return refused;
                }
                match self.offer(&mut request, &peer) {
                    Ok(offer) => self.open_engine(offer, request, peer),
                    Err(refused) => refused,
                }
            }
        }
    }

    /// A refusal with the protocol's own code, readable by pages of allowed origins.
    pub(crate) fn engine_error(&self, request: &Request<Incoming>, refused: RequestError) -> Response<Body> {
        self.refusal(request.headers(), refused)
    }

    /// The same, where the request itself is used up.
    pub(crate) fn refusal(&self, request: &HeaderMap, refused: RequestError) -> Response<Body> {
        let mut response = Response::new(full(refused.body()));
        *response.status_mut() = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::BAD_REQUEST);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.origins.allow(request, response.headers_mut());
        response
    }

    /// Checks what a new session of any transport needs.
    #[expect(
        clippy::result_large_err,
        reason = "the error is the response itself, made once a connection"
    )]
    pub(crate) fn admit_new(&self) -> Result<(), Response<Body>> {
        if self.hub.is_draining() {
            return Err(unavailable("draining", "this edge is about to stop", 1));
        }
        self.rate.allow().map_err(|retry| {
            metrics::error("overloaded");
            unavailable("overloaded", "too many new connections", retry.0)
        })
    }

    /// Checks a WebSocket request and its origin.
    #[expect(
        clippy::result_large_err,
        reason = "the error is the response itself, made once a connection"
    )]
    pub(crate) fn offer(
        &self,
        request: &mut Request<Incoming>,
        peer: &Peer,
    ) -> Result<Offer, Response<Body>> {
        self.check_origin(request, peer)?;
        upgrade::offer(request)
    }

    #[expect(
        clippy::result_large_err,
        reason = "the error is the response itself, made once a connection"
    )]
    pub(crate) fn check_origin(
        &self,
        request: &Request<Incoming>,
        peer: &Peer,
    ) -> Result<(), Response<Body>> {
        let shown = Shown::of(request.headers(), request.uri().query());
        let credential = shown.credential(None, &self.hub.auth.cookie);
        let by_cookie = credential.is_some_and(|credential| credential.source() == Source::Cookie);
        match self.origins.decide(request.headers(), by_cookie, peer) {
            Verdict::Allowed => Ok(()),
            Verdict::Forbidden => {
                metrics::error("forbidden");
                Err(error(
                    StatusCode::FORBIDDEN,
                    "bad_origin",
                    "connections from this origin are not allowed",
                ))
            }
        }
    }

    /// Opens an Engine.IO session over WebSocket.
    fn open_engine(self: Arc<Self>, offer: Offer, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let Some(slot) = self.slots.address(peer.address) else {
            metrics::error("too_many_connections");
            return unavailable("too_many_connections", "too many connections of this address", 5);
        };
        let shown = Shown::of(request.headers(), request.uri().query());
        let (response, pending) = offer.accept(None);
        tokio::spawn(async move {
            let Ok(upgraded) = pending.open().await else {
                return;
            };
            let hub = &self.hub;
            let socket = Arc::new(upgraded.socket);
            let limit = usize::try_from(hub.config.queue).unwrap_or(usize::MAX);
            let sink = Sink::Socket(Arc::clone(&socket));
            let client = Arc::new(Client::new(Wire::SocketIo, Transport::Websocket, sink, limit));
            let id = EngineId::of_edge(hub.id, rand::random());
            let conversation =
                Conversation::new(Arc::clone(hub), Arc::clone(&client), shown, self.slots.clone());
            client.send_text(&hub.open_packet(id, &[]));
            metrics::opened(Transport::Websocket);
            let connection = engine_connection(&conversation, socket, &upgraded.leftover);
            // A task of its own: this one has room for all that an upgrade needs.
            tokio::spawn(keep_engine(connection, conversation, (slot, upgraded.seat)));
        });
        response
    }

    /// `/ws`: the token is checked before the upgrade.
    async fn plain(self: Arc<Self>, mut request: Request<Incoming>, peer: Peer) -> Response<Body> {
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
            let limit = usize::try_from(hub.config.queue).unwrap_or(usize::MAX);
            let sink = Sink::Socket(Arc::clone(&socket));
            let client = Arc::new(Client::new(Wire::Json, Transport::Ws, sink, limit));
            metrics::opened(Transport::Ws);
            match Plain::open(hub, &client, user, since, &[]).await {
                Ok(plain) => {
                    let session = Arc::clone(&plain.session);
                    let connection = plain_connection(plain, socket, &upgraded.leftover);
                    // A task of its own: this one has room for all that opening a session needs.
                    tokio::spawn(keep_plain(
                        connection,
                        Arc::clone(hub),
                        session,
                        (slot, place, upgraded.seat),
                    ));
                }
                Err(refused) => {
                    let closing = closing_of(refused);
                    websocket::goodbye(&client, &socket, &closing).await;
                    metrics::closed(Transport::Ws, closing.code);
                }
            }
        });
        response
    }
}

fn plain_connection(plain: Plain, socket: Arc<Socket>, leftover: &[u8]) -> Box<Connection> {
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
        Speaker::Json(plain),
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

/// Serves a client of `/ws` until it is gone; `_held` goes with it.
async fn keep_plain(
    mut connection: Box<Connection>,
    hub: Arc<Hub>,
    session: Arc<Session>,
    _held: (Slot, Option<Slot>, Seat),
) {
    let closing = connection.serve().await;
    Box::pin(hub.close_session(&session, &closing.reason, true)).await;
    metrics::closed(Transport::Ws, closing.code);
}

/// Serves the WebSocket of an Engine.IO session until the client is gone; `_held` goes with it.
async fn keep_engine(mut connection: Box<Connection>, conversation: Arc<Conversation>, _held: (Slot, Seat)) {
    let closing = connection.serve().await;
    Box::pin(conversation.end(&closing.reason)).await;
    metrics::closed(Transport::Websocket, closing.code);
}

/// Serves the WebSocket of an Engine.IO session that began with polling.
pub(crate) async fn serve_engine_socket(
    socket: Arc<Socket>,
    leftover: &[u8],
    conversation: &Arc<Conversation>,
) -> Closing {
    engine_connection(conversation, socket, leftover).serve().await
}

pub(crate) fn closing_of(refused: Refused) -> Closing {
    match refused {
        Refused::Client { code, message } => Closing {
            code: 1008,
            reason: format!("{code}: {message}"),
            flush: true,
        },
        Refused::Unavailable => Closing {
            code: 1013,
            reason: "unavailable: try again".to_owned(),
            flush: true,
        },
    }
}

impl Hub {
    /// Checks the token of a plain client, or returns the refusal.
    pub(crate) async fn identify_plain(
        &self,
        shown: &Shown,
    ) -> Result<Arc<crate::user::User>, Response<Body>> {
        let Some(namespace) = self.namespace("/") else {
            return Err(error(
                StatusCode::NOT_FOUND,
                "unknown_namespace",
                "there is no main namespace here",
            ));
        };
        self.identify(namespace, shown, None)
            .await
            .map_err(|unknown| match unknown {
                Unknown::Unavailable => unavailable("unavailable", "the token cannot be checked now", 2),
                unknown => {
                    metrics::error("unauthorized");
                    error(
                        StatusCode::UNAUTHORIZED,
                        "unauthorized",
                        &unknown.text(self, namespace),
                    )
                }
            })
    }

    /// Returns the packet that opens an Engine.IO session.
    pub(crate) fn open_packet(&self, id: EngineId, upgrades: &[&str]) -> Vec<u8> {
        let milliseconds =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        carillon_protocol::engineio::Open {
            sid: id.as_str(),
            upgrades: upgrades.to_vec(),
            ping_interval: milliseconds(self.config.ping_interval),
            ping_timeout: milliseconds(self.config.ping_timeout),
            max_payload: self.config.max_payload,
        }
        .encode()
    }
}

impl Hub {
    /// Publishes what the demo page was asked to, as a backend team does.
    async fn publish_for_demo(&self, publish: demo::Publish) -> Result<String, String> {
        let room = publish.room;
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let body = serde_json::json!({ "event": publish.event, "data": publish.data, "id": id }).to_string();
        let (subjects, main) = (self.bus.subjects(), carillon_protocol::names::Namespace::main());
        if publish.ephemeral {
            let sent = self
                .bus
                .publish(&subjects.signal(&main, &room), &Headers::new(), body.into())
                .await;
            return sent.map(|()| id).map_err(|error| error.to_string());
        }
        let stored = self
            .bus
            .store(&subjects.publish(&main, &room), &Headers::new(), body.into())
            .await;
        stored.map(|_| id).map_err(|error| error.to_string())
    }
}

/// Compares paths; one slash at the end makes no difference.
fn is(path: &str, configured: &str) -> bool {
    path == configured || path.trim_end_matches('/') == configured.trim_end_matches('/')
}

/// Returns a decoded value of a query.
pub(crate) fn query_value(query: Option<&str>, key: &str) -> Option<String> {
    query_values(query, key).into_iter().next()
}

/// Returns all decoded values of a query.
pub(crate) fn query_values(query: Option<&str>, key: &str) -> Vec<String> {
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    let values = pairs
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value.replace('+', " "));
    values
        .filter_map(|value| {
            Some(
                percent_encoding::percent_decode_str(&value)
                    .decode_utf8()
                    .ok()?
                    .into_owned(),
            )
        })
        .collect()
}

/// Returns the bytes of what [`keep_engine`] and [`keep_plain`] keep while a connection is idle.
#[cfg(test)]
pub(crate) fn task_sizes() -> (usize, usize) {
    fn size_3<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }
    fn size_4<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    (size_3(keep_engine), size_4(keep_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_makes_no_difference() {
        assert!(is("/socket.io/", "/socket.io/") && is("/socket.io", "/socket.io/") && is("/ws/", "/ws"));
        assert!(!is("/socket.io/x", "/socket.io/") && !is("/", "/ws"));
    }

    #[test]
    fn query_values_are_decoded() {
        assert_eq!(
            query_values(Some("topic=a%3Ab&topic=c+d&x=1"), "topic"),
            ["a:b", "c d"]
        );
        assert_eq!(query_value(None, "since"), None);
    }
}
