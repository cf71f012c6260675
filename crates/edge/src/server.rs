//! An edge: bound first, so that its address is known, then run until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use carillon_auth::Verifier;
use carillon_bus::{Bus, Link, Outgoing, Streams, TableError};
use carillon_protocol::ids::EdgeId;
use carillon_protocol::names;
use carillon_service::listen;
use carillon_service::readiness::Readiness;
use carillon_service::settings;
use carillon_service::supervise::Supervisor;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Door, Rate, Slots, Stop};
use crate::address::Proxies;
use crate::config::Config;
use crate::delivery::Receiver;
use crate::demo::Demo;
use crate::drain::drain;
use crate::http::Front;
use crate::hub::Hub;
use crate::lifecycle;
use crate::metrics;
use crate::namespace::Namespace;
use crate::origin::Origins;
use crate::rules::{RuleError, Rules};
use crate::ticket;
use crate::tls::Tls;

/// How long requests that were cut off may take to end.
const LAST: Duration = Duration::from_millis(300);

/// What an edge is made of, beside the listener.
pub struct Shared {
    pub edge: Config,
    pub session: settings::Session,
    pub history: settings::History,
    pub events: settings::Events,
    pub auth: carillon_auth::Config,
    pub verifier: Verifier,
    pub namespaces: settings::Namespaces,
    pub nats: settings::Nats,
    pub bus: Bus,
    pub streams: Streams,
}

/// Why an edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Listen(#[from] listen::BindError),
    #[error("edge.{key}: {problem}")]
    Setting { key: &'static str, problem: String },
    #[error("namespace {namespace}: {problem}")]
    Namespace { namespace: String, problem: String },
    #[error("namespace {namespace}: {}", first(.errors))]
    Rules {
        namespace: String,
        errors: Vec<RuleError>,
    },
    #[error("edge.tls: {0}")]
    Tls(String),
    #[error("the session key cannot be read")]
    Key(#[source] TableError),
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn first(errors: &[RuleError]) -> String {
    errors.first().map(ToString::to_string).unwrap_or_default()
}

/// Why an edge stopped other than by shutdown.
#[derive(Debug, thiserror::Error)]
#[error("a task of the edge ended: {0}")]
pub struct RunError(&'static str);

/// An edge that is bound and not yet running.
pub struct Server {
    hub: Arc<Hub>,
    front: Arc<Front>,
    listener: TcpListener,
    address: SocketAddr,
    door: Door,
    tls: Option<Arc<Tls>>,
    nats: settings::Nats,
    readiness: Readiness,
    told: mpsc::Receiver<Outgoing>,
}

/// Exchanges the rules of a running edge.
#[derive(Clone)]
pub struct Reloader(Arc<Hub>);

impl Server {
    /// Checks the settings and takes the address.
    pub async fn bind(shared: Shared, readiness: Readiness) -> Result<Self, BindError> {
        metrics::describe();
        let setting = |key, problem: &dyn ToString| BindError::Setting {
            key,
            problem: problem.to_string(),
        };
        let proxies = Proxies::parse(&shared.edge.trusted_proxies)
            .map_err(|error| setting("trusted_proxies", &error))?;
        let origins =
            Origins::parse(&shared.edge.cors_origin).map_err(|error| setting("cors_origin", &error))?;
        let tls = match &shared.edge.tls {
            Some(files) => Some(Arc::new(
                Tls::load(files).map_err(|error| BindError::Tls(chain(&error)))?,
            )),
            None => None,
        };
        let namespaces = namespaces(&shared)?;
        let listener = listen::bind("edge", shared.edge.listen, accept::BACKLOG)?;
        let address = listener.local_addr().map_err(|error| setting("listen", &error))?;
        let key = ticket::key::read(&shared.bus).await.map_err(BindError::Key)?;
        let nats = shared.nats.clone();
        let mut shared = shared;
        shared.edge.listen = address;
        let slots = Slots::new(shared.edge.max_per_address, shared.edge.max_per_user);
        let rate = Rate::new(shared.edge.accept_rate);
        let door = Door {
            proxies: Arc::new(proxies),
            tls: tls.as_ref().map(|tls| tls.acceptor()),
            max_connections: shared.edge.max_connections,
            handshake_timeout: shared.edge.handshake_timeout,
        };
        let id = EdgeId::from_random(rand::random());
        let (lifecycle, told) = mpsc::channel(lifecycle::MAX_WAITING);
        let hub = Hub::new(id, shared, namespaces, key, readiness.clone(), lifecycle);
        let config = &hub.config;
        let demo = config
            .demo
            .then(|| Demo::new(&config.ws_path, config.demo_publisher.as_deref()));
        let front = Arc::new(Front {
            hub: Arc::clone(&hub),
            origins,
            slots,
            rate,
            demo,
        });
        Ok(Self {
            hub,
            front,
            listener,
            address,
            door,
            tls,
            nats,
            readiness,
            told,
        })
    }

    /// Returns where clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the id of this start of the edge.
    pub fn id(&self) -> EdgeId {
        self.hub.id
    }

    /// Returns what exchanges the rules while the edge runs.
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.hub))
    }

    /// Serves clients until the token is cancelled, then drains; also where a task has ended that should not have.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let hub = &self.hub;
        let starting = self.readiness.hold("starting");
        let supervisor = Supervisor::default();
        let tasks = supervisor.tasks(hub.stop.clone());
        let receiver = Arc::new(Receiver::new(Arc::clone(hub)));
        let (link, connecting) = Link::new(
            self.nats.clone(),
            "carillon-edge-deliveries",
            receiver,
            hub.stop.clone(),
        );
        hub.set_link(link);
        tasks.spawn("delivery link", connecting);
        while let Err(error) = hub.renew_lease(0).await {
            tracing::warn!(%error, "lease cannot be written yet");
            let pause = tokio::time::sleep(Duration::from_millis(500));
            if shutdown.run_until_cancelled(pause).await.is_none() {
                tasks.stop().await;
                return Ok(());
            }
        }
        let revocations = self.readiness.hold("revocations");
        tasks.spawn("revocations", Arc::clone(hub).follow_revocations(revocations));
        for namespace in hub.namespaces() {
            let namespace = Arc::clone(namespace);
            tasks.spawn("deliveries", Arc::clone(hub).verify_deliveries(namespace));
        }
        tasks.spawn("lease", Arc::clone(hub).keep_lease());
        tasks.spawn("alive", Arc::clone(hub).tell_alive());
        tasks.spawn("confirmations", Arc::clone(hub).confirm_sessions());
        if hub.config.rebalance {
            tasks.spawn("rebalance", Arc::clone(hub).rebalance());
        }
        tasks.spawn_endless("requests", Arc::clone(hub).serve_requests());
        tasks.spawn("expiry", Arc::clone(hub).watch_expiry());
        tasks.spawn("nats", watch_nats(Arc::clone(hub), self.readiness.clone()));
        // It stores what was told before the end.
        tokio::spawn(Arc::clone(hub).store_lifecycle(self.told));
        if let Some(tls) = self.tls.clone() {
            let stop = hub.stop.clone();
            tokio::spawn(async move { tls.watch(stop).await });
        }
        drop(starting);
        let stop = Stop::default();
        let front = Arc::clone(&self.front);
        let serving = tokio::spawn(accept::serve(
            self.listener,
            self.door,
            move |request, peer| Arc::clone(&front).answer(request, peer),
            stop.clone(),
        ));
        let failed = tokio::select! {
            () = shutdown.cancelled() => None,
            name = supervisor.ended_early() => Some(name),
        };
        drain(hub, &self.readiness, &stop).await;
        stop.everything.cancel();
        let _ = tokio::time::timeout(LAST, tasks.stop()).await;
        let _ = tokio::time::timeout(LAST, serving).await;
        // Connections that are not gone yet have clones of it.
        hub.bus.close();
        failed.map_or(Ok(()), |name| Err(RunError(name)))
    }
}

