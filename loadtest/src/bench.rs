//! The standard table.

pub(crate) mod cluster;
mod driver;
mod idle;
mod latency;
mod mass;
mod run;
mod saturation;
mod servers;
mod shapes;
mod table;

use std::path::PathBuf;

use crate::process::Core;
use crate::say;

use servers::Servers;
use table::Row;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: Machine,
    /// Takes of each measurement; the middle one of those that were not disturbed counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a take
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Connections of the idle measurement; a process may open 20 000 files on a small machine
    #[arg(long, default_value_t = 19_000)]
    idle: usize,
    /// Events per second to personal rooms: the more come, the more each process does at once
    #[arg(long, default_value_t = 5_000.0)]
    personal_rate: f64,
    /// Parts to run: cpu, personal, saturation, latency, connects, idle, mass; all without
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Where processes run, and what is run.
#[derive(Debug, Clone, clap::Args)]
struct Machine {
    /// The program to measure, built for release
    #[arg(long, default_value = "target/release/carillon")]
    carillon: PathBuf,
    #[arg(long, default_value = ".tools/nats-server", env = "CARILLON_NATS_SERVER")]
    nats_server: PathBuf,
    /// The core of the edges and references
    #[arg(long, default_value_t = 0)]
    server_core: Core,
    /// The core of the clients, NATS, the publisher and the router
    #[arg(long, default_value_t = 1)]
    load_core: Core,
    /// The first of the ports that servers listen on, below those that clients get
    #[arg(long, default_value_t = 27_000)]
    base_port: u16,
}

/// Seconds between two pings, which idle connections answer while their memory is measured.
const HEARTBEAT: u32 = 10;

type Part = fn(&Args, &Servers) -> anyhow::Result<Vec<Row>>;

const PARTS: [(&str, Part); 7] = [
    ("cpu", shapes::rooms),
    ("personal", shapes::personal),
    ("saturation", saturation::measure),
    ("latency", latency::measure),
    ("connects", idle::connects),
    ("idle", idle::memory),
    ("mass", mass::measure),
];

/// Runs the parts asked for and prints their rows as they come.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    for name in &args.only {
        anyhow::ensure!(
            PARTS.iter().any(|(part, _)| part == name),
            "there is no part {name}"
        );
    }
    say(&table::head())?;
    for (name, part) in PARTS {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        // Each part has a cluster of its own: what one leaves behind does not burden the next.
        let servers = Servers::start(&args.machine, 2, HEARTBEAT)?;
        for row in part(args, &servers)? {
            say(&row.to_string())?;
        }
    }
    say(table::LEGEND)?;
    Ok(())
}
