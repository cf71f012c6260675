//! From an HTTP request to a WebSocket: the handshake, and the socket below it.

mod bridge;

use std::time::Duration;

use bytes::Bytes;
use carillon_protocol::websocket::handshake::{Handshake, HandshakeError, SUBPROTOCOL};
use hyper::header::{ALLOW, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL};
use hyper::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::accept::{Body, Seat, empty, error};
use crate::socket::Socket;

/// Time in which the client must take the answer to its request.
const SWITCH: Duration = Duration::from_secs(10);

/// Why a connection did not become a WebSocket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    #[error("the connection ended before it was upgraded")]
    Ended(#[source] hyper::Error),
    #[error("the client did not take the answer to its upgrade in time")]
    Timeout,
    #[error("there is no socket for this connection")]
    Pair(#[source] std::io::Error),
    #[error("the request did not come in by the edge's own door")]
    Foreign,
}

/// A request to speak WebSocket, checked and not answered yet.
pub(crate) struct Offer {
    pub(crate) handshake: Handshake,
    upgrade: OnUpgrade,
    seat: Seat,
}

/// A connection whose answer is on its way.
#[must_use = "the connection ends when this is dropped"]
pub(crate) struct Pending {
    upgrade: OnUpgrade,
    seat: Seat,
}

/// A connection that speaks WebSocket from now on.
pub(crate) struct Upgraded {
    pub(crate) socket: Socket,
    /// What the client sent behind its request; a copy, since hyper's buffer is much larger than that.
    pub(crate) leftover: Bytes,
    /// To be kept as long as the socket.
    pub(crate) seat: Seat,
}

/// Checks a request; what it is refused with is an answer for the client.
#[expect(
    clippy::result_large_err,
    reason = "the error is the response itself, made once a connection"
)]
pub(crate) fn offer<B: hyper::body::Body>(request: &mut Request<B>) -> Result<Offer, Response<Body>> {
    if request.method() != Method::GET {
        let mut response = error(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "a websocket begins with GET",
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET"));
        return Err(response);
    }
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()));
    let handshake = Handshake::read(headers).map_err(refusal)?;
    if request.version() != Version::HTTP_11 || !request.body().is_end_stream() {
        let message = "a websocket begins with an HTTP/1.1 request without a body";
        return Err(error(StatusCode::BAD_REQUEST, "bad_handshake", message));
    }
    let seat = request.extensions().get::<Seat>().cloned();
    let seat = seat.expect("the door gives every request its seat");
    Ok(Offer {
        handshake,
        upgrade: hyper::upgrade::on(request),
        seat,
    })
}

fn refusal(reason: HandshakeError) -> Response<Body> {
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::BAD_REQUEST);
    if status != StatusCode::UPGRADE_REQUIRED {
        return error(status, "bad_handshake", &reason.to_string());
    }
    let mut response = error(status, "upgrade_required", &reason.to_string());
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

impl Offer {
    /// Returns Carillon's subprotocol if the client offers it.
    pub(crate) fn carillon(&self) -> Option<&'static str> {
        self.handshake.offers_carillon().then_some(SUBPROTOCOL)
    }

    /// Accepts a client of Socket.IO, for which subprotocols have no meaning.
    pub(crate) fn accept_engine(self) -> (Response<Body>, Pending) {
        let subprotocol = self.handshake.any_subprotocol().map(str::to_owned);
        self.accept(subprotocol.as_deref())
    }

    /// Returns the answer that accepts, and what waits until it was sent.
    pub(crate) fn accept(self, subprotocol: Option<&str>) -> (Response<Body>, Pending) {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let accept = HeaderValue::try_from(self.handshake.accept).expect("base64 is a header value");
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(name) = subprotocol.and_then(|name| HeaderValue::from_str(name).ok()) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
        }
        (
            response,
            Pending {
                upgrade: self.upgrade,
                seat: self.seat,
            },
        )
    }
}

impl Pending {
    /// Waits until the client has been answered, and returns the socket.
    pub(crate) async fn open(self) -> Result<Upgraded, UpgradeError> {
        let upgraded = tokio::time::timeout(SWITCH, self.upgrade).await;
        let upgraded = upgraded
            .map_err(|_| UpgradeError::Timeout)?
            .map_err(UpgradeError::Ended)?;
        let seat = self.seat;
        let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => {
                let socket = Socket::Tcp(parts.io.into_inner());
                return Ok(Upgraded {
                    socket,
                    leftover: Bytes::copy_from_slice(&parts.read_buf),
                    seat,
                });
            }
            Err(upgraded) => upgraded,
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() else {
            return Err(UpgradeError::Foreign);
        };
        let (ours, theirs) = UnixStream::pair().map_err(UpgradeError::Pair)?;
        seat.spawn(bridge::run(parts.io.into_inner(), theirs));
        Ok(Upgraded {
            socket: Socket::Pair(ours),
            leftover: Bytes::copy_from_slice(&parts.read_buf),
            seat,
        })
    }
}

#[cfg(test)]
mod tests;
