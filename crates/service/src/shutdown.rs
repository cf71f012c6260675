//! Signals, and a stop in order under one deadline.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a process returns that a second signal ended.
const EXIT_AT_ONCE: i32 = 130;

/// Returns a token that the first SIGTERM or SIGINT cancels; a second ends the process at once.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut signals = Signals {
        term: signal(SignalKind::terminate())?,
        int: signal(SignalKind::interrupt())?,
    };
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping");
        first.cancel();
        let name = signals.next().await;
        tracing::warn!(signal = name, "stopping at once");
        std::process::exit(EXIT_AT_ONCE);
    });
    Ok(token)
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// The time by which all steps of a stop must be done.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    /// A deadline that is this far away.
    pub fn after(duration: Duration) -> Self {
        Self {
            at: Instant::now() + duration,
        }
    }

    /// The moment itself.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// What is left.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Runs one step of the stop; a step that is not done in time is left and told in the log.
    pub async fn step<T>(&self, name: &'static str, work: impl Future<Output = T>) -> Option<T> {
        let started = Instant::now();
        match tokio::time::timeout_at(self.at, work).await {
            Ok(value) => {
                tracing::debug!(step = name, elapsed = ?started.elapsed(), "stop step done");
                Some(value)
            }
            Err(_) => {
                tracing::warn!(step = name, elapsed = ?started.elapsed(), "stop step left at the deadline");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_share_one_deadline() {
        let deadline = Deadline::after(Duration::from_secs(30));
        let slow = tokio::time::sleep(Duration::from_secs(20));
        assert_eq!(deadline.step("drain", slow).await, Some(()));
        assert_eq!(deadline.remaining(), Duration::from_secs(10));
        assert_eq!(deadline.step("bus", std::future::pending::<()>()).await, None);
        assert_eq!(deadline.remaining(), Duration::ZERO);
        assert_eq!(deadline.step("ready work still runs", async { 1 }).await, Some(1));
    }
}
