//! Names of the publisher's metrics, and what they mean.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const ACCEPTED: &str = "publisher_accepted_total";
const STORED: &str = "publisher_stored_total";
const SIGNALS: &str = "publisher_signals_total";
const SIGNALS_LOST: &str = "publisher_signals_lost_total";
const DUPLICATES: &str = "publisher_duplicates_total";
const REFUSED: &str = "publisher_refused_total";
const EXPIRED: &str = "publisher_expired_total";
const STORE_SECONDS: &str = "publisher_store_seconds";
const STORE_RETRIES: &str = "publisher_store_retries_total";
const DOUBTS: &str = "publisher_doubts_total";
const INGEST_PENDING: &str = "publisher_ingest_pending";
const LEASE_HELD: &str = "publisher_lease_held";
const MQTT_CONNECTED: &str = "publisher_mqtt_connected";
const HTTP_REQUESTS: &str = "publisher_http_requests_total";

/// The reasons of dead letters.
const REFUSALS: [&str; 10] = [
    "bad_event",
    "bad_field",
    "bad_rooms",
    "bad_subject",
    "no_event",
    "not_json",
    "not_storable",
    "not_utf8",
    "too_large",
    "unknown_namespace",
];

/// Describes all metrics once the recorder is there; what can be counted begins at zero, so that a rate tells of the
/// first, and a publisher that owns nothing says so.
pub(crate) fn describe(partitions: u32, sources: usize) {
    describe_counter!(
        ACCEPTED,
        Unit::Count,
        "events taken into INGEST, by the way they came (http, mqtt)"
    );
    describe_counter!(
        STORED,
        Unit::Count,
        "events stored for delivery, one for each room"
    );
    describe_counter!(SIGNALS, Unit::Count, "signals passed on");
    describe_counter!(
        SIGNALS_LOST,
        Unit::Count,
        "refused signals, and signals for later, that JetStream did not take in time"
    );
    describe_counter!(DUPLICATES, Unit::Count, "events that were stored before");
    describe_counter!(REFUSED, Unit::Count, "bodies that became dead letters, by code");
    describe_counter!(
        EXPIRED,
        Unit::Count,
        "events whose ttl was over before they could be stored"
    );
    describe_histogram!(
        STORE_SECONDS,
        Unit::Seconds,
        "from INGEST to the acknowledgement of the store"
    );
    describe_counter!(STORE_RETRIES, Unit::Count, "stores sent again");
    describe_counter!(
        DOUBTS,
        Unit::Count,
        "messages that ask edges whether they missed a delivery"
    );
    describe_gauge!(
        INGEST_PENDING,
        Unit::Count,
        "messages of a partition that wait in INGEST"
    );
    describe_gauge!(
        LEASE_HELD,
        Unit::Count,
        "1 while this publisher owns the partition"
    );
    describe_gauge!(
        MQTT_CONNECTED,
        Unit::Count,
        "1 while this publisher reads from the broker"
    );
    describe_counter!(HTTP_REQUESTS, Unit::Count, "HTTP requests, by status");
    for name in [
        STORED,
        SIGNALS,
        SIGNALS_LOST,
        DUPLICATES,
        EXPIRED,
        STORE_RETRIES,
        DOUBTS,
    ] {
        counter!(name).increment(0);
    }
    for code in REFUSALS {
        counter!(REFUSED, "code" => code).increment(0);
    }
    for way in ["http", "mqtt"] {
        accepted(way, 0);
    }
    for status in [200, 202, 400, 500, 503] {
        counter!(HTTP_REQUESTS, "status" => status.to_string()).increment(0);
    }
    for partition in 0..partitions {
        gauge!(LEASE_HELD, "partition" => partition.to_string()).increment(0.0);
    }
    for source in 0..sources {
        gauge!(MQTT_CONNECTED, "source" => source.to_string()).increment(0.0);
    }
    let _ = histogram!(STORE_SECONDS);
}

pub(crate) fn accepted(way: &'static str, events: u64) {
    counter!(ACCEPTED, "way" => way).increment(events);
}

pub(crate) fn stored(copies: u64) {
    counter!(STORED).increment(copies);
}

pub(crate) fn signal() {
    counter!(SIGNALS).increment(1);
}

pub(crate) fn signal_lost() {
    counter!(SIGNALS_LOST).increment(1);
}

pub(crate) fn duplicates(copies: u64) {
    counter!(DUPLICATES).increment(copies);
}

pub(crate) fn refused(code: &'static str) {
    counter!(REFUSED, "code" => code).increment(1);
}

pub(crate) fn expired() {
    counter!(EXPIRED).increment(1);
}

/// `accepted` is the time in INGEST, in milliseconds since 1970.
pub(crate) fn store_time(accepted: u64) {
    let now = carillon_bus::history::now();
    histogram!(STORE_SECONDS).record(Duration::from_millis(now.saturating_sub(accepted)).as_secs_f64());
}

pub(crate) fn retry() {
    counter!(STORE_RETRIES).increment(1);
}

pub(crate) fn doubt() {
    counter!(DOUBTS).increment(1);
}

pub(crate) fn pending(partition: u32, pending: u64) {
    gauge!(INGEST_PENDING, "partition" => partition.to_string()).set(pending as f64);
}

pub(crate) fn lease(partition: u32, held: bool) {
    gauge!(LEASE_HELD, "partition" => partition.to_string()).set(if held { 1.0 } else { 0.0 });
}

pub(crate) fn mqtt(index: usize, connected: bool) {
    gauge!(MQTT_CONNECTED, "source" => index.to_string()).set(if connected { 1.0 } else { 0.0 });
}

pub(crate) fn http(status: u16) {
    counter!(HTTP_REQUESTS, "status" => status.to_string()).increment(1);
}