impl Reloader {
    /// Takes the rules of new settings for the namespaces that are there; connections stay.
    pub fn reload(&self, namespaces: &settings::Namespaces) -> Result<(), Vec<RuleError>> {
        let mut compiled = Vec::new();
        for (name, settings) in namespaces {
            if let Some(namespace) = self.0.namespace(name) {
                compiled.push((namespace, settings, Rules::compile(name, settings)?));
            }
        }
        for (namespace, settings, rules) in compiled {
            namespace.rules.store(Arc::new(rules));
            namespace.settings.store(Arc::new(settings.clone()));
        }
        Ok(())
    }
}

fn namespaces(shared: &Shared) -> Result<Vec<Arc<Namespace>>, BindError> {
    let queue = usize::try_from(shared.edge.queue).unwrap_or(usize::MAX);
    let mut namespaces = Vec::new();
    for (index, (name, settings)) in shared.namespaces.iter().enumerate() {
        let problem = |problem: String| BindError::Namespace {
            namespace: name.clone(),
            problem,
        };
        let index = u16::try_from(index).ok().filter(|index| *index < 4096);
        let index = index.ok_or_else(|| problem("there may be 4096 namespaces".to_owned()))?;
        let parsed = names::Namespace::new(name).map_err(|error| problem(error.to_string()))?;
        let stream = shared
            .streams
            .of(&parsed)
            .ok_or_else(|| problem("it has no stream".to_owned()))?
            .clone();
        let rules = Rules::compile(name, settings).map_err(|errors| BindError::Rules {
            namespace: name.clone(),
            errors,
        })?;
        namespaces.push(Arc::new(Namespace::new(
            index,
            parsed,
            settings.clone(),
            rules,
            stream,
            queue,
        )));
    }
    Ok(namespaces)
}

/// Keeps the edge from being ready while NATS is away.
async fn watch_nats(hub: Arc<Hub>, readiness: Readiness) {
    let mut state = hub.bus.link_state();
    let mut away = None;
    loop {
        if state.borrow_and_update().connected {
            away = None;
        } else if away.is_none() {
            away = Some(readiness.hold("nats"));
        }
        tokio::select! {
            () = hub.stop.cancelled() => return,
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
