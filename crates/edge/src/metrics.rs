//! Names and descriptions of the edge's metrics.

use std::sync::LazyLock;

use carillon_bus::history::now;
use carillon_protocol::session::Transport;
use metrics::{Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::frame::Broadcast;
use crate::namespace::Namespace;

const CONNECTIONS: &str = "ws_connections_active";
const ACCEPTED: &str = "ws_connections_accepted_total";
const CLOSED: &str = "ws_connections_closed_total";
const RECOVERED: &str = "ws_sessions_recovered_total";
const SENT: &str = "ws_messages_sent_total";
const RECEIVED: &str = "ws_messages_received_total";
const ERRORS: &str = "ws_errors_total";
const LATENCY: &str = "ws_latency_seconds";
const GAPS: &str = "edge_gaps_total";
const REPAIRED: &str = "edge_events_repaired_total";
const SURPLUS: &str = "edge_connections_surplus";
const RELEASED: &str = "edge_connections_released_total";

/// Codes that are counted by their name.
const KNOWN: [&str; 26] = [
    "slow_client",
    "repair_timeout",
    "rate_limited",
    "forbidden",
    "unknown_event",
    "bad_event",
    "bad_data",
    "too_large",
    "too_deep",
    "no_handler",
    "timeout",
    "bad_json",
    "bad_frame",
    "bad_field",
    "missing_field",
    "unknown_type",
    "unauthorized",
    "unavailable",
    "too_many_connections",
    "too_many_rooms",
    "bad_reply",
    "history_lost",
    "bad_room",
    "not_member",
    "overloaded",
    "lifecycle_dropped",
];

/// Close codes of which many may come at once, as with a crash, an outage or a drain.
const CLOSES: [&str; 7] = ["1000", "1001", "1002", "1006", "1008", "1012", "1013"];

/// Describes every metric of the edge. Counters begin at zero: what one shows first is no rise to Prometheus, so the first
/// storm, gap or loss after a start would not be told.
pub(crate) fn describe() {
    describe_gauge!(CONNECTIONS, "connections that are open, by transport");
    describe_counter!(ACCEPTED, "connections that were accepted, by transport");
    describe_counter!(CLOSED, "connections that were closed, by close code");
    describe_counter!(
        RECOVERED,
        "sessions that were asked to be recovered, by whether they were"
    );
    describe_counter!(SENT, "events that were sent to clients, by namespace and kind");
    describe_counter!(RECEIVED, "messages that came from clients, by namespace");
    describe_counter!(ERRORS, "refused actions and failures, by code");
    describe_histogram!(
        LATENCY,
        metrics::Unit::Seconds,
        "time from an event's acceptance to its write to a client"
    );
    describe_counter!(GAPS, "rooms in which a missing event was noticed");
    describe_counter!(
        REPAIRED,
        "events that were read from history because their delivery was missing"
    );
    describe_gauge!(
        SURPLUS,
        "connections above the mean of all edges; 0 at or below it"
    );
    describe_counter!(
        RELEASED,
        "connections that were closed to even out the edges, as after a scale-out"
    );
    for transport in [
        Transport::Websocket,
        Transport::Polling,
        Transport::Ws,
        Transport::Sse,
    ] {
        gauge!(CONNECTIONS, "transport" => transport.as_str()).increment(0.0);
        counter!(ACCEPTED, "transport" => transport.as_str()).increment(0);
    }
    for code in CLOSES {
        counter!(CLOSED, "code" => code).increment(0);
    }
    for done in [true, false] {
        counter!(RECOVERED, "recovered" => yes_or_no(done)).increment(0);
    }
    for name in [GAPS, REPAIRED, RELEASED] {
        counter!(name).increment(0);
    }
    for code in KNOWN {
        counter!(ERRORS, "code" => code).increment(0);
    }
    let _ = histogram!(LATENCY);
}

pub(crate) fn opened(transport: Transport) {
    gauge!(CONNECTIONS, "transport" => transport.as_str()).increment(1.0);
    counter!(ACCEPTED, "transport" => transport.as_str()).increment(1);
}

pub(crate) fn closed(transport: Transport, code: u16) {
    gauge!(CONNECTIONS, "transport" => transport.as_str()).decrement(1.0);
    // Clients choose from there on as they like.
    let code = if code < 3000 {
        code.to_string()
    } else {
        "other".to_owned()
    };
    counter!(CLOSED, "code" => code).increment(1);
}

/// Counts a connection that changed its transport.
pub(crate) fn changed(from: Transport, to: Transport) {
    gauge!(CONNECTIONS, "transport" => from.as_str()).decrement(1.0);
    gauge!(CONNECTIONS, "transport" => to.as_str()).increment(1.0);
}

pub(crate) fn recovered(done: bool) {
    counter!(RECOVERED, "recovered" => yes_or_no(done)).increment(1);
}

fn yes_or_no(done: bool) -> &'static str {
    if done { "yes" } else { "no" }
}

