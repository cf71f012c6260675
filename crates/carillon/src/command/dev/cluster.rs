//! Starting everything in order, watching over it, and stopping it in the other order.

use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use carillon_bus::Bus;
use carillon_service::shutdown::Deadline;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::nats::Server;
use super::plan::Plan;
use super::store::Store;
use super::{Args, banner, program};
use crate::config::Config;
use crate::reload;
use crate::service::{Bound, Kind};

const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long router and publisher may take after the edges.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// A nats-server that ends more often than this is not started again.
const MOST_RESTARTS: u32 = 5;

/// Runs the cluster until shutdown, or until the terminal it runs in is gone.
pub(super) async fn run(plan: &Plan, args: &Args, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let mut cluster = Cluster::default();
    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        gone = terminal_gone() => gone,
        result = cluster.work(plan, args, shutdown) => result,
    };
    shutdown.cancel();
    cluster.stop(plan).await;
    result
}

#[derive(Default)]
struct Cluster {
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
    /// Starts everything and watches over it; returns when something ended that cannot be started again.
    async fn work(&mut self, plan: &Plan, args: &Args, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let mut nats = plan.config.nats.clone();
        if let Some(address) = plan.nats {
            let program = program::find(args.nats_server.as_deref())?;
            let store = Store::open(args.store.as_deref(), address)?;
            let server = self.nats.insert(Server::launch(program, store, address)?);
            server.ready().await?;
            nats.url = server.url();
        }
        let backends = [(Kind::Router, &plan.config), (Kind::Publisher, &plan.config)];
        let edges = plan.edges.iter().map(|edge| (Kind::Edge, edge));
        let (mut services, mut reloads) = (Vec::new(), Vec::new());
        let mut publisher = None;
        for (kind, config) in backends.into_iter().chain(edges) {
            let bus = Bus::connect(&nats, kind.process()).await?;
            let mut config = Config {
                nats: nats.clone(),
                ..config.clone()
            };
            // The page's example is for the publisher, whose address is known by now.
            config.edge.demo_publisher = config.edge.demo_publisher.or_else(|| publisher.clone());
            let mut bound = kind.bind(&config, bus).await?;
            reloads.extend(bound.reload.take());
            if kind == Kind::Publisher {
                publisher = Some(format!("http://{}", bound.address));
            }
            services.push(banner::Service::new(&bound));
            match kind {
                Kind::Edge => self.edges.run(bound),
                Kind::Router | Kind::Publisher => self.backends.run(bound),
            }
        }
        tokio::select! {
            ready = all_ready(&services) => ready?,
            ended = self.watch() => return ended,
        }
        if let Some(path) = &args.file.config {
            reload::follow(path.clone(), reloads, shutdown.clone())?;
        }
        banner::print(plan, args, &services, &nats, self.nats.as_ref())?;
        self.watch().await
    }

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

    /// Those who write end before what they write to.
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

async fn ended(nats: Option<&mut Server>) -> std::io::Result<ExitStatus> {
    match nats {
        Some(nats) => nats.ended().await,
        None => pending().await,
    }
}

/// A hangup asks for new rules too, so only one with which the terminal went is a reason to stop.
async fn terminal_gone() -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        return pending().await;
    }
    let mut hangup = signal(SignalKind::hangup())?;
    while hangup.recv().await.is_some() {
        if !io::stdin().is_terminal() {
            return Ok(());
        }
    }
    pending().await
}
