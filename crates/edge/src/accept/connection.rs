//! One connection: TLS where it is set up, then HTTP/1.1.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Body, Door, Seat, unavailable};
use crate::address::Peer;

/// Bytes of a request's head, and of a response that hyper holds.
const MAX_BUFFER: usize = 32 * 1024;

/// A peer that takes nothing for so long is gone; more than any ping takes.
const UNSENT: Duration = Duration::from_secs(60);

/// Time for a connection past the bound to send its request and take the refusal.
const REFUSAL: Duration = Duration::from_secs(3);

/// Time for a connection that is new when the door closes to send its request.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// Serves one connection until it ends.
pub(super) async fn run<S, F>(
    stream: TcpStream,
    address: SocketAddr,
    door: &Door,
    service: S,
    seat: Seat,
    closing: CancellationToken,
) where
    S: Fn(Request<Incoming>, Peer) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    prepare(&stream);
    let tls = door.tls.is_some();
    let answer = |mut request: Request<Incoming>| {
        let peer = door.proxies.resolve(address.ip(), tls, request.headers());
        request.extensions_mut().insert(seat.clone());
        service(request, peer).map(Ok::<_, Infallible>)
    };
    let Some(acceptor) = &door.tls else {
        return http(stream, door.handshake_timeout, &closing, answer).await;
    };
    match tokio::time::timeout(door.handshake_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => http(stream, door.handshake_timeout, &closing, answer).await,
        Ok(Err(error)) => tracing::debug!(%error, peer = %address, "tls handshake failed"),
        Err(_) => tracing::debug!(peer = %address, "tls handshake took too long"),
    }
}

/// Tells one connection past the bound to come back later.
pub(super) async fn refuse(stream: TcpStream, door: &Door) {
    prepare(&stream);
    let answer = |_request| {
        let retry_after = fastrand::u32(1..=5);
        let mut response = unavailable(
            "overloaded",
            "this edge has as many connections as it may",
            retry_after,
        );
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        ready(Ok::<_, Infallible>(response))
    };
    let open = CancellationToken::new();
    let refusal = async {
        match &door.tls {
            None => http(stream, REFUSAL, &open, answer).await,
            Some(acceptor) => match acceptor.accept(stream).await {
                Ok(stream) => http(stream, REFUSAL, &open, answer).await,
                Err(error) => tracing::debug!(%error, "tls handshake failed"),
            },
        }
    };
    if tokio::time::timeout(REFUSAL, refusal).await.is_err() {
        tracing::debug!("a connection past the bound was dropped without an answer");
    }
}

fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // Without it small frames wait for the peer's delayed acknowledgement; a failure costs only that.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(UNSENT));
}

async fn http<I, A, F>(io: I, header_timeout: Duration, closing: &CancellationToken, answer: A)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let first = Notify::new();
    let answer = |request| {
        first.notify_one();
        answer(request)
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .half_close(false)
        .pipeline_flush(false)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(io), service_fn(answer))
        .with_upgrades();
    let mut connection = pin!(connection);
    // A connection that came in just before the end may ask once.
    let closing = async {
        closing.cancelled().await;
        let _ = tokio::time::timeout(LAST_REQUEST, first.notified()).await;
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = closing => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
