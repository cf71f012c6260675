//! Edges, publishers, routers and NATS, each a process of its own that keeps its address over restarts.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_bus::{Bucket, Bus};
use carillon_protocol::doubt::Findings;
use carillon_protocol::ids::EdgeId;
use carillon_protocol::names::Namespace;
use carillon_service::settings;
use carillon_testkit::nats::{Cluster, Server};
use carillon_testkit::process::Carillon;
use carillon_testkit::{http, net, tokens, wait};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::LIMIT;

const SECRET: &str = "cluster-secret";

/// Clients notice soon that an edge has fallen silent, and stopped edges go soon. Leases and windows are the
/// defaults.
const SETTINGS: &str = r#"
[[namespaces."/".rooms]]
pattern = "{room*}"
join = "true"

[[namespaces."/".on]]
event = "join"
do = [{ join = "{data}" }, { reply = "{'status': 'joined'}" }]
"#;
pub(crate) const EDGE: &str = "ping_interval = \"4s\"\nping_timeout = \"4s\"\nws_ping_interval = \"10s\"\ndrain_delay = \"1s\"\ndrain = \"10s\"\n";

/// Within this time a service that was told to stop has stopped, even on a busy machine.
const STOP: Duration = Duration::from_secs(60);

/// The size of most clusters here.
pub(crate) const USUAL: Size = Size {
    edges: 3,
    publishers: 2,
    routers: 2,
};

/// The three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Edge,
    Publisher,
    Router,
}

/// How NATS runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NatsKind {
    One,
    Three,
}

/// NATS below the cluster.
#[expect(clippy::large_enum_variant, reason = "there is one of it in a test")]
pub(crate) enum Nats {
    One(Server),
    Three(Cluster),
}

/// One process.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) process: Carillon,
}

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) edges: usize,
    pub(crate) publishers: usize,
    pub(crate) routers: usize,
}

/// The cluster.
pub(crate) struct Stage {
    pub(crate) nats: Nats,
    pub(crate) edges: Vec<Node>,
    pub(crate) publishers: Vec<Node>,
    pub(crate) routers: Vec<Node>,
}

impl Stage {
    /// Three edges, two publishers and two routers.
    pub(crate) async fn usual(kind: NatsKind) -> Self {
        Self::start(kind, USUAL).await
    }

    /// Starts everything and waits until all are ready.
    pub(crate) async fn start(kind: NatsKind, size: Size) -> Self {
        Self::with(kind, size, EDGE).await
    }

    /// The same, with edges that have these settings.
    pub(crate) async fn with(kind: NatsKind, size: Size, edge: &str) -> Self {
        let nats = match kind {
            NatsKind::One => Nats::One(Server::start().await),
            NatsKind::Three => Nats::Three(Cluster::three().await),
        };
        let start = |service: Service, count: usize| -> Vec<Node> {
            (0..count)
                .map(|index| Node::start(&nats, service, index, edge))
                .collect()
        };
        let (edges, publishers, routers) = (
            start(Service::Edge, size.edges),
            start(Service::Publisher, size.publishers),
            start(Service::Router, size.routers),
        );
        let stage = Self {
            nats,
            edges,
            publishers,
            routers,
        };
        let late = stage.late(LIMIT).await;
        assert!(late.is_empty(), "not ready within {LIMIT:?}: {}", late.join(", "));
        stage
    }

    /// Which processes are not ready within a time.
    pub(crate) async fn late(&self, limit: Duration) -> Vec<String> {
        let all = self
            .nodes()
            .map(async |node| (!node.is_ready(limit).await).then(|| node.name.clone()));
        join_all(all).await.into_iter().flatten().collect()
    }

    /// Waits until the edges have looked at every doubt that publishers have stored. Before that NATS has not returned, and an
    /// edge that is killed dies in the same moment.
    pub(crate) async fn has_settled(&self, limit: Duration) -> bool {
        let settings = settings::Nats {
            url: self.nats.url(),
            ..settings::Nats::default()
        };
        let settled = async {
            loop {
                if let Ok(bus) = Bus::connect(&settings, "suite").await
                    && is_settled(&bus).await.unwrap_or(false)
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(limit, settled).await.is_ok()
    }

    /// Every process of ours.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.edges.iter().chain(&self.publishers).chain(&self.routers)
    }

    pub(crate) fn of(&self, service: Service) -> &[Node] {
        match service {
            Service::Edge => &self.edges,
            Service::Publisher => &self.publishers,
            Service::Router => &self.routers,
        }
    }

    pub(crate) fn of_mut(&mut self, service: Service) -> &mut [Node] {
        match service {
            Service::Edge => &mut self.edges,
            Service::Publisher => &mut self.publishers,
            Service::Router => &mut self.routers,
        }
    }

    /// Asks the first router over HTTP, until it answers 200.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (http, token) = (http::client(), admin_token());
        wait::until(format_args!("an answer to {path}"), LIMIT, async || {
            let url = format!("http://{}{path}", self.routers[0].listen);
            let response = http.get(url).bearer_auth(&token).send().await.ok()?;
            (response.status() == 200).then_some(())?;
            response.json().await.ok()
        })
        .await
    }

