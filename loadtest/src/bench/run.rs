//! One take: clients connect to a server, events are published, and what the processes used is read.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Machine;
use super::driver::Driver;
use super::servers::{SECRET, Server, Servers};
use crate::load::{self, Kind, Measured, Order, Speech};
use crate::usage::{self, Clock};

/// Connections that are opened at once where the time does not matter.
pub(super) const AT_ONCE: usize = 256;
/// A server that used less than this share of a core is at rest.
const REST: f64 = 0.05;
const LOOK: Duration = Duration::from_millis(250);

/// Which server is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    Epoll,
    Writev,
    Edges { count: usize, speech: Speech },
}

/// Who is connected and what events look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) clients: usize,
    /// All clients are in one room; otherwise each event is for one user.
    pub(super) is_room: bool,
    pub(super) bytes: usize,
}

/// What a take showed.
#[derive(Debug, Clone)]
pub(super) struct Take {
    pub(super) measured: Measured,
    /// CPU seconds of the server, or of all edges.
    pub(super) server: f64,
    /// CPU seconds of the servers with NATS and the publisher.
    pub(super) all: f64,
    /// The share of the server's core that others had.
    pub(super) foreign: f64,
}

impl Take {
    /// Microseconds of the servers' CPU for a delivery.
    pub(super) fn cost(&self) -> f64 {
        self.server * 1e6 / self.measured.delivered.max(1) as f64
    }

    /// Microseconds of all CPU for a delivery.
    pub(super) fn cost_of_all(&self) -> f64 {
        self.all * 1e6 / self.measured.delivered.max(1) as f64
    }

    pub(super) fn per_second(&self) -> f64 {
        self.measured.delivered as f64 / self.measured.seconds.max(0.001)
    }
}

impl Under {
    fn servers<'a>(&self, servers: &'a Servers) -> Vec<&'a Server> {
        match *self {
            Self::Epoll => vec![&servers.epoll.server],
            Self::Writev => vec![&servers.writev.server],
            Self::Edges { count, .. } => servers.edges.iter().take(count).collect(),
        }
    }

    /// Returns the arguments of a load process for this server.
    pub(super) fn load(&self, servers: &Servers, shape: Shape) -> load::Args {
        let (speech, feed): (_, SocketAddr) = match *self {
            Self::Epoll => (Speech::Bare, servers.epoll.feed),
            Self::Writev => (Speech::Bare, servers.writev.feed),
            Self::Edges { speech, .. } => (speech, servers.nats.address),
        };
        load::Args {
            speech,
            servers: self
                .servers(servers)
                .into_iter()
                .map(|server| server.address)
                .collect(),
            feed,
            clients: shape.clients,
            first_user: 0,
            room: shape.is_room.then(|| "room:bench".to_owned()),
            bytes: shape.bytes,
            secret: SECRET.to_owned(),
        }
    }
}

/// Connects clients, and returns the takes of some orders.
pub(super) fn take(
    machine: &Machine,
    servers: &Servers,
    under: Under,
    shape: Shape,
    orders: &[Order],
) -> anyhow::Result<Vec<Take>> {
    let (mut driver, _) = Driver::connected(machine.load_core, &under.load(servers, shape), AT_ONCE)?;
    rest(servers)?;
    let warm = Order::Paced {
        kind: Kind::Signal,
        rate: 20_000.0 / deliveries(shape),
        seconds: 0.5,
    };
    driver.measure(&warm)?;
    let pids: Vec<u32> = under
        .servers(servers)
        .iter()
        .map(|server| server.process.pid())
        .collect();
    let behind = [servers.nats.process.pid(), servers.publisher.pid()];
    let mut takes = Vec::new();
    for order in orders {
        let clock = Clock::read(machine.server_core)?;
        let (server, others) = (total(&pids)?, total(&behind)?);
        let measured = driver.measure(order)?;
        let server = total(&pids)? - server;
        let others = match under {
            Under::Edges { .. } => total(&behind)? - others,
            Under::Epoll | Under::Writev => 0.0,
        };
        let foreign = clock.foreign_since(server)?;
        takes.push(Take {
            measured,
            server,
            all: server + others,
            foreign,
        });
    }
    Ok(takes)
}

/// Returns how many deliveries an event means.
pub(super) fn deliveries(shape: Shape) -> f64 {
    if shape.is_room { shape.clients as f64 } else { 1.0 }
}

fn total(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| usage::cpu(*pid)).sum()
}

/// Waits until all servers are at rest: connecting and leaving have their own work afterwards.
pub(super) fn rest(servers: &Servers) -> anyhow::Result<()> {
    let edges = servers.edges.iter().map(|edge| edge.process.pid());
    let others = [&servers.nats.process, &servers.publisher, &servers.router].map(|process| process.pid());
    let pids: Vec<u32> = edges.chain(others).collect();
    let begun = Instant::now();
    let mut before = total(&pids)?;
    while begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(LOOK);
        let now = total(&pids)?;
        if now - before < REST * LOOK.as_secs_f64() {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}
