//! Which request goes where, and who may make it.

mod open;
mod query;

use std::sync::Arc;

use carillon_auth::credentials::Source;
use carillon_protocol::engineio::{Query, RequestError, Transport as EngineTransport};
use carillon_protocol::ids::EngineId;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};

use crate::accept::{Body, Rate, Slots, empty, error, full, unavailable};
use crate::address::Peer;
use crate::admission::{Shown, Unknown};
use crate::demo::{self, Demo};
use crate::hub::Hub;
use crate::metrics;
use crate::origin::{Origins, Verdict};
use crate::upgrade::{self, Offer};

pub(crate) use open::serve_engine_socket;
pub(crate) use query::{query_value, query_values};

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
            return Box::pin(self.engine(request, peer)).await;
        }
        if is(path, &config.ws_path) {
            return Box::pin(self.plain(request, peer)).await;
        }
        if is(path, &config.sse_path) {
            return Box::pin(self.events(request, peer)).await;
        }
        if let Some(page) = &self.demo {
            match path {
                demo::PATH => return page.page(),
                demo::PUBLISH_PATH => {
                    let hub = Arc::clone(&self.hub);
                    let publish = demo::publish(request, &peer, |publish| async move {
                        hub.publish_for_demo(publish).await
                    });
                    return Box::pin(publish).await;
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
            (EngineTransport::Polling, _) => Box::pin(self.polling(request, peer, query)).await,
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

/// Compares paths; one slash at the end makes no difference.
fn is(path: &str, configured: &str) -> bool {
    path == configured || path.trim_end_matches('/') == configured.trim_end_matches('/')
}

#[cfg(test)]
pub(crate) use open::task_sizes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_makes_no_difference() {
        assert!(is("/socket.io/", "/socket.io/") && is("/socket.io", "/socket.io/") && is("/ws/", "/ws"));
        assert!(!is("/socket.io/x", "/socket.io/") && !is("/", "/ws"));
    }
}
