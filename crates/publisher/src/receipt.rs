//! Receipts: the publisher that stores an event tells the one that took it in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{Bus, Subscription};
use carillon_protocol::headers::Headers;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::pipeline::store::Fate;

/// Where the receipt of an event is wanted: `<publisher>.<number>`.
pub(crate) const RECEIPT: &str = "Carillon-Receipt";

/// How long the server may take to pass on the first message.
const ARRIVAL: Duration = Duration::from_secs(10);

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Receipt {
    /// The highest sequence of its copies.
    Sequence(u64),
    /// The code and the reason.
    Refused(String),
    /// Its ttl was over before it could be stored.
    Expired,
}

/// Requests of this process that wait for receipts.
#[derive(Debug, Clone)]
pub(crate) struct Receipts {
    holder: Arc<str>,
    next: Arc<AtomicU64>,
    /// Guards the requests by number.
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Receipt>>>>,
}

/// A receipt that is waited for; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) address: String,
    number: u64,
    receipts: Receipts,
    answer: oneshot::Receiver<Receipt>,
}

impl Receipts {
    pub(crate) fn new(holder: &str) -> Self {
        Self {
            holder: holder.into(),
            next: Arc::default(),
            waiting: Arc::default(),
        }
    }

    /// The subjects on which the receipts of this process come.
    pub(crate) fn subject(&self, bus: &Bus) -> String {
        format!("{}.receipt.{}.*", bus.subjects().prefix(), self.holder)
    }

    /// Sends a message to this process and waits for it. The server reads a connection in order, so then it has
    /// every subscription that was made before.
    pub(crate) async fn arrive(&self, bus: &Bus, subscription: &mut Subscription) -> bool {
        let subject = format!("{}.receipt.{}.arrived", bus.subjects().prefix(), self.holder);
        let arrived = async {
            bus.publish(&subject, &Headers::new(), Bytes::new()).await.ok()?;
            subscription.next().await
        };
        matches!(tokio::time::timeout(ARRIVAL, arrived).await, Ok(Some(_)))
    }

    /// Waits for one more receipt.
    pub(crate) fn expect(&self) -> Expected {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(number, sender);
        Expected {
            address: format!("{}.{number}", self.holder),
            number,
            receipts: self.clone(),
            answer,
        }
    }

    /// Hands receipts to who waits for them.
    pub(crate) async fn run(self, mut subscription: Subscription) {
        while let Some(message) = subscription.next().await {
            let number = message
                .subject
                .rsplit('.')
                .next()
                .and_then(|number| number.parse::<u64>().ok());
            let waiting = number.and_then(|number| self.waiting.lock().remove(&number));
            if let (Some(waiting), Ok(receipt)) = (waiting, serde_json::from_slice(&message.body)) {
                let _ = waiting.send(receipt);
            }
        }
    }
}

impl Expected {
    /// Returns the receipt; `None` when this process stops.
    pub(crate) async fn answer(&mut self) -> Option<Receipt> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.receipts.waiting.lock().remove(&self.number);
    }
}

/// Tells whoever wants to know what became of an event that was to be stored.
pub(crate) async fn send(bus: &Bus, headers: &Headers, fate: &Fate) {
    let receipt = match fate {
        Fate::Stored(Some(sequence)) => Receipt::Sequence(*sequence),
        // Stored by a former owner and followed by other events: the asker's next attempt finds it.
        Fate::Stored(None) => return,
        Fate::Refused(refusal) => Receipt::Refused(refusal.to_string()),
    };
    answer(bus, headers, &receipt).await;
}

/// Sends a receipt to whoever wants it.
pub(crate) async fn answer(bus: &Bus, headers: &Headers, receipt: &Receipt) {
    let Some(address) = headers.get(RECEIPT).filter(|address| is_address(address)) else {
        return;
    };
    let Ok(body) = serde_json::to_vec(receipt) else {
        return;
    };
    let subject = format!("{}.receipt.{address}", bus.subjects().prefix());
    let _ = bus.publish(&subject, &Headers::new(), body.into()).await;
}

/// Whoever publishes writes the address, so it must not lead to other subjects.
fn is_address(address: &str) -> bool {
    let Some((holder, number)) = address.split_once('.') else {
        return false;
    };
    (1..=40).contains(&holder.len())
        && holder.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && number.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_nowhere_else() {
        assert!(is_address("a1B2.17"));
        for address in ["", "a", "a.b", "a.1.2", "*.1", ">.1", "a b.1", "a.-1", ".1"] {
            assert!(!is_address(address), "{address}");
        }
    }

    #[tokio::test]
    async fn who_no_longer_waits_is_forgotten() {
        let receipts = Receipts::new("p");
        let first = receipts.expect();
        let second = receipts.expect();
        assert_eq!((first.address.as_str(), second.address.as_str()), ("p.0", "p.1"));
        drop(first);
        assert_eq!(receipts.waiting.lock().len(), 1);
        drop(second);
        assert!(receipts.waiting.lock().is_empty());
    }
}
