//! Wiring: what runs in a publisher, and in which order it stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use carillon_auth::Authorizer;
use carillon_bus::streams::{self, EnsureError};
use carillon_bus::{Bucket, Bus, Layout, PublishError, Subscription};
use carillon_service::admin::AdminServer;
use carillon_service::listen::{self, Limits};
use carillon_service::metrics::{InstallError, Metrics};
use carillon_service::readiness::Readiness;
use carillon_service::settings;
use carillon_service::supervise::Supervisor;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::check::Checker;
use crate::config::{Config, ConfigError};
use crate::demo::Feed;
use crate::http::{self, Api};
use crate::intake::Intake;
use crate::mqtt::Source;
use crate::pipeline::Partition;
use crate::receipt::Receipts;
use crate::{metrics, signal};

/// How long what is being stored may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a signal for later may wait for NATS.
const SIGNAL_LIMIT: Duration = Duration::from_secs(60);

/// What a publisher shares with the rest of its process and cluster.
pub struct Setup {
    pub bus: Bus,
    /// The cluster's streams; they are made where they are missing.
    pub layout: Layout,
    pub events: settings::Events,
    pub authorizer: Authorizer,
}

/// Why a publisher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Listen(#[from] listen::BindError),
    #[error("cannot read the address of a listener")]
    Address(#[from] io::Error),
    #[error(transparent)]
    Streams(#[from] EnsureError),
    #[error("cannot subscribe")]
    Subscribe(#[from] PublishError),
    #[error("NATS does not answer")]
    Away,
    #[error(transparent)]
    Metrics(#[from] InstallError),
    #[error("the server's max_payload is {found} bytes, events need {needed}")]
    MaxPayload { found: usize, needed: usize },
    #[error("{setting}: there is no namespace {namespace}")]
    Namespace { setting: String, namespace: String },
}

/// Why a publisher stopped other than by shutdown.
#[derive(Debug, thiserror::Error)]
#[error("a task of the publisher ended: {0}")]
pub struct RunError(&'static str);

/// A publisher that is bound and not yet running.
pub struct Server {
    config: Config,
    bus: Bus,
    listener: TcpListener,
    address: SocketAddr,
    admin: AdminServer,
    admin_address: SocketAddr,
    readiness: Readiness,
    metrics: Metrics,
    app: Router,
    partitions: Vec<Partition>,
    sources: Vec<Source>,
    feeds: Vec<Feed>,
    checker: Checker,
    signals: Subscription,
    receipts: (Receipts, Subscription),
}

impl Server {
    /// Binds the listeners, makes the streams and subscribes.
    pub async fn bind(config: Config, setup: Setup) -> Result<Self, BindError> {
        config.check()?;
        let Setup {
            bus,
            layout,
            events,
            authorizer,
        } = setup;
        check_payload(&bus, events.max_bytes)?;
        let listener = listen::bind("publisher", config.listen, listen::DEFAULT_BACKLOG)?;
        let readiness = Readiness::new();
        let metrics = carillon_service::metrics::install()?;
        metrics::describe(config.partitions, config.mqtt.len());
        let admin = AdminServer::bind(config.admin(), readiness.clone(), metrics.clone())?;
        let streams = Arc::new(streams::ensure(&bus, &layout).await?);
        check_namespaces(&config, &streams)?;

        let holder: Arc<str> = std::iter::repeat_with(fastrand::alphanumeric)
            .take(16)
            .collect::<String>()
            .into();
        let checker = Checker::new(bus.subjects().clone(), Arc::clone(&streams), events.max_bytes);
        let intake = Intake::new(bus.clone(), config.ingest_timeout);
        let receipts = Receipts::new(&holder);
        let signals = bus
            .subscribe(&bus.subjects().all("signal"), Some(signal::GROUP))
            .await?;
        let mut receipts_subscription = bus.subscribe(&receipts.subject(&bus), None).await?;
        if !receipts.arrive(&bus, &mut receipts_subscription).await {
            return Err(BindError::Away);
        }
        let api = Api {
            bus: bus.clone(),
            streams: Arc::clone(&streams),
            authorizer,
            checker: checker.clone(),
            intake: intake.clone(),
            receipts: receipts.clone(),
            sent: bus.table(Bucket::Cluster),
            dedupe: layout.history.memory(),
            receipt_timeout: config.receipt_timeout,
            max_body: usize::try_from(config.max_body).unwrap_or(usize::MAX),
            max_rooms: config.max_rooms,
            max_batch: config.max_batch,
        };
        let partition = |index| Partition {
            index,
            bus: bus.clone(),
            streams: Arc::clone(&streams),
            checker: checker.clone(),
            holder: Arc::clone(&holder),
            lease: config.lease,
        };
        let source = |(index, settings): (usize, &crate::config::Mqtt)| Source {
            index,
            settings: settings.clone(),
            bus: bus.clone(),
            checker: checker.clone(),
            intake: intake.clone(),
            holder: Arc::clone(&holder),
            lease: config.lease,
        };
        let feed = |(index, settings): (usize, &crate::config::Demo)| Feed {
            index,
            settings: settings.clone(),
            bus: bus.clone(),
            holder: Arc::clone(&holder),
            lease: config.lease,
        };
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            admin_address: admin.local_addr()?,
            admin,
            app: http::routes(Arc::new(api), readiness.clone()),
            readiness,
            metrics,
            partitions: (0..streams.partitions).map(partition).collect(),
            sources: config.mqtt.iter().enumerate().map(source).collect(),
            feeds: config.demo.iter().enumerate().map(feed).collect(),
            checker,
            signals,
            receipts: (receipts, receipts_subscription),
            bus,
            config,
        })
    }

    /// Returns where the HTTP interface listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns where health and metrics are served.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_address
    }

    /// Returns why the publisher is not ready, if it is not.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Publishes until shutdown. First no more requests are taken, then the sources stop, then what is being
    /// stored ends and the partitions go to other publishers; health is served to the last.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let (stop, stop_last) = (CancellationToken::new(), CancellationToken::new());
        let accepting = CancellationToken::new();
        let supervisor = Supervisor::default();
        let listening = supervisor.tasks(accepting.clone());
        let tasks = supervisor.tasks(stop.clone());
        let last = supervisor.tasks(stop_last.clone());
        last.spawn("health", self.admin.run(stop_last.clone()));
        last.spawn("metrics", self.metrics.run_upkeep(stop_last));
        let nats = watch_nats(self.bus.clone(), self.readiness.clone());
        last.spawn_endless("nats gate", nats);
        let (receipts, subscription) = self.receipts;
        last.spawn_endless("receipts", receipts.run(subscription));

        for partition in self.partitions {
            tasks.spawn("partition", partition.run(stop.clone()));
        }
        for source in self.sources {
            tasks.spawn("mqtt source", source.run(stop.clone()));
        }
        for feed in self.feeds {
            tasks.spawn("demonstration", feed.run(stop.clone()));
        }
        let intake = Intake::new(self.bus.clone(), SIGNAL_LIMIT);
        let signals = signal::run(self.bus.clone(), self.checker, intake, self.signals.until(stop));
        tasks.spawn("signals", signals);

        let limits = Limits {
            connections: self.config.max_connections,
            ..Limits::default()
        };
        let http = listen::serve(self.listener, self.app, limits, accepting);
        listening.spawn("http", http);
        let failed = tokio::select! {
            () = shutdown.cancelled() => None,
            name = supervisor.ended_early() => Some(name),
        };
        let _draining = self.readiness.hold("draining");
        listening.stop().await;
        if tokio::time::timeout(DRAIN, tasks.stop()).await.is_err() {
            tracing::warn!("not everything was stored before the stop; another publisher stores it");
        }
        self.bus.flush().await;
        last.stop().await;
        failed.map_or(Ok(()), |name| Err(RunError(name)))
    }
}

