//! The end of an edge: not ready at once, closed to new clients after a delay, and every transport closed, spread
//! over the rest of the time.
//!
//! How many are closed follows the clock and not a pause after each: pauses add up to more than was planned as
//! soon as there are many clients or the machine is busy.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carillon_service::readiness::Readiness;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::accept::Stop;
use crate::client::{Client, Closing};
use crate::hub::Hub;

/// Last part of the drain time, kept for the lease, what is still to be sent, and the end of the process.
const LAST: Duration = Duration::from_millis(2500);
/// Out of it, how long the lease and what is still to be sent may take.
const END: Duration = Duration::from_millis(1000);
/// Time between two looks at the clock, half as long to half as long again.
const TICK: Duration = Duration::from_millis(20);
/// The share of the time over which clients are spread; the rest is for slow ones.
const SPREAD: f64 = 0.75;

/// When what has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// No new clients from then on.
    closed: Instant,
    /// Every client was asked to go.
    told: Instant,
    /// Whoever is still there is left.
    left: Instant,
    /// Nothing is waited for any more.
    end: Instant,
}

impl Times {
    fn new(begun: Instant, delay: Duration, drain: Duration) -> Self {
        let rest = drain.saturating_sub(delay);
        let last = LAST.min(rest / 2);
        let budget = rest - last;
        let closed = begun + delay;
        Self {
            closed,
            told: closed + budget.mul_f64(SPREAD),
            left: closed + budget,
            end: closed + budget + END.min(last / 2),
        }
    }

    /// How many of a number of clients are to be closed by now.
    fn due(&self, count: usize, now: Instant) -> usize {
        let all = self.told.saturating_duration_since(self.closed).as_secs_f64();
        let passed = now.saturating_duration_since(self.closed).as_secs_f64();
        if passed >= all {
            return count;
        }
        (count as f64 * passed / all).ceil() as usize
    }
}

/// Lets the clients go to other edges, and gives the lease back.
pub(crate) async fn drain(hub: &Arc<Hub>, readiness: &Readiness, stop: &Stop) {
    let _gate = readiness.hold("draining");
    let times = Times::new(Instant::now(), hub.config.drain_delay, hub.config.drain);
    tracing::info!(connections = hub.connections(), "edge drains");
    sleep_until(times.closed).await;
    hub.draining.store(true, Ordering::SeqCst);
    stop.accepting.cancel();

    close_clients(hub, times).await;
    let left = hub.connections() + hub.closings.len();
    if left > 0 {
        tracing::warn!(connections = left, "edge ends before these clients have gone");
    }
    let last = async {
        while hub.lifecycle.capacity() < hub.lifecycle.max_capacity() {
            sleep(TICK).await;
        }
        hub.end_lease().await;
        hub.bus.flush().await;
    };
    if timeout_at(times.end, last).await.is_err() {
        tracing::warn!("edge ends before everything was sent, NATS does not answer in time");
    }
}

async fn close_clients(hub: &Arc<Hub>, times: Times) {
    let mut clients = clients(hub);
    fastrand::shuffle(&mut clients);
    let count = clients.len();
    let mut waiting = clients.into_iter();
    loop {
        let now = Instant::now();
        let closed = count - waiting.len();
        let due = times.due(count, now).saturating_sub(closed);
        for client in waiting.by_ref().take(due) {
            close(&client);
        }
        let all_gone = || hub.connections() == 0 && hub.closings.is_empty() && hub.engines.is_empty();
        if now >= times.left || (waiting.len() == 0 && all_gone()) {
            return;
        }
        if waiting.len() == 0 {
            // Whoever was on the way in when the door closed.
            self::clients(hub).iter().for_each(|client| close(client));
        }
        sleep(TICK.mul_f64(0.5 + fastrand::f64())).await;
    }
}

fn clients(hub: &Hub) -> Vec<Arc<Client>> {
    hub.namespaces()
        .iter()
        .flat_map(|namespace| namespace.clients())
        .collect()
}

fn close(client: &Client) {
    client.close(Closing {
        code: 1012,
        reason: "restart".to_owned(),
        flush: true,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn everything_ends_before_the_drain_time_does() {
        for (delay, drain) in [(5.0, 30.0), (0.0, 4.0), (0.0, 1.0), (1.0, 1.001), (5.0, 600.0)] {
            let begun = Instant::now();
            let times = Times::new(begun, seconds(delay), seconds(drain));
            assert!(times.closed == begun + seconds(delay), "{delay} {drain}");
            assert!(times.closed <= times.told && times.told <= times.left && times.left < times.end);
            assert!(times.end < begun + seconds(drain), "{delay} {drain}: {times:?}");
        }
    }

    #[test]
    fn the_number_of_closed_clients_follows_the_clock() {
        let begun = Instant::now();
        let times = Times::new(begun, seconds(5.0), seconds(30.0));
        let due = |count, at| times.due(count, begun + seconds(at));
        assert_eq!(due(100_000, 5.0), 0);
        let half = 5.0 + 22.5 * 0.75 / 2.0;
        assert!(due(100_000, half).abs_diff(50_000) <= 1, "{}", due(100_000, half));
        // However late the look is, whoever is due goes at once.
        assert_eq!(due(100_000, 22.0), 100_000);
        assert_eq!(due(1, 6.0), 1);
        assert_eq!(due(0, 6.0), 0);
    }

    #[test]
    fn without_time_everybody_is_due_at_once() {
        let begun = Instant::now();
        let times = Times::new(begun, seconds(1.0), seconds(1.0));
        assert_eq!(times.due(7, begun + seconds(1.0)), 7);
    }
}
