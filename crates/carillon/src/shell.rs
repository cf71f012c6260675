//! What the command-line helpers share: the settings, a connection, and lines on standard output.

use std::io::{self, Write};

use anyhow::Context as _;
use carillon_bus::Bus;
use carillon_protocol::names::{Namespace, Room};
use serde::Serialize;

use crate::cli::File;
use crate::config;

/// Which cluster a helper talks to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Cluster {
    #[command(flatten)]
    file: File,
    /// URL of NATS, instead of the settings'
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
}

/// A room and the namespace that it is in.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// The room, such as user:42
    #[arg(value_parser = room)]
    pub(crate) room: Room,
    /// The namespace
    #[arg(long, default_value = "/", value_parser = namespace)]
    pub(crate) namespace: Namespace,
}

impl Cluster {
    /// Connects to the cluster's NATS, once.
    pub(crate) async fn connect(&self) -> anyhow::Result<Bus> {
        let mut nats = config::read(self.file.config.as_deref())?.value.nats;
        if let Some(url) = &self.nats {
            nats.url.clone_from(url);
        }
        Bus::connect(&nats, "carillon-cli")
            .await
            .context("the cluster cannot be reached: is it running, and does --nats name its NATS?")
    }
}

fn room(text: &str) -> Result<Room, String> {
    Room::new(text).map_err(|error| error.to_string())
}

fn namespace(text: &str) -> Result<Namespace, String> {
    Namespace::new(text).map_err(|error| error.to_string())
}

/// Writes a line to standard output; tells whether somebody still reads it.
pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Writes a value as one line of JSON.
pub(crate) fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    say(&serde_json::to_string(value)?)?;
    Ok(())
}

/// Tells whether whoever reads standard output has gone, as `head` does.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