/// Counts an event that is sent to a client; returns when it was accepted if its way is to be measured, or else 0.
pub(crate) fn sent(namespace: &Namespace, broadcast: &Broadcast) -> u64 {
    namespace.counters.count(broadcast.sequence.is_some());
    // The first write of an event is measured, and one in sixteen of the others: a clock for each costs more than
    // the write of a small frame in a large room.
    if broadcast.is_untimed() || fastrand::u8(..16) == 0 {
        broadcast.event.time
    } else {
        0
    }
}

/// Counts events that are sent to a client as one piece; returns when the one whose way is to be measured was accepted,
/// or else 0.
pub(crate) fn sent_joined(namespace: &Namespace, events: &[std::sync::Arc<Broadcast>]) -> u64 {
    let durable = events.iter().filter(|event| event.sequence.is_some()).count() as u64;
    namespace.counters.durable.increment(durable);
    namespace
        .counters
        .signals
        .increment(events.len() as u64 - durable);
    let untimed = events.iter().find(|event| event.is_untimed());
    // Of the others as often as one by one, for pieces of up to sixteen.
    let any = || {
        let is_due = usize::from(fastrand::u8(..16)) < events.len();
        events
            .get(fastrand::usize(..events.len().max(1)))
            .filter(|_| is_due)
    };
    untimed.or_else(any).map_or(0, |event| event.event.time)
}

/// Records that an event which was accepted at a time, in milliseconds since 1970, has left for its client.
pub(crate) fn left(accepted: u64) {
    // Looked up once: it is asked for at each event.
    static HISTOGRAM: LazyLock<Histogram> = LazyLock::new(|| histogram!(LATENCY));

    if accepted > 0 {
        let milliseconds = now().saturating_sub(accepted);
        HISTOGRAM.record(milliseconds as f64 / 1000.0);
    }
}

pub(crate) fn received(namespace: &Namespace) {
    namespace.counters.received.increment(1);
}

/// Counts a refusal or failure; codes from the configuration are counted together, so that labels stay few.
pub(crate) fn error(code: &str) {
    let label = KNOWN
        .iter()
        .find(|known| **known == code)
        .copied()
        .unwrap_or("other");
    counter!(ERRORS, "code" => label).increment(1);
}

pub(crate) fn gap() {
    counter!(GAPS).increment(1);
}

pub(crate) fn repaired() {
    counter!(REPAIRED).increment(1);
}

pub(crate) fn surplus(connections: usize) {
    gauge!(SURPLUS).set(connections as f64);
}

pub(crate) fn released() {
    counter!(RELEASED).increment(1);
}

/// The counters of one namespace, looked up once.
pub(crate) struct Counters {
    durable: metrics::Counter,
    signals: metrics::Counter,
    received: metrics::Counter,
}

impl Counters {
    pub(crate) fn new(namespace: &str) -> Self {
        let namespace = namespace.to_owned();
        Self {
            durable: counter!(SENT, "namespace" => namespace.clone(), "kind" => "durable"),
            signals: counter!(SENT, "namespace" => namespace.clone(), "kind" => "signal"),
            received: counter!(RECEIVED, "namespace" => namespace),
        }
    }

    fn count(&self, durable: bool) {
        if durable {
            self.durable.increment(1)
        } else {
            self.signals.increment(1)
        }
    }
}
