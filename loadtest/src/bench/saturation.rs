//! Most deliveries per second in a room of 1 000.

use super::Args;
use super::run::{Shape, Take, Under, take};
use super::servers::Servers;
use super::table::{Row, Target, median, quiet};
use crate::load::{Kind, Order, Speech};

/// Events under way at once; the best that keeps to the bound of latency counts.
const WINDOWS: [u64; 4] = [8, 32, 96, 192];
/// Milliseconds that 99 of 100 deliveries may take.
const LATENCY: f64 = 250.0;

/// Measures how much each server delivers.
pub(super) fn measure(args: &Args, servers: &Servers) -> anyhow::Result<Vec<Row>> {
    let edge = |speech| Under::Edges { count: 1, speech };
    let compared = [
        (
            "Socket.IO signal, 128 B",
            edge(Speech::SocketIo),
            128,
            Kind::Signal,
            Target::AtLeast(0.8),
        ),
        (
            "/ws signal, 128 B",
            edge(Speech::Ws),
            128,
            Kind::Signal,
            Target::None,
        ),
        (
            "Socket.IO durable, 128 B",
            edge(Speech::SocketIo),
            128,
            Kind::Durable,
            Target::None,
        ),
        (
            "Socket.IO signal, 1 KiB",
            edge(Speech::SocketIo),
            1_024,
            Kind::Signal,
            Target::None,
        ),
        (
            "epoll reference, 128 B",
            Under::Epoll,
            128,
            Kind::Signal,
            Target::None,
        ),
    ];
    let mut rows = Vec::new();
    for (what, under, bytes, kind, target) in compared {
        let shape = Shape {
            clients: 1_000,
            is_room: true,
            bytes,
        };
        let mut takes = Vec::new();
        for _ in 0..args.rounds {
            let reference = best(args, servers, Under::Writev, shape, Kind::Signal)?;
            let edge = best(args, servers, under, shape, kind)?;
            takes.push((edge.foreign.max(reference.foreign), (edge, reference)));
        }
        let (kept, disturbed) = quiet(takes);
        let rate = median(kept.iter().map(|(edge, _)| edge.per_second()));
        let p99 = median(kept.iter().map(|(edge, _)| edge.measured.p99_ms));
        let reference = median(kept.iter().map(|(_, reference)| reference.per_second()));
        rows.push(Row {
            what: format!("most deliveries/s, room of 1 000: {what}"),
            measured: format!("{:.2} M at p99 {p99:.0} ms", rate / 1e6),
            reference: format!("{:.2} M (writev)", reference / 1e6),
            value: median(
                kept.iter()
                    .map(|(edge, reference)| edge.per_second() / reference.per_second()),
            ),
            unit: "",
            target,
            disturbed,
        });
    }
    Ok(rows)
}

fn best(args: &Args, servers: &Servers, under: Under, shape: Shape, kind: Kind) -> anyhow::Result<Take> {
    let seconds = (args.seconds / 2.0).max(1.0);
    let orders = WINDOWS.map(|window| Order::Window {
        kind,
        window,
        seconds,
    });
    let takes = take(&args.machine, servers, under, shape, &orders)?;
    let whole: Vec<Take> = takes
        .into_iter()
        .filter(|take| take.measured.missing == 0)
        .collect();
    let in_time = whole.iter().filter(|take| take.measured.p99_ms < LATENCY);
    let best = in_time.max_by(|a, b| a.per_second().total_cmp(&b.per_second()));
    // On a busy machine no window may be in time; the row shows the latency.
    let soonest = || {
        whole
            .iter()
            .min_by(|a, b| a.measured.p99_ms.total_cmp(&b.measured.p99_ms))
    };
    best.or_else(soonest)
        .cloned()
        .ok_or_else(|| anyhow::anyhow!("every window lost deliveries"))
}
