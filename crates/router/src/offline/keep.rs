//! Copying an event to the subject of an offline user.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{HistoryError, Limit, StoreError, StoredMessage};
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::ids::Sid;
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::offset::Offset;
use carillon_protocol::session::Record;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::metrics;
use crate::router::Router;
use crate::table;

/// What is read at once of a user's events.
const PAGE: Limit = Limit {
    messages: 500,
    bytes: 1 << 20,
};

/// Why an event was not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The body of a kept event: the form of a published one, with where and when it was.
#[derive(Serialize)]
struct Body<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    namespace: &'a Namespace,
    room: &'a Room,
    offset: Cow<'a, str>,
    ts: u64,
}

/// Keeps what came to a user's room since a session was gone, but for what other sessions of the user heard.
///
/// Where the client did not go by itself, what came shortly before may not have reached it either.
pub(crate) async fn keep_missed(
    router: &Router,
    sid: Sid,
    record: &Record,
    gone: u64,
) -> Result<(), KeepError> {
    let (Some(user), Some(stream)) = (record.user.as_deref(), router.streams.of(&record.namespace)) else {
        return Ok(());
    };
    let from = gone.saturating_sub(millis(router.config.offline_margin));
    let is_missed = |sequence: u64, time: u64| match record.complete {
        Some(complete) if record.epoch == stream.epoch => sequence > complete,
        // Whoever had left the room waited for nothing while it was connected.
        _ if !table::hears_user(record) => time > gone,
        _ => time >= from,
    };
    let is_covered = |sequence: u64, time: u64| {
        let place = (stream.epoch, sequence, time);
        router
            .view
            .table()
            .covered_by_others(&record.namespace, user, sid, place)
    };
    let subject = router
        .bus
        .subjects()
        .event(&record.namespace, &Room::of_user(user));
    let last = router
        .bus
        .last(&stream.name, std::slice::from_ref(&subject), 0)
        .await?;
    let Some(last) = last.first().filter(|last| is_missed(last.sequence, last.time)) else {
        return Ok(());
    };
    // In a stream made anew nothing is older than the session.
    let mut reached = if record.epoch == stream.epoch {
        record.start
    } else {
        0
    };
    while reached < last.sequence {
        let read = router
            .bus
            .read(&stream.name, &subject, reached, last.sequence, PAGE);
        let page = read.await?;
        reached = page.reached;
        let events = page.messages.into_iter();
        for event in events.filter(|event| is_missed(event.sequence, event.time)) {
            if is_covered(event.sequence, event.time) {
                continue;
            }
            keep(router, &record.namespace, user, event).await?;
        }
    }
    Ok(())
}

/// Keeps one event of a user's room.
pub(super) async fn keep(
    router: &Router,
    namespace: &Namespace,
    user: &str,
    stored: StoredMessage,
) -> Result<(), KeepError> {
    let Some(stream) = router.streams.of(namespace) else {
        return Ok(());
    };
    let StoredMessage {
        sequence,
        headers,
        body,
        time,
        ..
    } = stored;
    let Some(event) = Event::from_message(|name| headers.get(name), body) else {
        return Ok(());
    };
    let Ok(payload) = serde_json::from_str::<&RawValue>(event.payload.text()) else {
        return Ok(());
    };
    let (data, args) = match event.payload {
        Payload::One(_) => (Some(payload), None),
        Payload::Many(_) => (None, Some(payload)),
    };
    let offset = Offset {
        epoch: stream.epoch,
        sequence,
    };
    let body = Body {
        event: &event.name,
        data,
        args,
        id: event.id.as_deref(),
        namespace,
        room: &Room::of_user(user),
        offset: offset.to_string().into(),
        ts: if event.time == 0 { time } else { event.time },
    };
    let body = Bytes::from(serde_json::to_vec(&body).expect("an event is JSON"));
    let subject = router.bus.subjects().offline(namespace, user);
    let mut kept = Headers::new().with(
        name::MSG_ID,
        format!("{}.{}.{sequence}", stream.name, stream.epoch),
    );
    for trace in [name::TRACEPARENT, name::TRACESTATE] {
        if let Some(value) = headers.get(trace) {
            kept.push(trace, value);
        }
    }
    match router.bus.store(&subject, &kept, body).await {
        Ok(stored) => metrics::offline(!stored.duplicate),
        Err(error) if error.is_permanent() => {
            // Trying again would hold the events of all users.
            tracing::warn!(%error, %namespace, sequence, "event of an offline user cannot be kept");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
