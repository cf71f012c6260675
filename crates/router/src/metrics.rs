//! Names and descriptions of the router's metrics.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::table::Totals;

const SESSIONS: &str = "router_sessions";
const USERS: &str = "router_users";
const EDGES: &str = "router_edges_alive";
const SWEPT: &str = "router_sessions_swept_total";
const ENDED: &str = "router_sessions_ended_total";
const RESTARTS: &str = "router_watch_restarts_total";
const REQUEST: &str = "router_request_seconds";
const OFFLINE: &str = "router_offline_events_total";
const OFFLINE_PENDING: &str = "router_offline_pending";
const ANNOUNCEMENTS_DROPPED: &str = "router_presence_events_dropped_total";

/// Describes all metrics once the recorder is there; the counters begin at zero, so that a rate tells of the first.
pub(crate) fn describe() {
    describe_gauge!(SESSIONS, "sessions by state");
    describe_gauge!(USERS, "users with a session in a namespace, live or away");
    describe_gauge!(EDGES, "edges that hold a lease");
    describe_counter!(SWEPT, "sessions marked away because their edge died");
    describe_counter!(ENDED, "sessions that ended after their time away");
    describe_counter!(RESTARTS, "watches of a bucket that began anew after a gap");
    describe_histogram!(
        REQUEST,
        Unit::Seconds,
        "time to answer a request, by kind and outcome"
    );
    describe_counter!(
        OFFLINE,
        "events of users, by whether they were kept for the offline worker"
    );
    describe_gauge!(OFFLINE_PENDING, "events of users that wait to be looked at");
    describe_counter!(
        ANNOUNCEMENTS_DROPPED,
        "presence events dropped because too many waited"
    );
    for name in [SWEPT, ENDED, ANNOUNCEMENTS_DROPPED] {
        counter!(name).increment(0);
    }
    for kept in ["yes", "no"] {
        counter!(OFFLINE, "kept" => kept).increment(0);
    }
    for bucket in ["edges", "sessions"] {
        counter!(RESTARTS, "bucket" => bucket).increment(0);
    }
    gauge!(OFFLINE_PENDING).increment(0.0);
}

pub(crate) fn totals(totals: Totals, edges: usize) {
    gauge!(SESSIONS, "state" => "live").set(totals.live as f64);
    gauge!(SESSIONS, "state" => "away").set(totals.away as f64);
    gauge!(USERS).set(totals.users as f64);
    gauge!(EDGES).set(edges as f64);
}

pub(crate) fn swept() {
    counter!(SWEPT).increment(1);
}

pub(crate) fn ended() {
    counter!(ENDED).increment(1);
}

pub(crate) fn watch_restarted(bucket: &'static str) {
    counter!(RESTARTS, "bucket" => bucket).increment(1);
}

pub(crate) fn answered(kind: &'static str, outcome: &'static str, took: Duration) {
    histogram!(REQUEST, "kind" => kind, "outcome" => outcome).record(took.as_secs_f64());
}

pub(crate) fn offline(kept: bool) {
    counter!(OFFLINE, "kept" => if kept { "yes" } else { "no" }).increment(1);
}

pub(crate) fn offline_pending(pending: u64) {
    gauge!(OFFLINE_PENDING).set(pending as f64);
}

pub(crate) fn announcement_dropped() {
    counter!(ANNOUNCEMENTS_DROPPED).increment(1);
}
