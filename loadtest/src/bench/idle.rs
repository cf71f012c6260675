//! Connecting, and what a connection costs while nothing happens.

use std::time::Duration;

use super::Args;
use super::driver::Driver;
use super::run::{AT_ONCE, Shape, Under, rest};
use super::servers::Servers;
use super::table::{Row, Target, median, quiet};
use crate::load::Speech;
use crate::usage::{self, Clock};

/// Connections of a measurement of connects: enough for a second of work.
const CLIENTS: usize = 16_000;
/// More than one interval of heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(12);

const SPEECHES: [(&str, Speech, f64); 2] = [("Socket.IO", Speech::SocketIo, 6.0), ("/ws", Speech::Ws, 4.0)];

/// What connecting all clients showed.
struct Entry {
    per_second: f64,
    /// Microseconds of the server's CPU for a connection.
    cost: f64,
}

/// Measures connects per second, and what one costs the server alone: the clients and NATS have the other core.
pub(super) fn connects(args: &Args, servers: &Servers) -> anyhow::Result<Vec<Row>> {
    let shape = Shape {
        clients: CLIENTS,
        is_room: false,
        bytes: 128,
    };
    let pids = [&servers.edges[0], &servers.writev.server].map(|server| server.process.pid());
    let used = || -> anyhow::Result<f64> { pids.iter().map(|pid| usage::cpu(*pid)).sum() };
    let once = |under: Under| -> anyhow::Result<(f64, Entry)> {
        rest(servers)?;
        let (clock, before) = (Clock::read(args.machine.server_core)?, used()?);
        let (_driver, seconds) =
            Driver::connected(args.machine.load_core, &under.load(servers, shape), AT_ONCE)?;
        let used = used()? - before;
        let entry = Entry {
            per_second: CLIENTS as f64 / seconds,
            cost: used * 1e6 / CLIENTS as f64,
        };
        Ok((clock.foreign_since(used)?, entry))
    };
    let mut rows = Vec::new();
    for (what, speech, _) in SPEECHES {
        let mut takes = Vec::new();
        for _ in 0..args.rounds {
            let (disturbed, reference) = once(Under::Writev)?;
            let (foreign, edge) = once(Under::Edges { count: 1, speech })?;
            takes.push((foreign.max(disturbed), (edge, reference)));
        }
        let (kept, disturbed) = quiet(takes);
        let row = |name: &str, unit: &str, value: fn(&Entry) -> f64, target| Row {
            what: format!("{name}: {what}"),
            measured: format!("{:.0}{unit}", median(kept.iter().map(|(edge, _)| value(edge)))),
            reference: format!(
                "{:.0}{unit} (writev)",
                median(kept.iter().map(|(_, reference)| value(reference)))
            ),
            value: median(
                kept.iter()
                    .map(|(edge, reference)| value(edge) / value(reference)),
            ),
            unit: "",
            target,
            disturbed,
        };
        let per_second = |entry: &Entry| entry.per_second;
        rows.push(row(
            "connects/s with a token checked",
            "",
            per_second,
            Target::AtLeast(0.5),
        ));
        rows.push(row(
            "CPU of the server for a connect",
            " µs",
            |entry| entry.cost,
            Target::None,
        ));
    }
    Ok(rows)
}

/// Measures resident memory per connection, and the kernel's for both ends.
pub(super) fn memory(args: &Args, servers: &Servers) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let edges = servers
        .edges
        .iter()
        .zip(SPEECHES)
        .map(|(edge, (what, speech, bound))| {
            let under = Under::Edges { count: 1, speech };
            (
                format!("{what} with its personal room"),
                under,
                edge,
                Target::AtMost(bound),
            )
        });
    let reference = (
        "writev reference".to_owned(),
        Under::Writev,
        &servers.writev.server,
        Target::None,
    );
    for (what, under, server, target) in edges.chain([reference]) {
        let pid = server.process.pid();
        let shape = Shape {
            clients: args.idle,
            is_room: false,
            bytes: 128,
        };
        let mut load = under.load(servers, shape);
        load.servers = vec![server.address];
        rest(servers)?;
        let state = || anyhow::Ok((usage::resident(pid)?, usage::tcp_buffers()?, usage::slab()?));
        let before = state()?;
        let (_driver, _) = Driver::connected(args.machine.load_core, &load, AT_ONCE)?;
        std::thread::sleep(HEARTBEATS);
        rest(servers)?;
        let after = state()?;
        let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / 1024.0 / args.idle as f64;
        rows.push(Row {
            what: format!("resident memory per idle connection of {}: {what}", args.idle),
            measured: format!("{:.1} KiB", each(before.0, after.0)),
            reference: format!(
                "kernel, both ends: {:.1} KiB slab, {:.1} KiB buffers",
                each(before.2, after.2),
                each(before.1, after.1)
            ),
            value: each(before.0, after.0),
            unit: " KiB",
            target,
            disturbed: false,
        });
    }
    Ok(rows)
}
