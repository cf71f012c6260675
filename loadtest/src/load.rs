//! A process of many clients in one thread, much cheaper than what it measures: of a frame it reads the header and,
//! at a place that it knows from the frame before, a time and a number.
//!
//! It takes an [`Order`] a line and answers each with an [`Answer`].

mod client;
mod feed;
mod fleet;
mod histogram;
mod orders;
mod payload;
mod request;
mod tally;
mod token;

use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use clap::ValueEnum;

pub(crate) use orders::{Answer, Kind, Measured, Order};
pub(crate) use request::presence;

use feed::Feed;
use fleet::Fleet;

/// How often a silent load process looks for orders, besides its clients' heartbeats.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// What the clients speak
    #[arg(long)]
    pub(crate) speech: Speech,
    /// Servers, taken in turn by the clients
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) servers: Vec<SocketAddr>,
    /// Where events are published: NATS, or the feed of a reference server
    #[arg(long)]
    pub(crate) feed: SocketAddr,
    #[arg(long)]
    pub(crate) clients: usize,
    /// The number of the first user
    #[arg(long, default_value_t = 0)]
    pub(crate) first_user: usize,
    /// A room that all clients are in and that events go to; without it each event goes to one user
    #[arg(long)]
    pub(crate) room: Option<String>,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 128)]
    pub(crate) bytes: usize,
    /// The secret that tokens are signed with
    #[arg(long, default_value = "")]
    pub(crate) secret: String,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speech {
    #[value(name = "socketio")]
    SocketIo,
    Ws,
    /// A reference server's: frames without a protocol.
    Bare,
}

/// Follows orders until standard input ends.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let feed = Feed::connect(args)?;
    let mut fleet = Fleet::new(args, feed)?;
    loop {
        let line = match orders.try_recv() {
            Ok(line) => line,
            Err(mpsc::TryRecvError::Empty) => {
                fleet.pump(LOOK)?;
                continue;
            }
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
        };
        let answer = match serde_json::from_str(&line)? {
            Order::Connect { at_once } => fleet.connect(at_once)?,
            Order::Drop => fleet.disconnect(),
            Order::Paced { kind, rate, seconds } => {
                fleet.paced(kind, rate, Duration::from_secs_f64(seconds))?
            }
            Order::Window {
                kind,
                window,
                seconds,
            } => fleet.window(kind, window, Duration::from_secs_f64(seconds))?,
            Order::Requests { rate, seconds } => {
                request::measure(args.feed, rate, Duration::from_secs_f64(seconds))?
            }
        };
        crate::say(&serde_json::to_string(&answer)?)?;
    }
}
