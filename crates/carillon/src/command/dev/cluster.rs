//! Starting everything in order, watching over it, and stopping it in the other order.

use std::future::pending;
use std::time::Duration;

use anyhow::Context as _;
use carillon_bus::Bus;
use carillon_service::shutdown::Deadline;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::nats::Server;
use super::plan::Plan;
use super::store::Store;
use super::{Args, banner, program};
use crate::reload;
use crate::service::{Bound, Kind};

const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long router and publisher may take after the edges.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// A nats-server that ends more often than this is not started again.
const MOST_RESTARTS: u32 = 5;

/// Runs the cluster until shutdown.
pub(super) async fn run(plan: &Plan, args: &Args, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let Some(started) = shutdown.run_until_cancelled(start(plan, args, shutdown)).await else {
        return Ok(());
    };
    let mut cluster = started?;
    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        result = cluster.watch() => result,
    };
    cluster.stop(plan).await;
    result
}

struct Cluster {
    /// Dropped last: whoever still runs may still write.
    edges: Group,
    backends: Group,
    nats: Option<Server>,
}

/// Services that stop together.
#[derive(Default)]
struct Group {
    tasks: JoinSet<(Kind, anyhow::Result<()>)>,
    stop: CancellationToken,
}

async fn start(plan: &Plan, args: &Args, shutdown: &CancellationToken) -> anyhow::Result<Cluster> {
    let mut config = plan.config.clone();
    let nats = match plan.nats {
        Some(address) => {
            let program = program::find(args.nats_server.as_deref())?;
            let store = Store::open(args.store.as_deref(), address)?;
            Some(Server::start(program, store, address).await?)
        }
        None => None,
    };
    if let Some(nats) = &nats {
        config.nats.url = nats.url();
    }
    let mut cluster = Cluster {
        edges: Group::default(),
        backends: Group::default(),
        nats,
    };
    let backends = [(Kind::Router, config.clone()), (Kind::Publisher, config.clone())];
    let edges = plan.edges.iter().map(|edge| (Kind::Edge, edge.clone()));
    let mut services = Vec::new();
    let mut reloads = Vec::new();
    for (kind, mut own) in backends.into_iter().chain(edges) {
        own.nats.clone_from(&config.nats);
        let bus = Bus::connect(&own.nats, kind.process()).await?;
        let mut bound = kind.bind(&own, bus).await?;
        reloads.extend(bound.reload.take());
        let service = banner::Service::new(&bound);
        let group = match kind {
            Kind::Edge => &mut cluster.edges,
            Kind::Router | Kind::Publisher => &mut cluster.backends,
        };
        group.run(bound);
        services.push(service);
    }
    tokio::select! {
        ready = all_ready(&services) => ready?,
        ended = cluster.watch() => ended?,
    }
    if let Some(path) = &args.file.config {
        reload::follow(path.clone(), reloads, shutdown.clone())?;
    }
    banner::print(plan, args, &services, &config.nats, cluster.nats.as_ref())?;
    Ok(cluster)
}

async fn all_ready(services: &[banner::Service]) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + READY_LIMIT;
    for service in services {
        let ready = tokio::time::timeout_at(deadline, service.readiness.wait_ready());
        if ready.await.is_err() {
            let reasons = service.readiness.reasons().join(", ");
            anyhow::bail!(
                "the {} at {} was not ready after {READY_LIMIT:?}: {reasons}",
                service.kind.name(),
                service.address
            );
        }
    }
    Ok(())
}

impl Group {
    fn run(&mut self, bound: Bound) {
        let (kind, stop) = (bound.kind, self.stop.clone());
        self.tasks.spawn(async move { (kind, bound.run(stop).await) });
    }

    /// Waits until one of the services has ended, which none does before it is asked to.
    async fn first_end(&mut self) -> anyhow::Result<()> {
        match self.tasks.join_next().await {
            Some(Ok((kind, result))) => {
                result?;
                anyhow::bail!("the {} ended by itself", kind.name())
            }
            Some(Err(error)) => Err(error).context("a service failed"),
            None => pending().await,
        }
    }

    async fn stop(&mut self, name: &'static str, limit: Duration) {
        self.stop.cancel();
        let ending = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Ok((kind, Err(error))) = ended {
                    tracing::warn!(
                        reason = format!("{error:#}"),
                        "the {} stopped with an error",
                        kind.name()
                    );
                }
            }
        };
        Deadline::after(limit).step(name, ending).await;
    }
}

impl Cluster {
    /// Watches over everything; returns when something ended that cannot be started again.
    async fn watch(&mut self) -> anyhow::Result<()> {
        let mut restarts = 0;
        loop {
            tokio::select! {
                end = self.edges.first_end() => return end,
                end = self.backends.first_end() => return end,
                status = ended(self.nats.as_mut()) => {
                    let status = status?;
                    restarts += 1;
                    anyhow::ensure!(restarts <= MOST_RESTARTS, "the nats-server ended again ({status})");
                    tracing::warn!(%status, "the nats-server ended, it is started again");
                }
            }
            if let Some(nats) = &mut self.nats {
                nats.restart().await?;
            }
        }
    }

    async fn stop(mut self, plan: &Plan) {
        self.edges
            .stop("edges", plan.config.edge.drain + STOP_LIMIT)
            .await;
        self.backends.stop("router and publisher", STOP_LIMIT).await;
        if let Some(nats) = self.nats {
            nats.stop().await;
        }
    }
}

async fn ended(nats: Option<&mut Server>) -> std::io::Result<std::process::ExitStatus> {
    match nats {
        Some(nats) => nats.ended().await,
        None => pending().await,
    }
}
