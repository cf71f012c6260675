//! A mass disconnect and return, while others are served.

use super::Args;
use super::driver::Driver;
use super::run::{AT_ONCE, Shape, Under, rest};
use super::servers::Servers;
use super::table::{Row, Target};
use crate::load::{Answer, Kind, Order, Speech};

const OTHERS: usize = 1_000;
const LEAVING: usize = 15_000;
/// Events per second to the room of the others.
const RATE: f64 = 20.0;

/// Measures what the others notice.
pub(super) fn measure(args: &Args, servers: &Servers) -> anyhow::Result<Vec<Row>> {
    let under = Under::Edges {
        count: 1,
        speech: Speech::SocketIo,
    };
    let core = args.machine.load_core;
    let room = Shape {
        clients: OTHERS,
        is_room: true,
        bytes: 128,
    };
    let (mut others, _) = Driver::connected(core, &under.load(servers, room), AT_ONCE)?;
    let crowd = Shape {
        clients: LEAVING,
        is_room: false,
        bytes: 128,
    };
    let mut crowd = under.load(servers, crowd);
    crowd.first_user = OTHERS;
    let (mut crowd, first) = Driver::connected(core, &crowd, AT_ONCE)?;
    rest(servers)?;
    let calm = others.measure(&Order::Paced {
        kind: Kind::Signal,
        rate: RATE,
        seconds: args.seconds,
    })?;
    // As long as the first connect took, and half as long again: the leaving takes its time too.
    others.begin(&Order::Paced {
        kind: Kind::Signal,
        rate: RATE,
        seconds: 1.5 * first + 2.0,
    })?;
    crowd.order(&Order::Drop)?;
    let (returned, seconds) = crowd.connect(AT_ONCE)?;
    let Answer::Measured(storm) = others.finish()? else {
        anyhow::bail!("the load process answered something else");
    };
    let lost = storm.missing + storm.duplicates + storm.closed;
    let note = if lost > 0 {
        format!(", {lost} lost, twice or closed")
    } else {
        String::new()
    };
    Ok(vec![Row {
        what: format!("p99 of {OTHERS} others while {LEAVING} leave and {returned} return in {seconds:.1} s"),
        measured: format!("{:.1} ms, max {:.0} ms{note}", storm.p99_ms, storm.max_ms),
        reference: format!("{:.1} ms before", calm.p99_ms),
        value: storm.p99_ms,
        unit: " ms",
        target: Target::AtMost(100.0),
        disturbed: false,
    }])
}
