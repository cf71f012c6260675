//! A balancer without sticky sessions: every single request goes to the next server.

mod forward;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the proxy does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Passes it to the next server that accepts a connection.
    Forward,
    /// Passes it to this server.
    To(usize),
    /// Passes it on, reads the response to its end and closes the client's connection without it.
    LoseResponse,
    /// Passes it to the next server and, once answered, again to the one after; the client gets the
    /// second response.
    Repeat,
    /// Answers with this status itself.
    Refuse(u16),
}

/// A request as the proxy sees it, before it is passed on.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counts all requests from 0.
    pub number: usize,
    /// GET, POST and so on.
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// The client's headers.
    pub headers: HeaderMap,
    /// Whether it asks for a WebSocket.
    pub upgrade: bool,
}

type Plan = Arc<dyn Fn(&Seen) -> Action + Send + Sync>;

/// The proxy; it ends, with all its connections, when it is dropped.
pub struct RoundRobin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    upstreams: Mutex<Vec<Upstream>>,
    plan: Mutex<Plan>,
    next: AtomicUsize,
    number: AtomicUsize,
    stop: CancellationToken,
    /// Ends the connections that are open now; replaced when they are cut.
    connections: Mutex<CancellationToken>,
}

#[derive(Clone)]
struct Upstream {
    addr: SocketAddr,
    served: Arc<AtomicUsize>,
}

impl RoundRobin {
    /// Starts a proxy on a free port of 127.0.0.1 in front of these servers.
    pub async fn start(upstreams: impl IntoIterator<Item = SocketAddr>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.unwrap_or_else(|e| panic!("cannot bind the proxy: {e}"));
        let addr = listener
            .local_addr()
            .unwrap_or_else(|e| panic!("the proxy has no address: {e}"));
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            upstreams: Mutex::default(),
            plan: Mutex::new(Arc::new(|_| Action::Forward)),
            next: AtomicUsize::new(0),
            number: AtomicUsize::new(0),
            connections: Mutex::new(stop.child_token()),
            stop: stop.clone(),
        });
        let proxy = Self {
            addr,
            shared,
            _stop: stop.drop_guard(),
        };
        proxy.set_upstreams(upstreams);
        tokio::spawn(accept(listener, proxy.shared.clone()));
        proxy
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// `ws://127.0.0.1:PORT` with this path and query.
    pub fn ws_url(&self, target: &str) -> String {
        format!("ws://{}{target}", self.addr)
    }

    /// Decides about each request from now on.
    pub fn plan(&self, plan: impl Fn(&Seen) -> Action + Send + Sync + 'static) {
        *self.shared.plan.lock() = Arc::new(plan);
    }

    /// Replaces the servers, and counts what they serve anew.
    pub fn set_upstreams(&self, upstreams: impl IntoIterator<Item = SocketAddr>) {
        let upstreams = upstreams.into_iter().map(|addr| Upstream {
            addr,
            served: Arc::default(),
        });
        *self.shared.upstreams.lock() = upstreams.collect();
    }

    /// How many requests each server was sent.
    pub fn served(&self) -> Vec<usize> {
        self.shared
            .upstreams
            .lock()
            .iter()
            .map(|one| one.served.load(Ordering::Relaxed))
            .collect()
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.shared.number.load(Ordering::Relaxed)
    }

    /// Cuts every connection that is open now, in both directions.
    pub fn cut(&self) {
        let fresh = self.shared.stop.child_token();
        std::mem::replace(&mut *self.shared.connections.lock(), fresh).cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, peer)) = accepted {
            let open = shared.connections.lock().clone();
            tokio::spawn(serve(stream, peer, shared.clone(), open));
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, open: CancellationToken) {
    // A failure here only delays small packets.
    let _ = stream.set_nodelay(true);
    let handler = {
        let open = open.clone();
        service_fn(move |request| forward::handle(request, peer, shared.clone(), open.clone()))
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), handler)
        .with_upgrades();
    tokio::select! {
        () = open.cancelled() => {}
        // Clients come and go as they like; what they made of it is the test's to judge.
        _ = connection => {}
    }
}

impl Shared {
    /// The servers in the order in which this request tries them.
    fn candidates(&self, fixed: Option<usize>) -> Vec<Upstream> {
        let mut upstreams = self.upstreams.lock().clone();
        match fixed {
            Some(i) => upstreams.get(i).cloned().into_iter().collect(),
            None if upstreams.is_empty() => upstreams,
            None => {
                let turn = self.next.fetch_add(1, Ordering::Relaxed) % upstreams.len();
                upstreams.rotate_left(turn);
                upstreams
            }
        }
    }
}
