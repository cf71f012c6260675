//! What other processes ask of this edge: orders, takeovers, questions to its clients.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::{Bucket, Message};
use carillon_protocol::engineio;
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::Sid;
use carillon_protocol::message::{
    Answer, Answers, Ask, Ended, Order, OrderKind, Ordered, Revoked, Takeover, fit,
};
use carillon_protocol::names::Room;
use carillon_protocol::offset::Offset;
use carillon_protocol::session::{State, Transport};
use carillon_protocol::socketio::MAX_SENT_ATTACHMENTS;
use carillon_protocol::websocket::Opcode;
use carillon_protocol::{binary, clientjson, socketio};
use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::client::Closing;
use crate::frame::{Chunk, Wire};
use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::record;
use crate::session::Session;

/// How long the cluster waits for a subscription that must stand.
const RETRY: Duration = Duration::from_secs(1);
/// How often a session is looked at that is on its way to another edge.
const LOOK: Duration = Duration::from_millis(5);
/// What another edge may take beyond its client's time.
const MARGIN: Duration = Duration::from_millis(500);
/// What is around the answers of clients in a message.
const ENVELOPE: usize = r#"{"answers":}"#.len();

impl Hub {
    /// Serves the edge's own subject, until the edge stops.
    pub(crate) async fn serve_requests(self: Arc<Self>) {
        let subjects = self.bus.subjects();
        let own = format!("{}.>", subjects.edge(self.id));
        let all = format!("{}.>", subjects.edges());
        loop {
            let (own, all) = (
                self.bus.subscribe(&own, None).await,
                self.bus.subscribe(&all, None).await,
            );
            let (Ok(mut own), Ok(mut all)) = (own, all) else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            loop {
                let message = tokio::select! {
                    () = self.stop.cancelled() => return,
                    message = own.next() => message,
                    message = all.next() => message,
                };
                let Some(message) = message else { break };
                let hub = Arc::clone(&self);
                tokio::spawn(async move { hub.serve(message).await });
            }
        }
    }

    async fn serve(self: Arc<Self>, message: Message) {
        let verb = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
        match verb.as_str() {
            "takeover" => {
                let Some(takeover) = read::<Takeover>(&message) else {
                    return;
                };
                for namespace in self.namespaces() {
                    if namespace.session(takeover.sid).is_some() {
                        let answer = self.hand_over(&namespace.name, &takeover).await;
                        return self.reply(&message, &answer).await;
                    }
                }
                self.reply(&message, &carillon_protocol::message::TakenOver::default())
                    .await;
            }
            "order" => {
                let Some(order) = read::<Order>(&message) else {
                    return;
                };
                let done = self.carry_out(&order).await;
                self.reply(&message, &Ordered { done }).await;
            }
            "ask" => {
                let Some(ask) = read::<Ask>(&message) else { return };
                let mut answers = self.ask_clients(&ask).await;
                fit(&mut answers, self.bus.max_payload() - ENVELOPE);
                self.reply(&message, &Answers { answers }).await;
            }
            "engine" => self.serve_engine(message).await,
            "revoked" => {
                if let Some(revoked) = read::<Revoked>(&message) {
                    let connections = self.revoke(&revoked).await;
                    self.reply(&message, &Ended { connections }).await;
                }
            }
            _ => tracing::debug!(subject = message.subject, "unknown request"),
        }
    }

    async fn reply(&self, message: &Message, answer: &impl Serialize) {
        if let Some(reply) = &message.reply {
            let body = Bytes::from(serde_json::to_vec(answer).expect("an answer is JSON"));
            if let Err(error) = self.bus.publish(reply, &Headers::new(), body).await {
                tracing::warn!(%error, subject = message.subject, "answer was not sent");
            }
        }
    }

    async fn carry_out(self: &Arc<Self>, order: &Order) -> bool {
        let Some(namespace) = self.namespace(order.namespace.as_str()) else {
            return false;
        };
        // What a client and backends are told of a connection begins with its greeting.
        let is_ready = |session: &Session| order.order != OrderKind::Disconnect || session.is_greeted();
        let Some(session) = namespace.session_when(order.sid, is_ready).await else {
            return false;
        };
        match (order.order, &order.room) {
            (OrderKind::Join, Some(room)) => {
                let joined = self.join(&session, room).await.is_ok();
                joined
                    && session
                        .keeper
                        .change(self, |record| {
                            if !record.ordered.contains(room) {
                                record.ordered.push(room.clone());
                            }
                        })
                        .await
                        .is_ok()
            }
            (OrderKind::Leave, Some(room)) => self.leave(&session, room).await.unwrap_or(false),
            (OrderKind::Disconnect, _) => {
                self.disconnect(&session, order.reason.as_deref().unwrap_or("disconnected"))
                    .await;
                true
            }
            (OrderKind::Join | OrderKind::Leave, None) => false,
        }
    }

    /// Disconnects a session for good: a Socket.IO client sees `io server disconnect`.
    pub(crate) async fn disconnect(self: &Arc<Self>, session: &Arc<Session>, reason: &str) {
        match session.client.transport() {
            Transport::Websocket | Transport::Polling => {
                let mut text = vec![engineio::MESSAGE];
                socketio::encode::disconnect(&mut text, session.namespace.name.as_str());
                session.client.send_text(&text);
            }
            Transport::Ws | Transport::Sse => {
                session.client.close(Closing {
                    code: 1008,
                    reason: format!("disconnected: {reason}"),
                    flush: true,
                });
            }
        }
        self.close_session(session, reason, false).await;
    }

