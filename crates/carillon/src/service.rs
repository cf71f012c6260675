//! A service on its part of the settings: bound first, run second.

mod edge;

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use carillon_auth::{Authorizer, Verifier};
use carillon_bus::Bus;
use carillon_service::readiness::Readiness;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

pub(crate) use edge::Reload;

/// How long router and publisher may take beyond their own steps.
const MARGIN: Duration = Duration::from_secs(10);

/// One of the three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Edge,
    Router,
    Publisher,
}

impl Kind {
    /// Returns the service's name, in addresses and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Router => "router",
            Self::Publisher => "publisher",
        }
    }

    /// Returns the name under which the process is known to NATS and to traces.
    pub(crate) fn process(self) -> &'static str {
        match self {
            Self::Edge => "carillon-edge",
            Self::Router => "carillon-router",
            Self::Publisher => "carillon-publisher",
        }
    }

    /// Returns where health and metrics are served.
    pub(crate) fn admin(self, config: &Config) -> SocketAddr {
        match self {
            Self::Edge => edge::admin(&config.edge),
            Self::Router => config.router.admin(),
            Self::Publisher => config.publisher.admin(),
        }
    }

    /// Returns how long a stop may take.
    pub(crate) fn stop_limit(self, config: &Config) -> Duration {
        match self {
            Self::Edge => config.edge.drain,
            Self::Router => config.router.drain + MARGIN,
            Self::Publisher => 2 * MARGIN,
        }
    }

    /// Takes the service's addresses, and makes the streams where they are missing.
    pub(crate) async fn bind(self, config: &Config, bus: Bus) -> anyhow::Result<Bound> {
        match self {
            Self::Edge => edge::bind(config, bus).await,
            Self::Router => router(config, bus).await,
            Self::Publisher => publisher(config, bus).await,
        }
    }
}

type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// A service that has its addresses and does not work yet.
pub(crate) struct Bound {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) readiness: Readiness,
    /// Puts new rules in place of the old ones, where the service has any.
    pub(crate) reload: Option<Reload>,
    run: Box<dyn FnOnce(CancellationToken) -> Work + Send>,
}

impl Bound {
    /// Works until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        (self.run)(shutdown).await
    }
}

async fn router(config: &Config, bus: Bus) -> anyhow::Result<Bound> {
    let setup = carillon_router::Setup {
        bus,
        layout: config.layout(),
        session: config.session.clone(),
        namespaces: config.namespaces.clone(),
        authorizer: authorizer(config)?,
    };
    let server = carillon_router::Server::bind(config.router.clone(), setup).await?;
    Ok(Bound {
        kind: Kind::Router,
        address: server.local_addr(),
        admin: server.admin_addr(),
        readiness: server.readiness(),
        reload: None,
        run: Box::new(|shutdown| {
            Box::pin(async move { server.run(shutdown).await.context("the router stopped") })
        }),
    })
}

async fn publisher(config: &Config, bus: Bus) -> anyhow::Result<Bound> {
    let setup = carillon_publisher::Setup {
        bus,
        layout: config.layout(),
        events: config.events.clone(),
        authorizer: authorizer(config)?,
    };
    let server = carillon_publisher::Server::bind(config.publisher.clone(), setup).await?;
    Ok(Bound {
        kind: Kind::Publisher,
        address: server.local_addr(),
        admin: server.admin_addr(),
        readiness: server.readiness(),
        reload: None,
        run: Box::new(|shutdown| {
            Box::pin(async move { server.run(shutdown).await.context("the publisher stopped") })
        }),
    })
}

/// What knows the callers of the HTTP interfaces.
fn authorizer(config: &Config) -> Result<Authorizer, carillon_auth::ConfigError> {
    Authorizer::new(&config.auth, Verifier::new(&config.auth)?)
}
