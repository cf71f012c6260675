//! The edge on its part of the settings.

use std::net::SocketAddr;

use anyhow::Context as _;
use carillon_auth::Verifier;
use carillon_bus::{Bus, streams};
use carillon_edge::{Reloader, Server, Shared};
use carillon_service::admin::AdminServer;
use carillon_service::metrics;
use carillon_service::readiness::Readiness;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Bound, Kind};
use crate::config::Config;

/// Exchanges the rules of a running edge.
pub(crate) type Reload = Reloader;

/// Returns where health and metrics are served.
pub(super) fn admin(config: &carillon_edge::Config) -> SocketAddr {
    let port = match config.listen.port() {
        0 => 0,
        port => port.saturating_add(1000),
    };
    config.admin.unwrap_or(SocketAddr::new(config.listen.ip(), port))
}

pub(super) async fn bind(config: &Config, bus: Bus) -> anyhow::Result<Bound> {
    let recorder = metrics::install()?;
    let readiness = Readiness::new();
    let health = AdminServer::bind(admin(&config.edge), readiness.clone(), recorder.clone())?;
    let streams = streams::ensure(&bus, &config.layout()).await?;
    let shared = Shared {
        edge: config.edge.clone(),
        session: config.session.clone(),
        history: config.history.clone(),
        events: config.events.clone(),
        auth: config.auth.clone(),
        verifier: Verifier::new(&config.auth)?,
        namespaces: config.namespaces.clone(),
        nats: config.nats.clone(),
        bus,
        streams,
    };
    let server = Server::bind(shared, readiness.clone()).await?;
    Ok(Bound {
        kind: Kind::Edge,
        address: server.local_addr(),
        admin: health.local_addr().context("the admin listener has no address")?,
        readiness,
        reload: Some(server.reloader()),
        run: Box::new(|shutdown| {
            Box::pin(async move {
                let (last, ended) = (TaskTracker::new(), CancellationToken::new());
                last.spawn(health.run(ended.clone()));
                last.spawn(recorder.run_upkeep(ended.clone()));
                let ended_by = server.run(shutdown).await;
                ended.cancel();
                last.close();
                last.wait().await;
                ended_by.context("the edge stopped")
            })
        }),
    })
}
