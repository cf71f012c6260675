//! A process that is one service: waiting for NATS, working, and stopping in time.

use std::net::SocketAddr;
use std::time::Duration;

use carillon_bus::{Bus, ConnectError};
use carillon_service::admin::AdminServer;
use carillon_service::readiness::Readiness;
use carillon_service::settings::Nats;
use carillon_service::shutdown::{self, Deadline};
use carillon_service::{metrics, telemetry};
use tokio_util::sync::CancellationToken;

use crate::cli::File;
use crate::config::{self, Config};
use crate::reload;
use crate::service::Kind;

/// Longest pause between two attempts to reach NATS.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Attempts between two lines in the log.
const QUIET_ATTEMPTS: u32 = 10;
/// How long the last spans may take, out of the time that a stop has.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs a service until a signal.
pub(crate) async fn run(kind: Kind, file: File) -> anyhow::Result<()> {
    let config = config::load(file.config.as_deref())?.value;
    if kind == Kind::Edge
        && let Some(reason) = config.closed_to_clients()
    {
        anyhow::bail!(reason);
    }
    let telemetry = telemetry::start(&config.telemetry, kind.process())?;
    let shutdown = shutdown::on_signal()?;
    let result = serve(kind, &config, file, shutdown).await;
    telemetry.shutdown(FLUSH).await;
    result
}

async fn serve(kind: Kind, config: &Config, file: File, shutdown: CancellationToken) -> anyhow::Result<()> {
    let starting = async {
        let bus = connect(&config.nats, kind.process(), kind.admin(config)).await?;
        kind.bind(config, bus).await
    };
    let mut bound = match shutdown.run_until_cancelled(starting).await {
        Some(bound) => bound?,
        None => return Ok(()),
    };
    tracing::info!(address = %bound.address, admin = %bound.admin, "{} is listening", kind.name());
    if let (Some(reload), Some(path)) = (bound.reload.take(), file.config) {
        reload::follow(path, vec![reload], shutdown.clone())?;
    }
    let work = bound.run(shutdown.clone());
    tokio::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = shutdown.cancelled() => {}
    }
    let limit = kind.stop_limit(config);
    let deadline = Deadline::after(limit.saturating_sub(FLUSH.min(limit / 4)));
    deadline.step(kind.name(), work).await.unwrap_or(Ok(()))
}

/// Connects to NATS, however long that takes; meanwhile the process is alive and not ready.
async fn connect(nats: &Nats, name: &str, admin: SocketAddr) -> anyhow::Result<Bus> {
    let error = match Bus::connect(nats, name).await {
        Ok(bus) => return Ok(bus),
        Err(error) => error,
    };
    let readiness = Readiness::new();
    let _away = readiness.hold("nats");
    let health = AdminServer::bind(admin, readiness, metrics::install()?)?;
    let answered = CancellationToken::new();
    let (bus, ()) = tokio::join!(
        async {
            let _stop = answered.clone().drop_guard();
            retry(nats, name, error).await
        },
        health.run(answered.clone())
    );
    bus
}

async fn retry(nats: &Nats, name: &str, mut error: ConnectError) -> anyhow::Result<Bus> {
    let mut pause = Duration::from_millis(100);
    for attempt in 0u32.. {
        if !matches!(error, ConnectError::Connect { .. }) {
            return Err(error.into());
        }
        if attempt % QUIET_ATTEMPTS == 0 {
            let reason = anyhow::Error::new(error);
            tracing::warn!(reason = format!("{reason:#}"), "waiting for NATS");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        error = match Bus::connect(nats, name).await {
            Ok(bus) => return Ok(bus),
            Err(error) => error,
        };
    }
    unreachable!("the attempts have no end")
}
