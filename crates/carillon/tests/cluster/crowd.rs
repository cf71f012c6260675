//! The clients: half of them stock `socket.io-client`, half plain WebSockets, all walking round the edges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use carillon_testkit::clients::{Driver, Fleet, FleetPlan, Kind, Ledger, Member, SioOptions, Status, Watch};
use serde_json::json;

use crate::stage::{Stage, user_token};

/// A client gives an edge that does not answer this long before it tries the next one.
const CONNECT: Duration = Duration::from_secs(5);
/// Nothing more is expected once nothing has come for so long.
const QUIET: Duration = Duration::from_secs(60);

/// All clients, with what each of them wrote down.
pub(crate) struct Crowd {
    socketio: Fleet,
    plain: Fleet,
    size: usize,
    rooms: Vec<String>,
}

/// What both halves counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    pub(crate) silence_ms: u64,
    pub(crate) quietest: String,
    pub(crate) received: u64,
    pub(crate) missing: u64,
    pub(crate) duplicates: u64,
    pub(crate) disordered: u64,
}

impl Crowd {
    /// Connects `size` clients, each in all shared rooms and in its own.
    pub(crate) async fn gather(stage: &Stage, edges: &[SocketAddr], size: usize, rooms: &[String]) -> Self {
        assert_eq!(stage.edges.len().min(edges.len()), edges.len());
        let (one, two) = tokio::join!(Driver::start(), Driver::start());
        let options = SioOptions::new()
            .transports(&["websocket"])
            .with("timeout", json!(CONNECT.as_millis() as u64));
        let half = size / 2;
        let member = |index: usize| {
            let name = name(index);
            let member = Member::new(&name, user_token(&name));
            rooms.iter().fold(member, |member, room| {
                if index < half {
                    member.join("join", json!([room]))
                } else {
                    member.topic(room)
                }
            })
        };
        let urls = |scheme: &str, path: &str| {
            edges
                .iter()
                .map(|edge| format!("{scheme}://{edge}{path}"))
                .collect()
        };
        let socketio = one.fleet(FleetPlan {
            kind: Kind::Sio,
            urls: urls("http", "/"),
            options: options.clone(),
            members: (0..half).map(member).collect(),
        });
        let plain = two.fleet(FleetPlan {
            kind: Kind::Ws,
            urls: urls("ws", "/ws"),
            options,
            members: (half..size).map(member).collect(),
        });
        let crowd = Self {
            socketio,
            plain,
            size,
            rooms: rooms.to_vec(),
        };
        for fleet in [&crowd.socketio, &crowd.plain] {
            fleet.all_connected(crate::LIMIT).await;
        }
        crowd
    }

    /// Every room in which numbers shall come, with how many clients hear it.
    pub(crate) fn audience(&self) -> BTreeMap<String, usize> {
        let personal = (0..self.size).map(|index| (format!("user:{}", name(index)), 1));
        self.rooms
            .iter()
            .map(|room| (room.clone(), self.size))
            .chain(personal)
            .collect()
    }

    pub(crate) async fn status(&self) -> [Status; 2] {
        tokio::join!(self.socketio.status(), self.plain.status()).into()
    }

    /// Tells whether all are connected within a time; otherwise how things stand.
    pub(crate) async fn is_connected(&self, limit: Duration) -> Result<(), String> {
        let connected = carillon_testkit::wait::within(limit, async || {
            let all = self.status().await;
            all.iter()
                .all(|status| status.connected == status.members)
                .then_some(())
        });
        match connected.await {
            Some(()) => Ok(()),
            None => Err(format!("{:?}", self.status().await)),
        }
    }

    /// Counts what came so far; the longest silence is that since the last call.
    pub(crate) async fn count(&self) -> Count {
        let (one, two) = tokio::join!(self.socketio.watch(), self.plain.watch());
        Count::of(one, two)
    }

    /// Waits until as many events as expected have come, or nothing comes any more.
    pub(crate) async fn settle(&self, expected: u64) {
        let (mut last, mut since) = (0, Instant::now());
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        loop {
            tick.tick().await;
            let count = self.count().await;
            if count.received.saturating_sub(count.duplicates) >= expected && count.missing == 0 {
                return;
            }
            if count.received != last {
                (last, since) = (count.received, Instant::now());
            }
            if since.elapsed() > QUIET {
                return;
            }
        }
    }

    /// What each client wrote down.
    pub(crate) async fn ledger(&self) -> Vec<Ledger> {
        let (mut one, two) = tokio::join!(self.socketio.ledger(), self.plain.ledger());
        one.extend(two);
        one
    }

    /// Closes every client.
    pub(crate) async fn leave(&self) {
        tokio::join!(self.socketio.close_all(), self.plain.close_all());
    }
}

impl Count {
    fn of(one: Watch, two: Watch) -> Self {
        let (silence_ms, quietest) = (one.silence_ms, one.quietest).max((two.silence_ms, two.quietest));
        Self {
            silence_ms,
            quietest,
            received: one.received + two.received,
            missing: one.missing + two.missing,
            duplicates: one.duplicates + two.duplicates,
            disordered: one.disordered + two.disordered,
        }
    }
}

fn name(index: usize) -> String {
    format!("m{index}")
}