/// Holds readiness back while NATS is away.
async fn watch_nats(bus: Bus, readiness: Readiness) {
    let mut state = bus.link_state();
    let mut away = None;
    loop {
        let connected = state.borrow_and_update().connected;
        match (connected, &away) {
            (false, None) => away = Some(readiness.hold("nats")),
            (true, Some(_)) => away = None,
            _ => {}
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// An event travels with headers, and a list with the names of its rooms.
fn check_payload(bus: &Bus, max_bytes: u64) -> Result<(), BindError> {
    const MARGIN: usize = 128 * 1024;
    let needed = usize::try_from(max_bytes)
        .unwrap_or(usize::MAX)
        .saturating_add(MARGIN);
    let found = bus.max_payload();
    if found < needed {
        Err(BindError::MaxPayload { found, needed })
    } else {
        Ok(())
    }
}

fn check_namespaces(config: &Config, streams: &carillon_bus::Streams) -> Result<(), BindError> {
    let mqtt = config
        .mqtt
        .iter()
        .enumerate()
        .map(|(index, mqtt)| ("mqtt", index, &mqtt.namespace));
    let demo = config
        .demo
        .iter()
        .enumerate()
        .map(|(index, demo)| ("demo", index, &demo.namespace));
    for (kind, index, namespace) in mqtt.chain(demo) {
        if streams.of(namespace).is_none() {
            let setting = format!("publisher.{kind}[{index}].namespace");
            return Err(BindError::Namespace {
                setting,
                namespace: namespace.to_string(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use carillon_auth::Verifier;
    use carillon_protocol::names::Namespace;
    use carillon_testkit::nats;
    use serde_json::json;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_task_that_panics_ends_the_publisher() {
        let nats = nats::Server::start().await;
        let nats = settings::Nats {
            url: nats.url(),
            ..settings::Nats::default()
        };
        let demo = serde_json::from_value(json!({ "room": "a", "interval": "1s" })).unwrap();
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            demo: vec![demo],
            ..Config::default()
        };
        let keys = carillon_auth::Config::default();
        let setup = Setup {
            bus: Bus::connect(&nats, "test").await.unwrap(),
            layout: Layout {
                history: settings::History::default(),
                namespaces: vec![(Namespace::main(), "events".to_owned())],
                partitions: 1,
            },
            events: settings::Events::default(),
            authorizer: Authorizer::new(&keys, Verifier::new(&keys).unwrap()).unwrap(),
        };
        let mut server = Server::bind(config, setup).await.unwrap();
        // An interval of zero is refused in a configuration, and panics where it is used.
        server.feeds[0].settings.interval = Duration::ZERO;
        let ended = tokio::time::timeout(LIMIT, server.run(CancellationToken::new())).await;
        let error = ended.expect("the publisher notices").unwrap_err();
        assert_eq!(error.to_string(), "a task of the publisher ended: demonstration");
    }
}
