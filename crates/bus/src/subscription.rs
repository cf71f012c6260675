//! Messages of one subject, and how they end without a loss.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Message;
use crate::intake::{Answer, Channel, Intake, Received, Span};

/// How long the last messages of a subscription may take.
const LAST: Duration = Duration::from_secs(2);

/// Messages of one subject; dropping it unsubscribes.
pub struct Subscription {
    id: u64,
    messages: mpsc::Receiver<Received>,
    intake: Intake,
}

impl Subscription {
    pub(crate) fn new(intake: &Intake, subject: &str, queue: Option<&str>, span: Span) -> Self {
        let Channel { id, messages } = intake.subscribe(subject, queue, span);
        Self {
            id,
            messages,
            intake: intake.clone(),
        }
    }

    /// Returns the next message, or `None` once the connection is closed for good.
    pub async fn next(&mut self) -> Option<Message> {
        self.next_raw().await.map(|received| received.message)
    }

    /// Returns the next message with its status.
    pub(crate) async fn next_raw(&mut self) -> Option<Received> {
        self.messages.recv().await
    }

    /// Ends the subscription when the token is cancelled, without losing what was sent to it before.
    pub fn until(self, stop: CancellationToken) -> Ending {
        Ending {
            subscription: self,
            stop,
            last: None,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.intake.unsubscribe(self.id);
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
    /// `None` once it has come, or where the link is down: it takes the subscription with it.
    marker: Option<Answer>,
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
        }
        let Subscription { id, intake, .. } = &self.subscription;
        let last = self.last.get_or_insert_with(|| Last {
            marker: intake.end(*id).ok(),
            deadline: Instant::now() + LAST,
        });
        while let Some(marker) = &mut last.marker {
            tokio::select! {
                message = self.subscription.next() => return message,
                () = marker.arrive() => last.marker = None,
                () = tokio::time::sleep_until(last.deadline) => return None,
            }
        }
        // Everything that the server sent before the marker waits here.
        let received = self.subscription.messages.try_recv().ok();
        received.map(|received| received.message)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use carillon_protocol::headers::Headers;
    use carillon_service::settings::Nats;
    use carillon_testkit::nats::{STRANGE_HEADERS, Server};
    use carillon_testkit::wait;
    use tokio::task::JoinSet;

    use super::*;
    use crate::{Bus, RequestError};

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

    #[tokio::test]
    async fn nothing_that_a_message_says_ends_the_connection() {
        let server = Server::start().await;
        let bus = connect(&server).await;
        let mut messages = bus.subscribe("heard.>", None).await.unwrap();
        bus.flush().await;
        for headers in STRANGE_HEADERS {
            server.publish_raw(b"heard.a", headers, b"strange").await;
            let message = messages.next().await.unwrap();
            assert_eq!(
                (message.subject.as_str(), &message.body[..]),
                ("heard.a", &b"strange"[..])
            );
        }
        for (subject, read) in [
            (&b"heard.\xff"[..], "heard.\u{fffd}"),
            ("heard.a\u{a0}\u{2003}b".as_bytes(), "heard.a\u{a0}\u{2003}b"),
            (b"heard.a\x0cb", "heard.a\u{c}b"),
            (b"heard.a \xff", "heard.a"),
        ] {
            server.publish_raw(subject, STRANGE_HEADERS[0], b"").await;
            let message = messages.next().await.unwrap();
            assert_eq!((message.subject.as_str(), message.reply), (read, None));
            assert_eq!(message.headers.get("X-Team"), Some("\u{fffd}\u{fffd}"));
        }
        assert_eq!(bus.link_state().borrow().generation, 1);
    }

    #[tokio::test]
    async fn a_request_has_its_answer_or_a_reason() {
        let server = Server::start().await;
        let bus = connect(&server).await;
        let none = Headers::new();
        let ask = |limit| bus.request("question", &none, "?".into(), limit);
        assert_eq!(ask(LIMIT).await.unwrap_err(), RequestError::NoResponders);
        let mut questions = bus.subscribe("question", None).await.unwrap();
        assert_eq!(
            ask(Duration::from_millis(50)).await.unwrap_err(),
            RequestError::Timeout
        );
        questions.next().await.unwrap();
        for headers in STRANGE_HEADERS {
            let answer = async {
                let reply = questions.next().await.unwrap().reply.unwrap();
                server.publish_raw(reply.as_bytes(), headers, b"!").await;
            };
            let (answered, ()) = tokio::join!(ask(LIMIT), answer);
            assert_eq!(answered.unwrap().body, "!");
        }
    }

    #[tokio::test]
    async fn subscriptions_are_made_again_with_their_queue_groups() {
        let mut server = Server::start().await;
        let bus = connect(&server).await;
        let mut alone = bus.subscribe("said", None).await.unwrap();
        let mut first = bus.subscribe("said", Some("group")).await.unwrap();
        let mut second = bus.subscribe("said", Some("group")).await.unwrap();
        let before = bus.link_state().borrow().generation;
        server.restart().await;
        let mut state = bus.link_state();
        let again = state.wait_for(|state| state.connected && state.generation > before);
        tokio::time::timeout(LIMIT, again).await.unwrap().unwrap();
        for number in 0..20 {
            let body = number.to_string();
            bus.publish("said", &Headers::new(), body.clone().into())
                .await
                .unwrap();
            assert_eq!(alone.next().await.unwrap().body, body);
            let message = tokio::select! {
                message = first.next() => message,
                message = second.next() => message,
            };
            assert_eq!(message.unwrap().body, body);
        }
        bus.flush().await;
        assert!(first.messages.is_empty() && second.messages.is_empty());
    }

    #[tokio::test]
    async fn who_does_not_listen_loses_the_newest_and_stops_nobody() {
        let server = Server::start().await;
        let bus = connect(&server).await;
        let mut slow = bus.subscribe("said", None).await.unwrap();
        for number in 0..slow.messages.max_capacity() + 10 {
            bus.publish("said", &Headers::new(), number.to_string().into())
                .await
                .unwrap();
        }
        wait::until_true("an answer", LIMIT, async || {
            let answer = bus.request("nobody", &Headers::new(), "".into(), LIMIT).await;
            answer.is_err_and(|error| error == RequestError::NoResponders)
        })
        .await;
        assert_eq!(slow.messages.len(), slow.messages.max_capacity());
        assert_eq!(slow.next().await.unwrap().body, "0");
    }
}
