//! `[edge]`: the address of an edge, its limits and its timing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use carillon_service::config::{bytes, duration};
use serde::Deserialize;

use crate::address::Proxies;
use crate::origin::Origins;

/// The settings of an edge.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Health and metrics; the port of `listen` plus 1000 unless set.
    pub admin: Option<SocketAddr>,
    /// Path of Socket.IO.
    pub path: String,
    /// Path of the JSON protocol over WebSocket.
    pub ws_path: String,
    /// Path of server-sent events.
    pub sse_path: String,
    /// Origins of browsers that may connect, `*` for any; without a list every origin may, but not by cookie.
    pub cors_origin: Vec<String>,
    /// Addresses whose `X-Forwarded-For` counts, single or with a prefix length.
    pub trusted_proxies: Vec<String>,
    /// Engine.IO: time between two pings.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// Engine.IO: time that a pong may take.
    #[serde(with = "duration")]
    pub ping_timeout: Duration,
    /// Plain WebSocket and SSE: time between two pings; a client that misses one is closed at the next.
    #[serde(with = "duration")]
    pub ws_ping_interval: Duration,
    /// Time in which a connection must have sent its request, and a Socket.IO client its CONNECT.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// Largest message from a client.
    #[serde(with = "bytes")]
    pub max_payload: u64,
    /// Connections of this edge.
    pub max_connections: usize,
    /// Connections of one user at this edge; 0 is without limit.
    pub max_per_user: usize,
    /// Connections of one address at this edge; 0 is without limit.
    pub max_per_address: usize,
    /// Namespaces of one Socket.IO connection.
    pub max_namespaces: usize,
    /// Rooms that one connection may join.
    pub max_rooms: usize,
    /// Bytes that may wait for one client.
    #[serde(with = "bytes")]
    pub queue: u64,
    /// New connections per second; 0 is without limit.
    pub accept_rate: u32,
    /// Whether this edge gives clients away when it has clearly more than the others, as after a scale-out.
    pub rebalance: bool,
    /// How many percent more connections than the mean of all edges are clearly more.
    pub rebalance_above: u32,
    /// Connections that are given away in a second, at most.
    pub rebalance_rate: u32,
    /// After SIGTERM: how long new connections are still accepted.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// After SIGTERM: time until the process has ended.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// Warning before a token expires.
    #[serde(with = "duration")]
    pub expiry_warning: Duration,
    /// Serves the page `/demo`.
    pub demo: bool,
    /// The publisher's address that the page shows.
    pub demo_publisher: Option<String>,
    /// TLS for clients.
    pub tls: Option<Tls>,
}

/// `[edge.tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate chain; read again when it changes.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7000)),
            admin: None,
            path: "/socket.io/".to_owned(),
            ws_path: "/ws".to_owned(),
            sse_path: "/sse".to_owned(),
            cors_origin: Vec::new(),
            trusted_proxies: Vec::new(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            ws_ping_interval: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            max_payload: 1_000_000,
            max_connections: 100_000,
            max_per_user: 0,
            max_per_address: 0,
            max_namespaces: 16,
            max_rooms: 1000,
            queue: 1 << 20,
            accept_rate: 0,
            rebalance: true,
            rebalance_above: 20,
            rebalance_rate: 10,
            drain_delay: Duration::from_secs(5),
            drain: Duration::from_secs(30),
            expiry_warning: Duration::from_secs(60),
            demo: false,
            demo_publisher: None,
            tls: None,
        }
    }
}

impl Config {
    /// Returns the first contradiction: the settings of which one has to change, and what was expected of each.
    pub fn contradiction(&self) -> Option<Vec<(&'static str, &'static str)>> {
        let paths = [
            ("path", &self.path),
            ("ws_path", &self.ws_path),
            ("sse_path", &self.sse_path),
        ];
        for (key, path) in paths {
            if !path.starts_with('/') {
                return Some(vec![(key, "a path that begins with a slash")]);
            }
        }
        for (index, (key, path)) in paths.iter().enumerate() {
            let same =
                |(_, other): &&(&str, &String)| other.trim_end_matches('/') == path.trim_end_matches('/');
            if let Some((other, _)) = paths[..index].iter().find(same) {
                let expected = "a path that no other transport has";
                return Some(vec![(key, expected), (other, expected)]);
            }
        }
        if self.drain_delay >= self.drain {
            return Some(vec![
                ("drain_delay", "less than edge.drain"),
                ("drain", "more than edge.drain_delay"),
            ]);
        }
        if self.rebalance && self.rebalance_rate == 0 {
            let expected = "more than zero, or edge.rebalance = false";
            return Some(vec![("rebalance_rate", expected)]);
        }
        for (key, interval) in [
            ("ping_interval", self.ping_interval),
            ("ws_ping_interval", self.ws_ping_interval),
        ] {
            if interval.is_zero() {
                return Some(vec![(key, "more than zero")]);
            }
        }
        None
    }

    /// Returns each entry of a list that means nothing: the list's key, the entry's place, and what was expected.
    pub fn bad_entries(&self) -> Vec<(&'static str, usize, String)> {
        let proxies = (0..).zip(&self.trusted_proxies).filter_map(|(index, entry)| {
            let error = Proxies::parse(&[entry]).err()?;
            Some(("trusted_proxies", index, error.to_string()))
        });
        let origins = (0..).zip(&self.cors_origin).filter_map(|(index, entry)| {
            let error = Origins::parse(&[entry]).err()?;
            Some(("cors_origin", index, error.to_string()))
        });
        proxies.chain(origins).collect()
    }
}
