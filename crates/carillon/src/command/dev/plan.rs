//! What `dev` runs: the settings, with defaults that need no setting at all.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use carillon_auth::{ApiKeyConfig, Scope, Secret};
use carillon_service::config::{ConfigError, Loaded, Origins};
use carillon_service::settings;
use carillon_service::telemetry::LogFilter;
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::Args;
use crate::config::{self, Config, Problems};
use crate::service::Kind;

/// The secret of tokens and the API key, where none are set; nothing but `dev` has any.
pub(super) const SECRET: &str = "dev-secret";
pub(super) const API_KEY: &str = "dev-key";

/// Clients come back at once to a cluster on the same machine.
const DRAIN: Duration = Duration::from_secs(2);

/// The settings of all services, and of each edge.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) edges: Vec<Config>,
    /// Where the nats-server listens; `None` if another one is used.
    pub(super) nats: Option<SocketAddr>,
    /// Tokens are signed with [`SECRET`].
    pub(super) is_default_secret: bool,
}

impl Plan {
    pub(super) fn new(args: &Args, loaded: Loaded<Config>) -> anyhow::Result<Self> {
        let Loaded {
            value: mut config,
            sources: origins,
        } = loaded;
        let problems = config::problems(&config, &origins);
        anyhow::ensure!(problems.is_empty(), Problems(problems));
        if let Some(url) = &args.nats {
            config.nats.url.clone_from(url);
        }
        let nats = match args.nats {
            Some(_) => None,
            None => Some(local(&config.nats.url)?),
        };
        let is_default_secret = !config.auth.has_token_keys();
        complete(&mut config, &origins);
        let edges = (0..args.edges).map(|index| edge(&config, &origins, index));
        let edges: Vec<Config> = edges.collect::<Result<_, _>>()?;
        let plan = Self {
            config,
            edges,
            nats,
            is_default_secret,
        };
        plan.check_addresses(&origins)?;
        Ok(plan)
    }

    /// All services with their addresses are in one process, so they must differ.
    fn check_addresses(&self, origins: &Origins) -> Result<(), ConfigError> {
        let mut taken: Vec<(String, [&str; 2], SocketAddr)> = Vec::new();
        let nats = self
            .nats
            .map(|address| ("nats-server".to_owned(), ["nats", "url"], address));
        let router = (Kind::Router, &self.config, self.config.router.listen);
        let publisher = (Kind::Publisher, &self.config, self.config.publisher.listen);
        let edges = self
            .edges
            .iter()
            .map(|config| (Kind::Edge, config, config.edge.listen));
        let services = edges
            .chain([publisher, router])
            .flat_map(|(kind, config, listen)| {
                let service = kind.name();
                // Without an address of its own, health follows the port of the service.
                let admin = [[service, "admin"], [service, "listen"]];
                let admin = admin[usize::from(!origins.is_set(&admin[0]))];
                [
                    (service.to_owned(), [service, "listen"], listen),
                    (format!("{service} admin listener"), admin, kind.admin(config)),
                ]
            });
        for (name, path, address) in nats.into_iter().chain(services) {
            if address.port() == 0 {
                continue;
            }
            if let Some((other, first, _)) = taken.iter().find(|(_, _, known)| *known == address) {
                let path = [path, *first]
                    .into_iter()
                    .find(|path| origins.is_set(path))
                    .unwrap_or(path);
                let problem = format!(
                    "expected an address for the {name} that the {other} does not have, got {address}"
                );
                return Err(ConfigError::at(origins, &path, problem));
            }
            taken.push((name, path, address));
        }
        Ok(())
    }
}

/// Sets what nobody set.
fn complete(config: &mut Config, origins: &Origins) {
    config.complete(settings::Namespace::open);
    if !config.auth.has_token_keys() {
        config.auth.secret = Some(Secret::from(SECRET));
    }
    if config.auth.api_keys.is_empty() {
        config.auth.api_keys.push(ApiKeyConfig {
            name: "dev".to_owned(),
            key_sha256: None,
            key: Some(Secret::from(API_KEY)),
            scopes: vec![Scope::Publish, Scope::Admin, Scope::Read],
            namespaces: Vec::new(),
        });
    }
    if !origins.is_set(&["edge", "demo"]) {
        config.edge.demo = true;
    }
    if !origins.is_set(&["edge", "rebalance"]) {
        // Whoever tries things out picks an edge by its port.
        config.edge.rebalance = false;
    }
    if !origins.is_set(&["edge", "drain"]) && !origins.is_set(&["edge", "drain_delay"]) {
        config.edge.drain = DRAIN;
        config.edge.drain_delay = Duration::ZERO;
    }
    if !origins.is_set(&["telemetry", "log"]) {
        let quiet = LogFilter::deserialize(StrDeserializer::<ValueError>::new("warn"));
        config.telemetry.log = quiet.expect("a level is a filter");
    }
}

/// Counts the addresses of the first edge up.
fn edge(config: &Config, origins: &Origins, index: u16) -> Result<Config, ConfigError> {
    let nth = |key: &str, first: SocketAddr| {
        nth(first, index).ok_or_else(|| {
            let problem = format!(
                "expected a port that leaves one for edge {}, got {first}",
                index + 1
            );
            ConfigError::at(origins, &["edge", key], problem)
        })
    };
    let mut config = config.clone();
    config.edge.listen = nth("listen", config.edge.listen)?;
    if let Some(admin) = config.edge.admin {
        config.edge.admin = Some(nth("admin", admin)?);
    }
    Ok(config)
}

fn nth(first: SocketAddr, index: u16) -> Option<SocketAddr> {
    if first.port() == 0 {
        return Some(first);
    }
    // The health of the last edge is at its port plus 1000.
    let port = first
        .port()
        .checked_add(index)
        .filter(|port| *port <= u16::MAX - 1000)?;
    Some(SocketAddr::new(first.ip(), port))
}

/// Reads where a nats-server of our own shall listen.
fn local(url: &str) -> anyhow::Result<SocketAddr> {
    let host = url
        .split_once("://")
        .map_or(url, |(_, host)| host)
        .trim_end_matches('/');
    let host = host.replace("localhost", "127.0.0.1");
    let host = if host.contains(':') {
        host
    } else {
        format!("{host}:4222")
    };
    let address: Option<SocketAddr> = host.parse().ok();
    address.filter(|address| address.ip().is_loopback()).with_context(|| {
        "nats.url names no address of this machine at which dev could run its own nats-server: use --nats for another"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_urls_are_for_a_server_of_our_own() {
        for (url, address) in [
            ("nats://127.0.0.1:4222", "127.0.0.1:4222"),
            ("nats://localhost:5000/", "127.0.0.1:5000"),
            ("127.0.0.1", "127.0.0.1:4222"),
            ("nats://[::1]:4222", "[::1]:4222"),
        ] {
            assert_eq!(local(url).unwrap(), address.parse().unwrap(), "{url}");
        }
        for url in [
            "nats://nats:4222",
            "nats://10.0.0.1:4222",
            "nats://a:4222,nats://b:4222",
        ] {
            assert!(local(url).is_err(), "{url}");
        }
    }

    #[test]
    fn addresses_of_edges_count_up_and_any_port_stays_any() {
        let first: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        assert_eq!(nth(first, 3).unwrap().port(), 7003);
        assert_eq!(nth("127.0.0.1:0".parse().unwrap(), 3).unwrap().port(), 0);
        assert!(nth("127.0.0.1:64535".parse().unwrap(), 1).is_none());
    }
}
