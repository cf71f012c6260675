//! The door of an edge: it accepts connections, speaks TLS and HTTP/1.1 on them, and bounds both.
//!
//! Past the bound a connection is still accepted, and told to come back later: a full backlog would leave
//! clients without an answer. A connection counts until its socket is closed, also after an upgrade, so whoever
//! takes the socket over keeps its [`Seat`].

mod answer;
mod connection;
mod rate;
mod slots;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::{Peer, Proxies};

pub(crate) use answer::{Body, Broken, empty, error, full, json, read, stream, unavailable};
pub(crate) use rate::Rate;
pub(crate) use slots::{Places, Slot, Slots};

/// Connections that the kernel holds until they are accepted.
pub(crate) const BACKLOG: u32 = 4096;

/// Connections past the bound that are being told so; further ones are dropped.
const MAX_REFUSALS: usize = 512;

/// First and longest pause after the system refused to accept.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// What the door needs to know.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) tls: Option<TlsAcceptor>,
    /// Connections at a time.
    pub(crate) max_connections: usize,
    /// Time for the TLS handshake, and for the head of each request.
    pub(crate) handshake_timeout: Duration,
}

/// How a door closes.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    /// No new connections and no further requests; running ones end by themselves.
    pub(crate) accepting: CancellationToken,
    /// Running requests and TLS connections are cut off.
    pub(crate) everything: CancellationToken,
}

/// A connection's place among those that the edge may have; found in a request's extensions.
#[derive(Clone)]
pub(crate) struct Seat {
    tasks: TaskTracker,
    stop: CancellationToken,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Seat {
    /// Runs a task that belongs to the connection until it is done or the edge stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let seat = self.clone();
        self.tasks.spawn(async move {
            seat.stop.run_until_cancelled(task).await;
        });
    }
}

/// Answers requests until it is stopped; returns when the last connection has ended or was cut off.
///
/// Sockets that were upgraded are not waited for, except where a task speaks TLS for them.
pub(crate) async fn serve<S, F>(listener: TcpListener, door: Door, service: S, stop: Stop)
where
    S: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(door.max_connections.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let tasks = TaskTracker::new();
    let enter = |(stream, address): (TcpStream, SocketAddr)| {
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => Ok(place),
            Err(_) => match Arc::clone(&refusals).try_acquire_owned() {
                Ok(refusal) => Err(refusal),
                // Whoever comes in such a flood has no time for an answer.
                Err(_) => return,
            },
        };
        let (door, service, stop) = (door.clone(), service.clone(), stop.clone());
        let inner = tasks.clone();
        tasks.spawn(async move {
            let everything = stop.everything.clone();
            let run = async {
                match place {
                    Ok(place) => {
                        let seat = Seat {
                            tasks: inner,
                            stop: stop.everything,
                            _place: Arc::new(place),
                        };
                        let run = connection::run(stream, address, &door, service, seat, stop.accepting);
                        Box::pin(run).await;
                    }
                    Err(_refusal) => Box::pin(connection::refuse(stream, &door)).await,
                }
            };
            everything.run_until_cancelled(run).await;
        });
    };
    let closing = async {
        tokio::select! {
            () = stop.accepting.cancelled() => {}
            () = stop.everything.cancelled() => {}
        }
    };
    tokio::pin!(closing);
    let mut pause = PAUSES.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                pause = PAUSES.0;
                enter(connection);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of file descriptors or memory: the waiting connections stay in the backlog until some are
                // free again.
                tracing::warn!(%error, "cannot accept connections");
                tokio::select! {
                    () = &mut closing => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
    // Closing the listener would reset the connections that it holds already.
    while let Some(Ok(connection)) = listener.accept().now_or_never() {
        enter(connection);
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
pub(crate) mod tests;
