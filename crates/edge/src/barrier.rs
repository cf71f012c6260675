//! The barrier that proves a subscription.
//!
//! A subscription is not instant across a NATS cluster. After it, the edge stores a probe over the same link;
//! when the probe's republished copy comes back at sequence P, everything after P will come too. One probe
//! serves all who wait when it is sent.

use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::headers::{Headers, name};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::room::Cell;
use crate::session::Session;

/// A probe that has not come back in this time is sent again.
const RESEND: Duration = Duration::from_secs(1);

/// The probes of one namespace.
#[derive(Default)]
pub(crate) struct Barrier {
    state: Mutex<State>,
    returned: Notify,
}

#[derive(Default)]
struct State {
    /// The number of the last probe that was sent.
    sent: u64,
    /// A probe is on its way.
    busy: bool,
    /// Who waits for a probe on its way, each with the number of the first one behind its subscription.
    travelling: Vec<(u64, Waiter)>,
    /// Who came after it was sent.
    next: Vec<Waiter>,
}

struct Waiter {
    /// A membership that begins at the barrier.
    entering: Option<(Arc<Cell>, Arc<Session>)>,
    done: oneshot::Sender<u64>,
}

impl Namespace {
    /// Waits for a barrier behind every subscription made so far, and returns its sequence.
    ///
    /// A membership that is entering begins at that sequence, on the spot, so that nothing behind it is missed.
    pub(crate) async fn pass_barrier(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        entering: Option<(Arc<Cell>, Arc<Session>)>,
    ) -> u64 {
        let (done, passed) = oneshot::channel();
        let first = {
            let mut state = self.barrier.state.lock();
            state.next.push(Waiter { entering, done });
            !std::mem::replace(&mut state.busy, true)
        };
        if first {
            tokio::spawn(drive(Arc::clone(self), Arc::clone(hub)));
        }
        // The sender is dropped only with the namespace.
        passed.await.unwrap_or(0)
    }

    /// A probe has come back; called on the link's task.
    pub(crate) fn probe_returned(&self, number: u64, sequence: u64) {
        let passed = {
            let mut state = self.barrier.state.lock();
            state.passed(number)
        };
        if passed.is_empty() {
            return;
        }
        for waiter in passed {
            if let Some((cell, session)) = waiter.entering {
                cell.pass(&session, sequence);
            }
            let _ = waiter.done.send(sequence);
        }
        self.barrier.returned.notify_one();
    }
}

impl State {
    /// Returns the number of the next probe, for everyone who waits; `None` where nobody does.
    fn send(&mut self) -> Option<u64> {
        let number = self.sent + 1;
        let next = std::mem::take(&mut self.next);
        self.travelling
            .extend(next.into_iter().map(|waiter| (number, waiter)));
        self.travelling.retain(|(_, waiter)| !waiter.done.is_closed());
        (!self.travelling.is_empty()).then(|| {
            self.sent = number;
            number
        })
    }

    /// Takes those whose subscription a returned probe proves: also one that took longer than [`RESEND`].
    fn passed(&mut self, number: u64) -> Vec<Waiter> {
        let proven = self.travelling.extract_if(.., |(first, _)| *first <= number);
        proven.map(|(_, waiter)| waiter).collect()
    }
}

impl Cell {
    /// The room's subscription is proven at a sequence: a new member begins there.
    fn pass(&self, session: &Arc<Session>, sequence: u64) {
        let mut state = self.state.lock();
        let complete = *state.complete.get_or_insert(sequence);
        if let Some(member) = state.members.get_mut(session) {
            member.from = member.from.min(complete.max(sequence));
        }
    }
}

/// Sends probes as long as somebody waits.
async fn drive(namespace: Arc<Namespace>, hub: Arc<Hub>) {
    loop {
        let number = {
            let mut state = namespace.barrier.state.lock();
            let Some(number) = state.send() else {
                state.busy = false;
                return;
            };
            number
        };
        hub.probe(&namespace, number);
        let _ = tokio::time::timeout(RESEND, namespace.barrier.returned.notified()).await;
    }
}

impl Hub {
    /// Stores a probe over the delivery link, behind every subscription made before.
    fn probe(&self, namespace: &Namespace, number: u64) {
        let subject = self.bus.subjects().probe(&namespace.name, self.id);
        // One probe is kept per edge, and for an hour at most.
        let headers = Headers::new().with("Nats-Rollup", "sub").with(name::TTL, "3600s");
        // While the link is down the probe is sent again.
        let _ = self
            .link()
            .publish(&subject, None, &headers, number.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_returns_late_proves_all_that_came_before_it() {
        let mut state = State::default();
        let wait = |state: &mut State| {
            let (done, passed) = oneshot::channel();
            let waiter = Waiter { entering: None, done };
            state.next.push(waiter);
            passed
        };
        let _first = wait(&mut state);
        assert_eq!(state.send(), Some(1));
        let _second = wait(&mut state);
        assert_eq!(state.send(), Some(2));
        assert_eq!(state.passed(1).len(), 1);
        assert_eq!(state.passed(1).len(), 0);
        assert_eq!(state.send(), Some(3));
        assert_eq!(state.passed(2).len(), 1);
        assert_eq!(state.send(), None);
        drop(wait(&mut state));
        assert_eq!(state.send(), None);
    }
}
