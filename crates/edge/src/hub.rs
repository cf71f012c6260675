//! What every part of the edge shares.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use carillon_auth::Verifier;
use carillon_bus::{Bus, Link, Outgoing};
use carillon_protocol::ids::EdgeId;
use carillon_service::readiness::{Gate, Readiness};
use carillon_service::settings;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::engine::{Engines, Neighbours};
use crate::lease::Clock;
use crate::namespace::Namespace;
use crate::revocation::Revocations;
use crate::server::Shared;

const LAST_RECORDS: usize = 128;

/// The edge.
pub(crate) struct Hub {
    pub(crate) id: EdgeId,
    pub(crate) config: Config,
    pub(crate) session: settings::Session,
    pub(crate) history_limit: usize,
    pub(crate) events: settings::Events,
    pub(crate) auth: carillon_auth::Config,
    pub(crate) verifier: Verifier,
    pub(crate) bus: Bus,
    pub(crate) readiness: Readiness,
    pub(crate) revocations: Revocations,
    /// The long-polling sessions of this edge.
    pub(crate) engines: Engines,
    /// Other edges that own a session of one of our clients.
    pub(crate) neighbours: Neighbours,
    /// How fresh the lease is.
    pub(crate) lease: Clock,
    /// The key under which session ids are signed.
    pub(crate) key: Vec<u8>,
    /// Clients are asked to go, and no new ones are taken.
    pub(crate) draining: AtomicBool,
    /// Sessions whose transport is gone and whose record is being written.
    pub(crate) closings: TaskTracker,
    /// Last records that may be on their way to NATS at once, so that a crowd that leaves does not fill its queues.
    pub(crate) last_records: Semaphore,
    /// Everything stops.
    pub(crate) stop: CancellationToken,
    /// Keeps the edge from being ready as long as a namespace is not verified.
    pub(crate) unsynchronised: Mutex<Option<Gate>>,
    /// The lease must be confirmed before deliveries go on.
    pub(crate) unconfirmed: Notify,
    /// What backends are told of connections.
    pub(crate) lifecycle: mpsc::Sender<Outgoing>,
    by_name: HashMap<String, Arc<Namespace>>,
    namespaces: Vec<Arc<Namespace>>,
    link: OnceLock<Link>,
}

impl Hub {
    pub(crate) fn new(
        id: EdgeId,
        shared: Shared,
        namespaces: Vec<Arc<Namespace>>,
        key: Vec<u8>,
        readiness: Readiness,
        lifecycle: mpsc::Sender<Outgoing>,
    ) -> Arc<Self> {
        let by_name = namespaces
            .iter()
            .map(|namespace| (namespace.name.as_str().to_owned(), Arc::clone(namespace)))
            .collect();
        let gate = readiness.hold("resynchronising");
        Arc::new(Self {
            id,
            lease: Clock::new(shared.session.lease),
            engines: Engines::new(shared.edge.max_connections),
            neighbours: Neighbours::default(),
            config: shared.edge,
            session: shared.session,
            history_limit: usize::try_from(shared.history.max_per_room).unwrap_or(usize::MAX),
            events: shared.events,
            auth: shared.auth,
            verifier: shared.verifier,
            bus: shared.bus,
            readiness,
            revocations: Revocations::default(),
            key,
            draining: AtomicBool::new(false),
            closings: TaskTracker::new(),
            last_records: Semaphore::new(LAST_RECORDS),
            stop: CancellationToken::new(),
            unsynchronised: Mutex::new(Some(gate)),
            unconfirmed: Notify::new(),
            lifecycle,
            by_name,
            namespaces,
            link: OnceLock::new(),
        })
    }

    /// Returns all namespaces.
    pub(crate) fn namespaces(&self) -> &[Arc<Namespace>] {
        &self.namespaces
    }

    /// Returns the namespace at a place in the list.
    pub(crate) fn namespace_at(&self, index: usize) -> Option<&Arc<Namespace>> {
        self.namespaces.get(index)
    }

    /// Returns a namespace by its Socket.IO name.
    pub(crate) fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.by_name.get(name)
    }

    /// Gives the hub its delivery link.
    pub(crate) fn set_link(&self, link: Link) {
        let _ = self.link.set(link);
    }

    /// Returns the delivery link.
    pub(crate) fn link(&self) -> &Link {
        self.link
            .get()
            .expect("the link is started before the first connection is accepted")
    }

    /// Returns the number of connected sessions.
    pub(crate) fn connections(&self) -> usize {
        self.namespaces.iter().map(|namespace| namespace.count()).sum()
    }

    /// Returns whether new clients are turned away.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
