//! Messages of one subject, and how they end without a loss.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::task::unconstrained;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Message;

/// How long the last messages of a subscription may take.
const LAST: Duration = Duration::from_secs(2);

/// Ends a subscription at the server and not in the client.
///
/// `async-nats` forgets a subscription that is drained as soon as it has written the `UNSUB`, and drops what the
/// server sent before it read it. It keeps one that has a limit until the limit is reached; nats-server reads at
/// most nine digits of a limit, and takes a longer one for none: the subscription ends there at once.
const AT_ONCE: u64 = 10_000_000_000;

/// Messages of one subject; dropping it unsubscribes.
pub struct Subscription {
    messages: async_nats::Subscriber,
    client: async_nats::Client,
}

impl Subscription {
    pub(crate) fn new(messages: async_nats::Subscriber, client: async_nats::Client) -> Self {
        Self { messages, client }
    }

    /// Returns the next message, or `None` once the connection is closed for good.
    pub async fn next(&mut self) -> Option<Message> {
        self.next_raw().await.map(Message::from)
    }

    /// Returns the next message with its status.
    pub(crate) async fn next_raw(&mut self) -> Option<async_nats::Message> {
        self.messages.next().await
    }

    /// Ends the subscription when the token is cancelled, without losing what was sent to it before.
    pub fn until(self, stop: CancellationToken) -> Ending {
        Ending {
            subscription: self,
            stop,
            last: None,
        }
    }

    /// Tells the server to send no more, and returns what will hear once it has understood.
    async fn end(&mut self) -> Option<Last> {
        let inbox = self.client.new_inbox();
        let marker = self.client.subscribe(inbox.clone()).await.ok()?;
        self.messages.unsubscribe_after(AT_ONCE).await.ok()?;
        self.client.publish(inbox, "".into()).await.ok()?;
        Some(Last {
            marker,
            come: false,
            deadline: Instant::now() + LAST,
        })
    }
}

/// A subscription that ends. The server gives a queue group's message to one member, so what this one drops nobody gets.
pub struct Ending {
    subscription: Subscription,
    stop: CancellationToken,
    /// Set once no more is wanted.
    last: Option<Last>,
}

/// What the server sends after the last message.
struct Last {
    marker: async_nats::Subscriber,
    come: bool,
    deadline: Instant,
}

impl Ending {
    /// Returns the next message, or `None` after the last one.
    pub async fn next(&mut self) -> Option<Message> {
        if self.last.is_none() {
            tokio::select! {
                message = self.subscription.next() => return message,
                () = self.stop.cancelled() => {}
            }
            self.last = Some(self.subscription.end().await?);
        }
        let last = self.last.as_mut()?;
        while !last.come {
            tokio::select! {
                message = self.subscription.next() => return message,
                _ = last.marker.next() => last.come = true,
                () = tokio::time::sleep_until(last.deadline) => return None,
            }
        }
        // Everything that the server sent before the marker waits here.
        unconstrained(self.subscription.next()).now_or_never().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use carillon_protocol::headers::Headers;
    use carillon_service::settings::Nats;
    use carillon_testkit::nats::Server;
    use tokio::task::JoinSet;

    use super::*;
    use crate::Bus;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn connect(server: &Server) -> Bus {
        let settings = Nats {
            url: server.url(),
            ..Nats::default()
        };
        Bus::connect(&settings, "test").await.unwrap()
    }

    async fn echo(bus: Bus, mut requests: Ending) {
        while let Some(request) = requests.next().await {
            let reply = request.reply.unwrap();
            bus.publish(&reply, &Headers::new(), request.body).await.unwrap();
        }
    }

    /// Members of a queue group end one after the other while requests come from several connections.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_queue_group_loses_no_request_while_its_members_end() {
        let server = Server::start().await;
        let done = CancellationToken::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut askers = JoinSet::new();
        // One member stays, so that there is always somebody to ask.
        let stays = connect(&server).await;
        let requests = stays.subscribe("echo", Some("group")).await.unwrap();
        let staying = tokio::spawn(echo(stays.clone(), requests.until(CancellationToken::new())));
        stays
            .request("echo", &Headers::new(), "".into(), LIMIT)
            .await
            .unwrap();
        for _ in 0..8 {
            let (bus, done, asked) = (connect(&server).await, done.clone(), Arc::clone(&asked));
            askers.spawn(async move {
                while !done.is_cancelled() {
                    let answer = bus.request("echo", &Headers::new(), "x".into(), LIMIT).await;
                    assert_eq!(answer.map(|answer| answer.body), Ok("x".into()));
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let member = connect(&server).await;
        for _ in 0..300 {
            let stop = CancellationToken::new();
            let requests = member.subscribe("echo", Some("group")).await.unwrap();
            let answering = tokio::spawn(echo(member.clone(), requests.until(stop.clone())));
            let before = asked.load(Ordering::Relaxed);
            while asked.load(Ordering::Relaxed) < before + 16 {
                tokio::task::yield_now().await;
            }
            stop.cancel();
            answering.await.unwrap();
        }
        done.cancel();
        while let Some(ended) = askers.join_next().await {
            ended.unwrap();
        }
        staying.abort();
    }
}
