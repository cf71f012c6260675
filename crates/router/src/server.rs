//! The router as a service: wiring, and the order of starting and stopping.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use carillon_auth::Authorizer;
use carillon_bus::streams::EnsureError;
use carillon_bus::{Bucket, Bus, Layout, TableError, streams};
use carillon_protocol::names::{BadName, Namespace};
use carillon_protocol::pattern::BadPattern;
use carillon_service::admin::AdminServer;
use carillon_service::listen::{self, Limits};
use carillon_service::metrics::{self as recorder, InstallError, Metrics};
use carillon_service::readiness::{Gate, Readiness};
use carillon_service::settings::{Namespaces, Session};
use carillon_service::shutdown::Deadline;
use carillon_service::supervise::Supervisor;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::announce::{self, Announcement, Announcer, Rules};
use crate::config::Config;
use crate::leases::Leases;
use crate::replicas::RouterId;
use crate::router::Router;
use crate::table::{Table, Windows};
use crate::view::{Follower, View};
use crate::{expiry, http, metrics, offline, requests, sweep, watches};

/// How long what is left may take after the requests have ended.
const CLOSING: Duration = Duration::from_secs(5);

/// What a router shares with the rest of its process and cluster.
pub struct Setup {
    pub bus: Bus,
    /// The cluster's streams; they are made where they are missing.
    pub layout: Layout,
    pub session: Session,
    pub namespaces: Namespaces,
    pub authorizer: Authorizer,
}

/// Why a router cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Listen(#[from] listen::BindError),
    #[error(transparent)]
    Streams(#[from] EnsureError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("a namespace: {0}")]
    Namespace(#[from] BadName),
    #[error("a pattern of rooms: {0}")]
    Pattern(#[from] BadPattern),
    #[error(transparent)]
    Metrics(#[from] InstallError),
    #[error("the listener has no address")]
    Address(#[from] io::Error),
}

/// Why a router stopped working.
#[derive(Debug, thiserror::Error)]
#[error("a task of the router ended: {0}")]
pub struct RunError(&'static str);

/// A router that has its addresses and does not answer yet.
pub struct Server {
    router: Arc<Router>,
    rules: Rules,
    authorizer: Authorizer,
    listener: TcpListener,
    address: SocketAddr,
    admin: AdminServer,
    admin_address: SocketAddr,
    recorder: Metrics,
    readiness: Readiness,
    warming: Warming,
    follower: Follower,
    announcer: Announcer,
    announcements: mpsc::Receiver<Announcement>,
}

/// What holds readiness back until the router has seen everything.
struct Warming {
    sessions: Gate,
    leases: Gate,
}

impl Server {
    /// Takes the addresses, and makes the streams where they are missing.
    pub async fn bind(config: Config, setup: Setup) -> Result<Self, BindError> {
        let Setup {
            bus,
            layout,
            session,
            namespaces,
            authorizer,
        } = setup;
        let listener = listen::bind("router", config.listen, listen::DEFAULT_BACKLOG)?;
        let (readiness, recorder) = (Readiness::new(), recorder::install()?);
        metrics::describe();
        let admin = AdminServer::bind(config.admin(), readiness.clone(), recorder.clone())?;
        let warming = Warming {
            sessions: readiness.hold("sessions"),
            leases: readiness.hold("leases"),
        };
        let mut rules = Vec::new();
        let mut without = HashSet::new();
        for (name, settings) in &namespaces {
            let namespace = Namespace::new(name)?;
            if !settings.recovery {
                without.insert(namespace.clone());
            }
            rules.push((namespace, settings.rooms.as_slice()));
        }
        let rules = Rules::new(rules)?;
        let streams = streams::ensure(&bus, &layout).await?;
        let own = RouterId::random();
        let floor = watches::last_alive(&bus).await?;
        let windows = Windows {
            default: session.recovery,
            without,
            margin: config.offline_margin,
        };
        let (view, follower) = View::new(&bus, &own.to_string(), Table::new(windows));
        let (announcer, announcements) = Announcer::new();
        let router = Router {
            leases: Arc::new(Leases::new(own, session.lease, floor)),
            records: bus.table(Bucket::Sessions),
            revoked: bus.table(Bucket::Revoked),
            config,
            session,
            streams,
            view,
            bus,
        };
        Ok(Self {
            address: listener.local_addr()?,
            admin_address: admin.local_addr()?,
            router: Arc::new(router),
            rules,
            authorizer,
            listener,
            admin,
            recorder,
            readiness,
            warming,
            follower,
            announcer,
            announcements,
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

    /// Returns what says whether the router is ready.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Works until shutdown, then stops in order: not ready, no new requests, the rest.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let Self {
            router,
            readiness,
            warming,
            ..
        } = self;
        let drain = router.config.drain;
        let session = router.session.clone();
        let (bus, leases) = (router.bus.clone(), Arc::clone(&router.leases));
        let (intake, background) = (CancellationToken::new(), CancellationToken::new());
        let health = CancellationToken::new();
        let supervisor = Supervisor::default();
        let serving = supervisor.tasks(health.clone());
        let working = supervisor.tasks(background.clone());
        let listening = supervisor.tasks(intake.clone());
        let answering = TaskTracker::new();
        serving.spawn("health", self.admin.run(health.clone()));
        serving.spawn("metrics", self.recorder.run_upkeep(health));

        let (leases, readiness) = (|| Arc::clone(&leases), || readiness.clone());
        let nats_gate = watches::gate_nats(bus.clone(), readiness());
        working.spawn_endless("nats gate", nats_gate);
        let lease_gate = watches::gate_leases(leases(), readiness(), warming.leases);
        working.spawn_endless("lease gate", lease_gate);
        let lease_watch = watches::follow_leases(bus.clone(), leases());
        working.spawn_endless("lease watch", lease_watch);
        let own_lease = watches::renew(bus.clone(), leases(), session.lease, session.renewal);
        working.spawn_endless("own lease", own_lease);
        let view = self
            .follower
            .run(readiness(), warming.sessions, self.rules, self.announcer);
        working.spawn_endless("session watch", view);
        let announce = announce::run(bus.clone(), leases(), self.announcements);
        working.spawn_endless("presence events", announce);
        working.spawn_endless("sweep", sweep::run(Arc::clone(&router)));
        working.spawn_endless("expiry", expiry::run(Arc::clone(&router)));
        let offline = offline::run(Arc::clone(&router), background.child_token());
        working.spawn_endless("offline users", offline);
        let requests = requests::run(Arc::clone(&router), answering.clone(), intake.clone());
        listening.spawn("requests", requests);
        let limits = Limits {
            drain,
            ..Limits::default()
        };
        let routes = http::routes(Arc::clone(&router), self.authorizer, readiness());
        listening.spawn("http", listen::serve(self.listener, routes, limits, intake));
        tracing::info!(address = %self.address, router = %router.leases.own(), "router is working");

        let failed = tokio::select! {
            () = shutdown.cancelled() => None,
            name = supervisor.ended_early() => Some(name),
        };
        let _draining = readiness().hold("draining");
        let requests = async {
            listening.stop().await;
            answering.close();
            answering.wait().await;
        };
        Deadline::after(drain + Duration::from_secs(1))
            .step("requests", requests)
            .await;
        let deadline = Deadline::after(CLOSING);
        deadline.step("tasks", working.stop()).await;
        deadline
            .step("lease", watches::give_back(&bus, &router.leases))
            .await;
        deadline.step("health", serving.stop()).await;
        failed.map_or(Ok(()), |name| Err(RunError(name)))
    }
}
