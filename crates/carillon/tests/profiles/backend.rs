//! A team's backend: a NATS client that publishes, answers and gives orders.

use async_nats::{Client, HeaderMap, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::stage::LIMIT;

pub(crate) struct Backend {
    client: Client,
}

impl Backend {
    pub(crate) async fn connect(url: &str) -> Self {
        let client = async_nats::connect(url).await;
        Self {
            client: client.unwrap_or_else(|e| panic!("cannot connect to {url}: {e}")),
        }
    }

    /// Publishes a durable event and waits for its acknowledgement.
    pub(crate) async fn publish(&self, address: &str, event: &str, data: Value) {
        let body = json!({ "event": event, "data": data }).to_string();
        let jetstream = async_nats::jetstream::new(self.client.clone());
        let sent = jetstream.publish(format!("rt.pub.{address}"), body.into()).await;
        sent.unwrap().await.unwrap();
    }

    /// Answers every request on a subject from now on.
    pub(crate) async fn answer(
        &self,
        subject: &str,
        answer: impl Fn(Value) -> Value + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let mut requests = self.hear(subject).await;
        let client = self.client.clone();
        tokio::spawn(async move {
            while let Some((body, reply)) = requests.next_request().await {
                if let Some(reply) = reply {
                    let body = answer(body).to_string();
                    client.publish(reply, body.into()).await.unwrap();
                }
            }
        })
    }

    /// Listens to a subject; the subscription stands when this returns.
    pub(crate) async fn hear(&self, subject: &str) -> Heard {
        let subscriber = self.client.subscribe(subject.to_owned()).await.unwrap();
        // The server takes a connection's commands in order: the answer proves the subscription.
        let inbox = self.client.new_inbox();
        let mut proof = self.client.subscribe(inbox.clone()).await.unwrap();
        self.client.publish(inbox, "".into()).await.unwrap();
        tokio::time::timeout(LIMIT, proof.next()).await.unwrap().unwrap();
        Heard { subscriber }
    }

    /// Sends a request and returns the reply.
    pub(crate) async fn request(&self, subject: &str, body: Value) -> Value {
        let send = self.client.request(subject.to_owned(), body.to_string().into());
        let reply = tokio::time::timeout(LIMIT, send).await.unwrap();
        let reply = reply.unwrap_or_else(|e| panic!("{subject}: {e}"));
        serde_json::from_slice(&reply.payload).unwrap()
    }

    /// Reads the first event of the durable stream behind a subject.
    pub(crate) async fn stored(&self, stream: &str, subject: &str) -> (HeaderMap, Value) {
        let jetstream = async_nats::jetstream::new(self.client.clone());
        let stream = jetstream.get_stream(stream).await.unwrap();
        let message = carillon_testkit::wait::until(format!("a message on {subject}"), LIMIT, async || {
            stream.get_last_raw_message_by_subject(subject).await.ok()
        })
        .await;
        (message.headers, serde_json::from_slice(&message.payload).unwrap())
    }
}

/// What comes on a subject.
pub(crate) struct Heard {
    subscriber: Subscriber,
}

impl Heard {
    /// The next body.
    pub(crate) async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(LIMIT, self.next_request()).await;
        next.unwrap_or_else(|_| panic!("nothing came within {LIMIT:?}"))
            .unwrap()
            .0
    }

    async fn next_request(&mut self) -> Option<(Value, Option<async_nats::Subject>)> {
        let message = self.subscriber.next().await?;
        let body = serde_json::from_slice(&message.payload);
        let body = body.unwrap_or_else(|e| panic!("{}: {e}", message.subject));
        Some((body, message.reply))
    }
}
