//! Measures an edge against two servers that do nothing but write to sockets, in interleaved runs on one machine.
//!
//! - [`bench`] is the table: it starts every process, pins it, takes the targets in turn and compares;
//! - [`load`] is a process of many clients from one thread, told what to do over its standard input;
//! - [`reference`] are the two servers to compare with;
//! - [`process`] and [`usage`] start processes and read what they used.

mod bench;
mod load;
mod process;
mod reference;
mod usage;

use std::io::{self, Write};
use std::net::SocketAddr;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures Carillon.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the standard table: edge and references in turn, as ratios
    Table(bench::Args),
    /// Holds many connections over many edges, and delivers to them
    Cluster(bench::cluster::Args),
    /// Runs a reference server
    Serve {
        kind: Reference,
        /// Where clients connect
        #[arg(long)]
        listen: SocketAddr,
        /// Where messages come from
        #[arg(long)]
        feed: SocketAddr,
    },
    /// Runs clients, as told by JSON lines on standard input
    Load(load::Args),
}

/// A server without protocol and rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reference {
    /// One thread, epoll, one send for each message
    Epoll,
    /// Tokio, a queue for each connection, one writev for what waits
    Writev,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Table(args) => bench::run(&args),
        Command::Cluster(args) => bench::cluster::run(&args),
        Command::Serve {
            kind: Reference::Epoll,
            listen,
            feed,
        } => reference::epoll::run(listen, feed),
        Command::Serve {
            kind: Reference::Writev,
            listen,
            feed,
        } => reference::writev::run(listen, feed),
        Command::Load(args) => load::run(&args),
    }
}

/// Writes a line to standard output.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