    /// Runs a helper of the program against this cluster's NATS; its standard output.
    pub(crate) async fn run<const N: usize>(&self, args: [&str; N]) -> String {
        let builder = Carillon::command(program(), args)
            .arg("--nats")
            .arg(self.nats.url());
        let (status, text) = builder.run(LIMIT).await;
        assert!(status.success(), "{text}");
        text
    }

    /// Writes what every process printed into a folder.
    pub(crate) fn write_logs(&self, folder: &Path) {
        for node in self.nodes() {
            let path = folder.join(&node.name).with_extension("log");
            std::fs::write(&path, node.process.log().text())
                .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        }
    }
}

/// In milliseconds: an edge that lives says so every five seconds.
const LIVES: u64 = 10_000;

/// What an edge says.
#[derive(Deserialize)]
struct Alive {
    edge: EdgeId,
    at: u64,
}

/// Tells whether every edge that lives has looked at the last doubt; `None` where NATS does not say.
async fn is_settled(bus: &Bus) -> Option<bool> {
    let subject = bus.subjects().doubts(&Namespace::main());
    let last = bus.last("RT_EVENTS", &[subject], 0).await.ok()?;
    let last = last.first().map_or(0, |doubt| doubt.sequence);
    let findings = bus.table(Bucket::Cluster).all("findings.*.*").await.ok()?;
    let findings: Vec<Findings> = findings
        .iter()
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
        .collect();
    let alive = bus.table(Bucket::Cluster).all("alive.*").await.ok()?;
    let alive = alive
        .iter()
        .filter_map(|entry| serde_json::from_slice::<Alive>(&entry.value).ok());
    let mut living = alive.filter(|alive| alive.at + LIVES >= now());
    let has_looked = |alive: Alive| {
        let mut of_edge = findings
            .iter()
            .filter(|findings| findings.edge == Some(alive.edge));
        of_edge.any(|findings| findings.through >= last)
    };
    Some(living.all(has_looked))
}

impl Nats {
    /// The addresses, as `nats.url` takes them.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(cluster) => cluster.url(),
        }
    }

    /// A team's own connection.
    pub(crate) async fn connect(&self) -> async_nats::Client {
        match self {
            Self::One(server) => server.connect().await,
            Self::Three(cluster) => cluster.connect().await,
        }
    }

    fn replicas(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Three(_) => 3,
        }
    }
}

impl Node {
    fn start(nats: &Nats, service: Service, index: usize, edge: &str) -> Self {
        let (listen, admin) = (net::free_addr(), net::free_addr());
        let log = std::env::var("CARILLON_CHAOS_LOG").unwrap_or_else(|_| "info".to_owned());
        let config = format!(
            "[nats]\nurl = \"{}\"\nreplicas = {}\n[auth]\nsecret = \"{SECRET}\"\n[telemetry]\nlog = \"{log}\"\n\
             [{service}]\nlisten = \"{listen}\"\nadmin = \"{admin}\"\n{}{SETTINGS}",
            nats.url(),
            nats.replicas(),
            if service == Service::Edge { edge } else { "" },
        );
        let name = format!("{service}-{index}");
        let command = Carillon::command(program(), [service.to_string()]).name(&name);
        Self {
            process: command.config(config).start(),
            name,
            listen,
            admin,
        }
    }

    /// Tells whether it is ready within a time.
    pub(crate) async fn is_ready(&self, limit: Duration) -> bool {
        let http = http::client();
        let url = format!("http://{}/readyz", self.admin);
        let ready = wait::within(limit, async || {
            let response = http.get(&url).send().await.ok()?;
            (response.status() == 200).then_some(())
        });
        ready.await.is_some()
    }

    /// Tells it to stop; whether it did so in an orderly way.
    pub(crate) async fn terminate(&self) -> bool {
        self.process.terminate(STOP).await.success()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edge => "edge",
            Self::Publisher => "publisher",
            Self::Router => "router",
        })
    }
}

/// A token for a user.
pub(crate) fn user_token(user: &str) -> String {
    tokens::hs256(SECRET, &json!({ "sub": user }))
}

/// A token that may publish.
pub(crate) fn publish_token() -> String {
    tokens::hs256(SECRET, &json!({ "sub": "load", "scope": "publish" }))
}

fn admin_token() -> String {
    tokens::hs256(SECRET, &json!({ "sub": "admin", "scope": "admin" }))
}

/// The program under test.
fn program() -> String {
    std::env::var("CARILLON_CHAOS_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_carillon").to_owned())
}
