//! Questions to a client: an event that it must answer.

use std::collections::HashMap;

use carillon_protocol::event::Payload;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Questions that one client may be asked at once.
const MAX_OPEN: usize = 256;

/// The open questions of one client.
#[derive(Default)]
pub(crate) struct Asks(Mutex<Option<Box<Open>>>);

#[derive(Default)]
struct Open {
    next: u64,
    /// The client is on its way to another edge, and is asked there.
    stopped: bool,
    waiting: HashMap<u64, oneshot::Sender<Payload>>,
}

impl Asks {
    /// Opens a question: its number, and where its answer comes; `None` where too many are open.
    pub(crate) fn open(&self) -> Option<(u64, oneshot::Receiver<Payload>)> {
        let mut open = self.0.lock();
        let open = open.get_or_insert_default();
        open.waiting.retain(|_, sender| !sender.is_closed());
        if open.stopped || open.waiting.len() >= MAX_OPEN {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        // From 1 on, since a client may well test the number as a condition.
        let number = open.next.max(1);
        open.next = number + 1;
        open.waiting.insert(number, sender);
        Some((number, answer))
    }

    /// Opens no more questions, if none is open; returns the number that the next one would have.
    pub(crate) fn stop(&self) -> Option<u64> {
        let mut open = self.0.lock();
        let open = open.get_or_insert_default();
        open.waiting.retain(|_, sender| !sender.is_closed());
        open.stopped = open.waiting.is_empty();
        open.stopped.then_some(open.next)
    }

    /// Opens questions again, from a number on that no earlier one has.
    pub(crate) fn go_on(&self, next: u64) {
        let mut open = self.0.lock();
        let open = open.get_or_insert_default();
        (open.stopped, open.next) = (false, open.next.max(next));
    }

    /// Returns whether no questions are opened now.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|open| open.stopped)
    }

    /// Takes a client's answer; `false` where no such question is open.
    pub(crate) fn answer(&self, number: u64, payload: Payload) -> bool {
        let mut open = self.0.lock();
        let Some(sender) = open.as_mut().and_then(|open| open.waiting.remove(&number)) else {
            return false;
        };
        let _ = sender.send(payload);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_numbered_from_one_and_answered_once() {
        let asks = Asks::default();
        let (first, mut answer) = asks.open().unwrap();
        let (second, _) = asks.open().unwrap();
        assert_eq!((first, second), (1, 2));
        assert!(asks.answer(1, Payload::NONE));
        assert!(!asks.answer(1, Payload::One("1".into())));
        assert_eq!(answer.try_recv(), Ok(Payload::NONE));
    }
}
