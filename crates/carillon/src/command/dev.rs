//! `carillon dev`: the whole cluster on one machine.

mod banner;
mod cluster;
mod nats;
mod plan;
mod program;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use carillon_service::{shutdown, telemetry};

use crate::cli::File;
use crate::config;

/// How long the last spans may take.
const FLUSH: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    file: File,
    /// How many edges to run
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    edges: u16,
    /// Use the NATS at this URL instead of a nats-server of its own
    #[arg(long, value_name = "URL", conflicts_with = "store")]
    nats: Option<String>,
    /// The nats-server to run; looked for in PATH and in .tools/ otherwise
    #[arg(long, value_name = "PATH", env = "CARILLON_NATS_SERVER")]
    nats_server: Option<PathBuf>,
    /// Keep the streams in this folder over restarts; without it they are new at every start
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let plan = plan::Plan::new(&args, config::read(args.file.config.as_deref())?)?;
    let telemetry = telemetry::start(&plan.config.telemetry, "carillon-dev")?;
    let shutdown = shutdown::on_signal()?;
    // This future stays on the main thread, to which the life of the nats-server is bound.
    let result = cluster::run(&plan, &args, &shutdown).await;
    telemetry.shutdown(FLUSH).await;
    result
}
