//! From publish to client, beside a plain NATS request.

use super::Args;
use super::driver::Driver;
use super::run::{AT_ONCE, Shape, Under, rest};
use super::servers::Servers;
use super::table::{Row, Target, median};
use crate::load::{Kind, Order, Speech};

const RATE: f64 = 5_000.0;
const CLIENTS: usize = 1_000;

/// Measures signals and durable events to personal rooms.
pub(super) fn measure(args: &Args, servers: &Servers) -> anyhow::Result<Vec<Row>> {
    let shape = Shape {
        clients: CLIENTS,
        is_room: false,
        bytes: 128,
    };
    let under = Under::Edges {
        count: 1,
        speech: Speech::SocketIo,
    };
    let (mut driver, _) = Driver::connected(args.machine.load_core, &under.load(servers, shape), AT_ONCE)?;
    rest(servers)?;
    let mut rows = Vec::new();
    for (what, kind, target) in [
        ("signal", Kind::Signal, Target::AtMost(1.5)),
        ("durable", Kind::Durable, Target::None),
    ] {
        let mut takes = Vec::new();
        for _ in 0..args.rounds {
            let request = driver.measure(&Order::Requests {
                rate: RATE,
                seconds: args.seconds,
            })?;
            let event = driver.measure(&Order::Paced {
                kind,
                rate: RATE,
                seconds: args.seconds,
            })?;
            takes.push((event, request));
        }
        let event =
            |value: fn(&crate::load::Measured) -> f64| median(takes.iter().map(|(event, _)| value(event)));
        rows.push(Row {
            what: format!("publish to client, 5 000/s, Socket.IO {what}: p99 above a NATS request"),
            measured: format!(
                "p50 {:.2} ms, p99 {:.2} ms",
                event(|measured| measured.p50_ms),
                event(|measured| measured.p99_ms)
            ),
            reference: format!(
                "p99 {:.2} ms",
                median(takes.iter().map(|(_, request)| request.p99_ms))
            ),
            value: median(takes.iter().map(|(event, request)| event.p99_ms - request.p99_ms)),
            unit: " ms",
            target,
            disturbed: false,
        });
    }
    Ok(rows)
}