    async fn ask_clients(self: &Arc<Self>, ask: &Ask) -> Vec<Answer> {
        let Some(namespace) = self.namespace(ask.namespace.as_str()) else {
            return Vec::new();
        };
        let payload = if ask.args {
            Payload::from_array(&ask.payload).unwrap_or(Payload::NONE)
        } else {
            Payload::One(Bytes::copy_from_slice(ask.payload.get().as_bytes()))
        };
        let deadline = Instant::now() + Duration::from_millis(ask.timeout_ms);
        let answers = ask
            .sids
            .iter()
            .map(|sid| self.ask_client(namespace, ask, *sid, &payload, deadline));
        join_all(answers).await.into_iter().flatten().collect()
    }

    /// Asks one client; one that is only about to come in, or to move, has no more time than the others.
    async fn ask_client(
        &self,
        namespace: &Namespace,
        ask: &Ask,
        sid: Sid,
        payload: &Payload,
        deadline: Instant,
    ) -> Option<Answer> {
        let at_rest = |session: &Session| session.is_greeted() && !session.client.asks.is_stopped();
        let session = match timeout_at(deadline, namespace.session_when(sid, at_rest)).await {
            Ok(Some(session)) => session,
            Ok(None) => return self.ask_elsewhere(ask, sid).await,
            // The router tells who did not answer.
            Err(_) => return None,
        };
        let answer = match session.ask(&ask.event, &ask.room, payload) {
            Some(answer) => timeout_at(deadline, answer).await.ok().and_then(Result::ok),
            None => None,
        };
        let error = answer.is_none().then(|| "timeout".to_owned());
        let data = answer.and_then(|answer| RawValue::from_string(first_argument(&answer)).ok());
        Some(Answer {
            sid: session.sid,
            user: session.user.load().id().cloned(),
            data,
            error,
        })
    }

    /// Asks a client at the edge where its session is now; whoever asked did not know yet that it has moved.
    async fn ask_elsewhere(&self, ask: &Ask, sid: Sid) -> Option<Answer> {
        let (record, _) = record::read(&self.bus.table(Bucket::Sessions), sid)
            .await
            .ok()??;
        if record.owner == self.id || record.state != State::Live {
            return None;
        }
        let subject = format!("{}.ask", self.bus.subjects().edge(record.owner));
        let ask = Ask {
            sids: vec![sid],
            ..ask.clone()
        };
        let body = Bytes::from(serde_json::to_vec(&ask).expect("a question is JSON"));
        let patience = Duration::from_millis(ask.timeout_ms) + MARGIN;
        let answer = self
            .bus
            .request(&subject, &Headers::new(), body, patience)
            .await
            .ok()?;
        let answers = serde_json::from_slice::<Answers>(&answer.body).ok()?;
        answers.answers.into_iter().find(|answer| answer.sid == sid)
    }
}

impl Namespace {
    /// Returns a session once it is ready: greeted, or not on its way to another edge; `None` where it is not here.
    async fn session_when(&self, sid: Sid, is_ready: impl Fn(&Session) -> bool) -> Option<Arc<Session>> {
        loop {
            let session = self.session(sid)?;
            if is_ready(&session) {
                return Some(session);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// An acknowledgement's one argument is the answer; of several it is the array, of none it is null.
fn first_argument(payload: &Payload) -> String {
    match payload {
        Payload::One(_) => payload.text().to_owned(),
        Payload::Many(_) if payload.arguments().is_empty() => "null".to_owned(),
        Payload::Many(_) => payload.text().to_owned(),
    }
}

fn read<T: DeserializeOwned>(message: &Message) -> Option<T> {
    match serde_json::from_slice(&message.body) {
        Ok(read) => Some(read),
        Err(error) => {
            tracing::warn!(%error, subject = message.subject, "request cannot be read");
            None
        }
    }
}

impl Session {
    /// Sends an event that the client must answer; `None` where it is asked too much already.
    fn ask(
        &self,
        event: &str,
        room: &Room,
        payload: &Payload,
    ) -> Option<tokio::sync::oneshot::Receiver<Payload>> {
        let (number, answer) = self.client.asks.open()?;
        match self.client.wire {
            Wire::SocketIo => {
                let arguments = payload.arguments();
                let extracted = binary::extract(arguments, MAX_SENT_ATTACHMENTS);
                let attachments = extracted
                    .as_ref()
                    .map_or(&[][..], |extracted| &extracted.attachments);
                let mut text = vec![engineio::MESSAGE];
                socketio::encode::Event {
                    namespace: self.namespace.name.as_str(),
                    id: Some(number),
                    name: event,
                    arguments: extracted.as_ref().map_or(arguments, |extracted| &extracted.json),
                    attachments: attachments.len(),
                    // The stock client looks for one at the end, where it has put the callback.
                    offset: None,
                }
                .write(&mut text);
                let chunks: Vec<Chunk> = attachments
                    .iter()
                    .map(|bytes| Chunk::new(Opcode::Binary, bytes))
                    .collect();
                self.client.send_event(
                    Chunk::text(&text),
                    &chunks,
                    carillon_service::settings::Overflow::CloseAndRecover,
                );
            }
            Wire::Json => {
                let event = Event {
                    name: event.to_owned(),
                    payload: payload.clone(),
                    id: None,
                    except: None,
                    time: carillon_bus::history::now(),
                };
                let text = clientjson::encode::Event {
                    topic: room.as_str(),
                    time: event.time,
                    name: &event.name,
                    id: None,
                    payload: &event.payload,
                    ask: Some(number),
                    offset: None::<Offset>,
                }
                .encode();
                self.client.send_text(&text);
            }
        }
        Some(answer)
    }
}
