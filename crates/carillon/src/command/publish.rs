//! `carillon publish`: an event from the shell.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use carillon_bus::{Bus, StoreError};
use carillon_protocol::event::Draft;
use carillon_protocol::headers::Headers;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::command::token;
use crate::shell::{self, Cluster, Place};

/// How long a router may take to say whether there is such a namespace.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// The event's name
    event: String,
    /// The data, as JSON; without it the event has none
    #[arg(value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
    data: Option<Box<RawValue>>,
    /// For whoever is there now: not stored
    #[arg(long)]
    signal: bool,
    /// The id that tells a repetition
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Serialize)]
struct Body<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Place { room, namespace } = &args.place;
    let body = serde_json::to_vec(&Body {
        event: &args.event,
        data: args.data.as_deref(),
        id: args.id.as_deref(),
    })?;
    // What a publisher would refuse is told here.
    Draft::read(&body, token::now() * 1000).map_err(|error| anyhow::anyhow!("this is no event: {error}"))?;
    let bus = args.cluster.connect().await?;
    known(&bus, &args.place).await?;
    let (headers, body) = (Headers::new(), Bytes::from(body));
    if args.signal {
        let subject = bus.subjects().signal(namespace, room);
        bus.publish(&subject, &headers, body).await?;
        bus.flush().await;
        shell::say(&format!("sent to {room} in {namespace}"))?;
        return Ok(());
    }
    let subject = bus.subjects().publish(namespace, room);
    let stored = bus.store(&subject, &headers, body).await;
    match stored {
        Ok(_) => shell::say(&format!("published to {room} in {namespace}"))?,
        Err(StoreError::NoStream) => anyhow::bail!(
            "no stream takes {subject}: no carillon has run with this NATS yet, or its nats.prefix is another one"
        ),
        Err(error) => return Err(error).context("the event is not acknowledged"),
    }
    Ok(())
}

/// Refuses a namespace that the cluster does not have; without a router nobody knows.
async fn known(bus: &Bus, place: &Place) -> anyhow::Result<()> {
    let subject = bus.subjects().presence(&place.namespace, &place.room);
    let question = Bytes::from_static(br#"{"limit":1}"#);
    let Ok(answer) = bus.request(&subject, &Headers::new(), question, PATIENCE).await else {
        return Ok(());
    };
    let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    anyhow::ensure!(
        answer["error"]["code"] != "unknown_namespace",
        "there is no namespace {}",
        place.namespace
    );
    Ok(())
}

fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}
