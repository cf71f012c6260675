//! CPU per delivery at a rate that leaves the server idle most of the time.

use super::Args;
use super::run::{Shape, Take, Under, deliveries, take};
use super::servers::Servers;
use super::table::{Row, Target, median, quiet};
use crate::load::{Kind, Order, Speech};

/// Deliveries per second: a fraction of what a core can do.
const RATE: f64 = 20_000.0;

struct Variant {
    what: &'static str,
    edges: usize,
    speech: Speech,
    kind: Kind,
    /// For the edges alone.
    alone: Target,
    /// For the edges with NATS and the publisher.
    all: Target,
}

const fn variant(what: &'static str, edges: usize, speech: Speech, kind: Kind) -> Variant {
    Variant {
        what,
        edges,
        speech,
        kind,
        alone: Target::None,
        all: Target::None,
    }
}

/// Measures rooms: the epoll reference and each variant in turn, as often as asked.
pub(super) fn rooms(args: &Args, servers: &Servers) -> anyhow::Result<Vec<Row>> {
    let room = |clients, bytes| Shape {
        clients,
        is_room: true,
        bytes,
    };
    let signal = |what| variant(what, 1, Speech::SocketIo, Kind::Signal);
    let groups = [
        (
            "room of 1 000, 128 B",
            room(1_000, 128),
            vec![
                Variant {
                    alone: Target::AtMost(1.2),
                    ..signal("Socket.IO signal")
                },
                variant("/ws signal", 1, Speech::Ws, Kind::Signal),
                variant("Socket.IO durable", 1, Speech::SocketIo, Kind::Durable),
                variant("Socket.IO signal, two edges", 2, Speech::SocketIo, Kind::Signal),
            ],
        ),
        (
            "room of 1 000, 1 KiB",
            room(1_000, 1_024),
            vec![
                signal("Socket.IO signal"),
                variant("/ws durable", 1, Speech::Ws, Kind::Durable),
            ],
        ),
        (
            "room of 10 000, 128 B",
            room(10_000, 128),
            vec![
                signal("Socket.IO signal"),
                variant("Socket.IO durable, two edges", 2, Speech::SocketIo, Kind::Durable),
            ],
        ),
    ];
    let mut rows = Vec::new();
    for (name, shape, variants) in groups {
        rows.extend(group(args, servers, RATE, name, shape, &variants)?);
    }
    Ok(rows)
}

/// Measures personal rooms, where each delivery is an event of its own.
pub(super) fn personal(args: &Args, servers: &Servers) -> anyhow::Result<Vec<Row>> {
    let shape = Shape {
        clients: 10_000,
        is_room: false,
        bytes: 128,
    };
    let signal = |what| variant(what, 1, Speech::SocketIo, Kind::Signal);
    let variants = vec![
        Variant {
            alone: Target::AtMost(1.6),
            all: Target::AtMost(2.5),
            ..signal("Socket.IO signal")
        },
        variant("/ws signal", 1, Speech::Ws, Kind::Signal),
        Variant {
            all: Target::AtMost(4.0),
            ..variant("Socket.IO durable, two edges", 2, Speech::SocketIo, Kind::Durable)
        },
    ];
    let name = format!("10 000 personal rooms, 128 B, {}/s", args.personal_rate);
    group(args, servers, args.personal_rate, &name, shape, &variants)
}

fn group(
    args: &Args,
    servers: &Servers,
    per_second: f64,
    name: &str,
    shape: Shape,
    variants: &[Variant],
) -> anyhow::Result<Vec<Row>> {
    let rate = per_second / deliveries(shape);
    let once = |under, kind| -> anyhow::Result<Take> {
        let order = Order::Paced {
            kind,
            rate,
            seconds: args.seconds,
        };
        let takes = take(&args.machine, servers, under, shape, &[order])?;
        takes
            .into_iter()
            .next()
            .ok_or_else(|| anyhow::anyhow!("an order has no take"))
    };
    let mut takes: Vec<Vec<(f64, (Take, Take))>> = variants.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        let reference = once(Under::Epoll, Kind::Signal)?;
        for (variant, takes) in variants.iter().zip(&mut takes) {
            let edge = once(
                Under::Edges {
                    count: variant.edges,
                    speech: variant.speech,
                },
                variant.kind,
            )?;
            takes.push((edge.foreign.max(reference.foreign), (edge, reference.clone())));
        }
    }
    let rows = variants.iter().zip(takes).flat_map(|(variant, takes)| {
        let (kept, disturbed) = quiet(takes);
        let of = |value: fn(&Take) -> f64| median(kept.iter().map(|(edge, _)| value(edge)));
        let reference = median(kept.iter().map(|(_, reference)| reference.cost()));
        let ratio = |value: fn(&Take) -> f64| {
            median(
                kept.iter()
                    .map(|(edge, reference)| value(edge) / reference.cost()),
            )
        };
        let missing: u64 = kept
            .iter()
            .map(|(edge, _)| edge.measured.missing + edge.measured.duplicates)
            .sum();
        let note = if missing > 0 {
            format!(", {missing} lost or twice")
        } else {
            String::new()
        };
        let row = |what: &str, value: fn(&Take) -> f64, target| Row {
            what: format!("CPU, {name}, {}: {what}", variant.what),
            measured: format!("{:.1} µs{note}", of(value)),
            reference: format!("{reference:.1} µs (epoll)"),
            value: ratio(value),
            unit: "",
            target,
            disturbed,
        };
        let who = if variant.edges == 1 { "edge" } else { "edges" };
        [
            row(who, Take::cost, variant.alone),
            row("with NATS and publisher", Take::cost_of_all, variant.all),
        ]
    });
    Ok(rows.collect())
}
