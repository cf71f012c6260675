//! Connecting, and what a connection costs while nothing happens.

use std::time::Duration;

use super::Args;
use super::driver::Driver;
use super::run::{AT_ONCE, Shape, Under, rest};
use super::servers::Servers;
use super::table::{Row, Target, median, quiet};
use crate::load::Speech;
use crate::usage::{self, Clock};

/// Connections of a measurement of connects.
const CLIENTS: usize = 4_000;
/// More than one interval of heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(12);

const SPEECHES: [(&str, Speech, f64); 2] = [("Socket.IO", Speech::SocketIo, 6.0), ("/ws", Speech::Ws, 4.0)];

/// Measures connects per second.
pub(super) fn connects(args: &Args, servers: &Servers) -> anyhow::Result<Vec<Row>> {
    let shape = Shape {
        clients: CLIENTS,
        is_room: false,
        bytes: 128,
    };
    let once = |under: Under| -> anyhow::Result<(f64, f64)> {
        rest(servers)?;
        let clock = Clock::read(args.machine.server_core)?;
        let begun = std::time::Instant::now();
        let used = |servers: &Servers| -> anyhow::Result<f64> {
            let edge = usage::cpu(servers.edges[0].process.pid())?;
            Ok(edge + usage::cpu(servers.writev.server.process.pid())?)
        };
        let before = used(servers)?;
        let (_driver, seconds) =
            Driver::connected(args.machine.load_core, &under.load(servers, shape), AT_ONCE)?;
        let foreign = clock.foreign_since(used(servers)? - before)?;
        debug_assert!(begun.elapsed().as_secs_f64() >= seconds);
        Ok((CLIENTS as f64 / seconds, foreign))
    };
    let mut rows = Vec::new();
    for (what, speech, _) in SPEECHES {
        let mut takes = Vec::new();
        for _ in 0..args.rounds {
            let (reference, disturbed) = once(Under::Writev)?;
            let (edge, foreign) = once(Under::Edges { count: 1, speech })?;
            takes.push((foreign.max(disturbed), (edge, reference)));
        }
        let (kept, disturbed) = quiet(takes);
        rows.push(Row {
            what: format!("connects/s with a token checked: {what}"),
            measured: format!("{:.0}", median(kept.iter().map(|(edge, _)| *edge))),
            reference: format!(
                "{:.0} (writev)",
                median(kept.iter().map(|(_, reference)| *reference))
            ),
            value: median(kept.iter().map(|(edge, reference)| edge / reference)),
            unit: "",
            target: Target::AtLeast(0.5),
            disturbed,
        });
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
