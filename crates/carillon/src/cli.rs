//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::command::{check, dead, dev, healthcheck, nats_child, publish, tail, token, who};
use crate::process;
use crate::service::Kind;

/// Delivers events to the devices of users: over Socket.IO, WebSocket and server-sent events, from NATS, HTTP
/// and MQTT.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the whole cluster on this machine
    Dev(dev::Args),
    /// Runs an edge, which clients connect to
    Edge(File),
    /// Runs a router, which knows who is where
    Router(File),
    /// Runs a publisher, which takes events in
    Publisher(File),
    /// Publishes an event to a room
    Publish(publish::Args),
    /// Makes a token for development
    Token(token::Args),
    /// Shows the members of a room
    Who(who::Args),
    /// Follows the events of a room, one JSON line each
    Tail(tail::Args),
    /// Checks a config, and says what is wrong and where
    Check(File),
    /// Looks at refused events and puts them back
    Dead(dead::Args),
    /// Asks a service for its health, for containers without a shell
    Healthcheck(healthcheck::Args),
    #[command(hide = true)]
    NatsChild(nats_child::Args),
}

/// Where the settings are.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct File {
    /// Settings file, in TOML; variables count without one too
    #[arg(long, value_name = "FILE", env = "CARILLON_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

impl Cli {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Dev(args) => dev::run(args).await,
            Command::Edge(file) => process::run(Kind::Edge, file).await,
            Command::Router(file) => process::run(Kind::Router, file).await,
            Command::Publisher(file) => process::run(Kind::Publisher, file).await,
            Command::Publish(args) => publish::run(args).await,
            Command::Token(args) => token::run(args),
            Command::Who(args) => who::run(args).await,
            Command::Tail(args) => tail::run(args).await,
            Command::Check(file) => check::run(file),
            Command::Dead(args) => dead::run(args).await,
            Command::Healthcheck(args) => healthcheck::run(args).await,
            Command::NatsChild(args) => Err(nats_child::run(&args)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_has_no_contradiction() {
        Cli::command().debug_assert();
    }
}
