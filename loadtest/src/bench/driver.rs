//! A load process, seen from the table.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::load::{self, Answer, Measured, Order};
use crate::process::{Core, Process};

pub(super) struct Driver {
    /// Ends with its handle.
    _process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts a load process on a core.
    pub(super) fn start(core: Core, args: &load::Args) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let servers: Vec<String> = args.servers.iter().map(ToString::to_string).collect();
        let speech = args
            .speech
            .to_possible_value()
            .context("every speech has a name")?;
        let mut process = Process::start("load", core, program, |command| {
            command.args([
                "load",
                "--speech",
                speech.get_name(),
                "--servers",
                &servers.join(","),
            ]);
            command.arg("--feed").arg(args.feed.to_string());
            command.arg("--clients").arg(args.clients.to_string());
            command.arg("--first-user").arg(args.first_user.to_string());
            command.arg("--bytes").arg(args.bytes.to_string());
            command.arg("--secret").arg(&args.secret);
            if let Some(room) = &args.room {
                command.arg("--room").arg(room);
            }
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        })?;
        let orders = process.child.stdin.take().context("standard input is piped")?;
        let answers = process.child.stdout.take().context("standard output is piped")?;
        Ok(Self {
            _process: process,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// Starts a load process and connects its clients; some may fail, most may not.
    pub(super) fn connected(core: Core, args: &load::Args, at_once: usize) -> anyhow::Result<(Self, f64)> {
        let mut driver = Self::start(core, args)?;
        let (connected, seconds) = driver.connect(at_once)?;
        anyhow::ensure!(
            connected == args.clients,
            "only {connected} of {} clients connected",
            args.clients
        );
        Ok((driver, seconds))
    }

    /// Connects the clients that are not; returns how many are, and the seconds that it took.
    pub(super) fn connect(&mut self, at_once: usize) -> anyhow::Result<(usize, f64)> {
        match self.order(&Order::Connect { at_once })? {
            Answer::Connected {
                connected, seconds, ..
            } => Ok((connected, seconds)),
            Answer::Measured(_) => anyhow::bail!("the load process answered something else"),
        }
    }

    /// Has the load process publish, and returns what came of it.
    pub(super) fn measure(&mut self, order: &Order) -> anyhow::Result<Measured> {
        match self.order(order)? {
            Answer::Measured(measured) => Ok(measured),
            Answer::Connected { .. } => anyhow::bail!("the load process answered something else"),
        }
    }

    pub(super) fn order(&mut self, order: &Order) -> anyhow::Result<Answer> {
        self.begin(order)?;
        self.finish()
    }

    /// Gives an order whose answer [`Driver::finish`] waits for.
    pub(super) fn begin(&mut self, order: &Order) -> anyhow::Result<()> {
        let line = serde_json::to_string(order)?;
        writeln!(self.orders, "{line}").context("the load process has ended")
    }

    pub(super) fn finish(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).context("the load process has failed")
    }
}
