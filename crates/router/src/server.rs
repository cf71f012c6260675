//! The router as a service: wiring, and the order of starting and stopping.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
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
        };
        let (view, follower) = View::new(&bus, &own.to_string(), Table::new(windows));
        let (announcer, announcements) = Announcer::new();
        let router = Router {
            leases: Arc::new(Leases::new(own, session.lease, floor)),
            records: bus.table(Bucket::Sessions),
            revoked: bus.table(Bucket::Revoked),
            max_per_room: layout.history.max_per_room,
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
        let (intake, background, health) = (
            CancellationToken::new(),
            CancellationToken::new(),
            CancellationToken::new(),
        );
        let (working, answering, serving) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
        serving.spawn(self.admin.run(health.clone()));
        serving.spawn(self.recorder.run_upkeep(health.clone()));

        let (alarm, mut alarms) = mpsc::channel(1);
        let spawn = |name: &'static str, task: Pin<Box<dyn Future<Output = ()> + Send>>| {
            let guard = Alarm {
                name,
                background: background.clone(),
                alarm: alarm.clone(),
            };
            working.spawn(async move {
                guard.background.run_until_cancelled(task).await;
            });
        };
        let (leases, readiness) = (|| Arc::clone(&leases), || readiness.clone());
        spawn(
            "nats gate",
            Box::pin(watches::gate_nats(bus.clone(), readiness())),
        );
        spawn(
            "lease gate",
            Box::pin(watches::gate_leases(leases(), readiness(), warming.leases)),
        );
        spawn(
            "lease watch",
            Box::pin(watches::follow_leases(bus.clone(), leases())),
        );
        spawn(
            "own lease",
            Box::pin(watches::renew(
                bus.clone(),
                leases(),
                session.lease,
                session.renewal,
            )),
        );
        let view = self
            .follower
            .run(readiness(), warming.sessions, self.rules, self.announcer);
        spawn("session watch", Box::pin(view));
        spawn(
            "presence events",
            Box::pin(announce::run(bus.clone(), leases(), self.announcements)),
        );
        spawn("sweep", Box::pin(sweep::run(Arc::clone(&router))));
        spawn("expiry", Box::pin(expiry::run(Arc::clone(&router))));
        spawn(
            "offline users",
            Box::pin(offline::run(Arc::clone(&router), background.child_token())),
        );
        answering.spawn(requests::run(
            Arc::clone(&router),
            answering.clone(),
            intake.clone(),
        ));
        let limits = Limits {
            drain,
            ..Limits::default()
        };
        let routes = http::routes(Arc::clone(&router), self.authorizer, readiness());
        answering.spawn(listen::serve(self.listener, routes, limits, intake.clone()));
        tracing::info!(address = %self.address, router = %router.leases.own(), "router is working");

        let failed = tokio::select! {
            () = shutdown.cancelled() => None,
            failed = alarms.recv() => failed,
        };
        let _draining = readiness().hold("draining");
        intake.cancel();
        answering.close();
        Deadline::after(drain + Duration::from_secs(1))
            .step("requests", answering.wait())
            .await;
        background.cancel();
        working.close();
        let deadline = Deadline::after(CLOSING);
        deadline.step("tasks", working.wait()).await;
        deadline
            .step("lease", watches::give_back(&bus, &router.leases))
            .await;
        health.cancel();
        serving.close();
        deadline.step("health", serving.wait()).await;
        failed.map_or(Ok(()), |name| Err(RunError(name)))
    }
}

/// Tells when a task ends that should not have.
struct Alarm {
    name: &'static str,
    background: CancellationToken,
    alarm: mpsc::Sender<&'static str>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.background.is_cancelled() {
            let _ = self.alarm.try_send(self.name);
        }
    }
}
