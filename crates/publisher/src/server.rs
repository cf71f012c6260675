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
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
pub enum RunError {
    #[error("a task of the publisher ended early")]
    Ended,
}

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
            dedupe: layout.history.dedupe,
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
        let tasks = TaskTracker::new();
        let last = TaskTracker::new();
        last.spawn(self.admin.run(stop_last.clone()));
        last.spawn(self.metrics.run_upkeep(stop_last.clone()));
        let nats = watch_nats(self.bus.clone(), self.readiness.clone());
        last.spawn(until(stop_last.clone(), nats));
        last.spawn(hold_while_draining(
            self.readiness.clone(),
            shutdown.clone(),
            stop_last.clone(),
        ));
        let (receipts, subscription) = self.receipts;
        last.spawn(until(stop_last.clone(), receipts.run(subscription)));

        for partition in self.partitions {
            tasks.spawn(partition.run(stop.clone()));
        }
        for source in self.sources {
            tasks.spawn(source.run(stop.clone()));
        }
        for feed in self.feeds {
            tasks.spawn(feed.run(stop.clone()));
        }
        let intake = Intake::new(self.bus.clone(), SIGNAL_LIMIT);
        let signals = signal::run(
            self.bus.clone(),
            self.checker,
            intake,
            self.signals.until(stop.clone()),
        );
        let signals = tasks.spawn(signals);

        let limits = Limits {
            connections: self.config.max_connections,
            ..Limits::default()
        };
        let http = listen::serve(self.listener, self.app, limits, shutdown.clone());
        let ended_early = tokio::select! {
            () = http => false,
            _ = signals => true,
        };
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!("not everything was stored before the stop; another publisher stores it");
        }
        self.bus.flush().await;
        stop_last.cancel();
        last.close();
        last.wait().await;
        if ended_early && !shutdown.is_cancelled() {
            Err(RunError::Ended)
        } else {
            Ok(())
        }
    }
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    let _ = stop.run_until_cancelled(task).await;
}

/// Holds readiness back from shutdown on.
async fn hold_while_draining(readiness: Readiness, shutdown: CancellationToken, stop: CancellationToken) {
    if stop.run_until_cancelled(shutdown.cancelled()).await.is_some() {
        let _draining = readiness.hold("draining");
        stop.cancelled().await;
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
