//! `carillon tail`: the events of a room, as they come.

use std::collections::BTreeMap;

use anyhow::Context as _;
use carillon_bus::{Bus, Limit};
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::Room;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::shell::{self, Cluster, Place};

/// Events read at once.
const PART: Limit = Limit {
    messages: 500,
    bytes: 8 << 20,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// First the stored events after this sequence; 0 is all of them
    #[arg(long, value_name = "SEQUENCE")]
    since: Option<u64>,
    #[command(flatten)]
    cluster: Cluster,
}

/// An event as it is printed; a signal has no sequence.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a Room,
    event: &'a str,
    #[serde(flatten)]
    payload: BTreeMap<&'static str, &'a RawValue>,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    except: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

/// Prints until it is interrupted, or nobody reads any more.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let bus = args.cluster.connect().await?;
    tokio::select! {
        result = follow(&bus, &args.place, args.since) => match result {
            Err(error) if shell::is_closed(&error) => Ok(()),
            result => result,
        },
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

async fn follow(bus: &Bus, place: &Place, since: Option<u64>) -> anyhow::Result<()> {
    let delivery = bus.subjects().delivery(&place.namespace, &place.room);
    // Before the history, so that nothing falls between.
    let mut live = bus.subscribe(&delivery, None).await?;
    bus.flush().await;
    eprintln!("following {} in {}", place.room, place.namespace);
    let mut printed = 0;
    if let Some(since) = since {
        printed = history(bus, place, since).await?;
    }
    while let Some(message) = live.next().await {
        let sequence = message.headers.number(name::SEQUENCE);
        if sequence.is_some_and(|sequence| sequence <= printed) {
            continue;
        }
        printed = sequence.unwrap_or(printed);
        print(&place.room, &message.headers, message.body, sequence)?;
    }
    anyhow::bail!("the connection to NATS is closed")
}

/// Prints what is stored and returns the last sequence.
async fn history(bus: &Bus, place: &Place, since: u64) -> anyhow::Result<u64> {
    let subject = bus.subjects().event(&place.namespace, &place.room);
    let stream = bus.stream_of(&subject).await?;
    let stream = stream.with_context(|| format!("no stream keeps the events of {}", place.namespace))?;
    let mut last = since;
    let mut reached = since;
    while reached < u64::MAX {
        let page = bus.read(&stream, &subject, reached, u64::MAX, PART).await?;
        reached = page.reached;
        for message in page.messages {
            print(
                &place.room,
                &message.headers,
                message.body,
                Some(message.sequence),
            )?;
            last = message.sequence;
        }
    }
    Ok(last)
}

fn print(room: &Room, headers: &Headers, body: bytes::Bytes, sequence: Option<u64>) -> anyhow::Result<()> {
    let Some(event) = Event::from_message(|name| headers.get(name), body) else {
        return Ok(());
    };
    let Ok(payload) = serde_json::from_str::<&RawValue>(event.payload.text()) else {
        return Ok(());
    };
    let key = match event.payload {
        Payload::One(_) => "payload",
        Payload::Many(_) => "args",
    };
    shell::say_json(&Line {
        topic: room,
        event: &event.name,
        payload: BTreeMap::from([(key, payload)]),
        ts: event.time,
        id: event.id.as_deref(),
        except: event.except.as_deref(),
        sequence,
    })
}
