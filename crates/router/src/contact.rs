//! Whether this router has been in touch with JetStream, without a break and for how long.
//!
//! A router that was cut off, paused or late has seen no renewals either, so it must not take their absence for
//! a death. Its own lease goes the same way as those of the edges: as long as it comes back in the watch, the
//! others' would have come as well.

use std::time::Duration;

use tokio::time::Instant;

/// The times at which this router saw its own lease renewed.
#[derive(Debug)]
pub(crate) struct Contact {
    /// The longest silence that is no break.
    patience: Duration,
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Contact {
    /// Begins without contact.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            since: None,
            last: None,
        }
    }

    /// Notes that an own renewal came back.
    pub(crate) fn seen(&mut self, now: Instant) {
        if self.unbroken(now).is_none() {
            self.since = Some(now);
        }
        self.last = Some(now);
    }

    /// Notes that something may have been missed.
    pub(crate) fn broken(&mut self) {
        (self.since, self.last) = (None, None);
    }

    /// Returns how long the contact has been unbroken, if it is.
    pub(crate) fn unbroken(&self, now: Instant) -> Option<Duration> {
        let last = self.last?;
        (now.duration_since(last) <= self.patience).then_some(now.duration_since(self.since?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_begins_the_contact_anew() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut contact = Contact::new(Duration::from_secs(6));
        assert_eq!(contact.unbroken(at(0)), None);
        for second in [0, 2, 4, 10, 12] {
            contact.seen(at(second));
        }
        assert_eq!(contact.unbroken(at(13)), Some(Duration::from_secs(13)));
        assert_eq!(contact.unbroken(at(19)), None);
        contact.seen(at(19));
        assert_eq!(contact.unbroken(at(20)), Some(Duration::from_secs(1)));
        contact.broken();
        assert_eq!(contact.unbroken(at(20)), None);
    }
}
