//! Many connections over many edges: presence is asked, and events go to the last and the first.

use std::time::{Duration, Instant};

use super::Machine;
use super::driver::Driver;
use super::run::{AT_ONCE, Shape, Under};
use super::servers::Servers;
use crate::load::{Kind, Measured, Order, Speech};
use crate::{say, usage};

/// Connections of one load process, below the bound of 20 000 files.
const PER_PROCESS: usize = 18_000;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: Machine,
    #[arg(long, default_value_t = 14)]
    edges: u16,
    #[arg(long, default_value_t = 250_000)]
    connections: usize,
    #[arg(long, default_value = "ws")]
    speech: Speech,
    /// Seconds between two pings of a connection
    #[arg(long, default_value_t = 25)]
    heartbeat: u32,
    /// Events per second to personal rooms while all are connected
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Says so where the kernel's table of connections is too small. It has one while there are rules that need it, such as
/// Docker's, and drops what does not fit without an answer.
fn warn_of_tracking(connections: usize) -> anyhow::Result<()> {
    let read = |what: &str| -> Option<usize> {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{what}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let (Some(most), Some(now)) = (read("max"), read("count")) else {
        return Ok(());
    };
    let needed = now + connections + connections / 10;
    if needed > most {
        say(&format!(
            "the kernel tracks {most} connections at most and drops further ones: \
             sysctl -w net.netfilter.nf_conntrack_max={needed}"
        ))?;
    }
    Ok(())
}

/// Connects as many clients as asked, and tells how far it came.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    warn_of_tracking(args.connections)?;
    let servers = Servers::start(&args.machine, args.edges, args.heartbeat)?;
    let begun = Instant::now();
    let under = Under::Edges {
        count: servers.edges.len(),
        speech: args.speech,
    };
    let mut drivers = Vec::new();
    let mut connected = 0;
    while connected < args.connections {
        let clients = PER_PROCESS.min(args.connections - connected);
        let mut load = under.load(
            &servers,
            Shape {
                clients,
                is_room: false,
                bytes: 128,
            },
        );
        load.first_user = connected;
        let mut driver = Driver::start(args.machine.load_core, &load)?;
        let (ready, seconds) = driver.connect(AT_ONCE)?;
        connected += ready;
        say(&format!(
            "{connected} connections after {:.0} s ({:.0}/s), edges {}",
            begun.elapsed().as_secs_f64(),
            ready as f64 / seconds,
            memory(&servers)?
        ))?;
        drivers.push(driver);
        if ready < clients {
            say(&format!("{} clients did not connect", clients - ready))?;
            break;
        }
    }
    presence(&servers, connected)?;
    for (which, driver) in [("first", 0), ("last", drivers.len() - 1)] {
        let order = Order::Paced {
            kind: Kind::Durable,
            rate: args.rate,
            seconds: args.seconds,
        };
        let measured: Measured = drivers[driver].measure(&order)?;
        say(&format!(
            "durable events to the {which} clients: {} of {} delivered, {} twice, p50 {:.1} ms, p99 {:.1} ms",
            measured.delivered, measured.expected, measured.duplicates, measured.p50_ms, measured.p99_ms
        ))?;
    }
    Ok(())
}

fn memory(servers: &Servers) -> anyhow::Result<String> {
    let mut total = 0;
    for edge in &servers.edges {
        total += usage::resident(edge.process.pid())?;
    }
    let mebibytes = |bytes: u64| bytes >> 20;
    Ok(format!(
        "{} MiB, router {} MiB, NATS {} MiB",
        mebibytes(total),
        mebibytes(usage::resident(servers.router.pid())?),
        mebibytes(usage::resident(servers.nats.process.pid())?)
    ))
}

/// Asks for the members of the room that everyone hears, until the number is right.
fn presence(servers: &Servers, connected: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    let wanted = connected as u64;
    loop {
        let counted = crate::load::presence(servers.nats.address, "rt.presence.main.all")?;
        if counted == Some(wanted) || begun.elapsed() > Duration::from_secs(60) {
            let counted = counted.map_or("no answer".to_owned(), |count| count.to_string());
            return Ok(say(&format!(
                "presence: {counted} of {connected} after {:.1} s",
                begun.elapsed().as_secs_f64()
            ))?);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
