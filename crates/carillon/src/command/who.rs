//! `carillon who`: the members of a room.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use carillon_bus::RequestError;
use carillon_protocol::headers::Headers;
use serde_json::{Value, json};

use crate::shell::{self, Cluster, Place};

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    cluster: Cluster,
}

/// Prints the answer of a router, with all members where it comes in parts.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let bus = args.cluster.connect().await?;
    let subject = bus.subjects().presence(&args.place.namespace, &args.place.room);
    let mut members = Vec::new();
    let mut next: Option<Value> = None;
    let count = loop {
        let request = next.map_or_else(Bytes::new, |next| json!({ "next": next }).to_string().into());
        let answer = match bus.request(&subject, &Headers::new(), request, TIMEOUT).await {
            Ok(answer) => answer,
            Err(RequestError::NoResponders) => {
                anyhow::bail!("no router answers: none runs, or none is ready yet")
            }
            Err(error) => return Err(error).context("no router answers"),
        };
        let mut answer: Value = serde_json::from_slice(&answer.body).context("the answer is not JSON")?;
        if let Some(error) = answer.get("error") {
            anyhow::bail!("the router refuses: {error}");
        }
        if let Value::Array(part) = answer["members"].take() {
            members.extend(part);
        }
        next = answer.get("next").filter(|next| !next.is_null()).cloned();
        if next.is_none() {
            break answer["count"].take();
        }
    };
    shell::say_json(&json!({ "count": count, "members": members }))
}
