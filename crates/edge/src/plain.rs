//! The JSON protocol of `/ws`: topics are rooms of the main namespace.

mod topics;

use std::sync::Arc;

use carillon_bus::history::now;
use carillon_protocol::clientjson::encode;
use carillon_protocol::clientjson::{BadMessage, Message, parse};
use carillon_protocol::event::Payload;
use carillon_protocol::headers::Headers;
use carillon_protocol::names::Room;
use carillon_protocol::offset::Offset;
use carillon_protocol::session::Transport;

use crate::actions::{Answer, close_if_abuse};
use crate::backend::refusal;
use crate::client::{Client, Closing};
use crate::entrance::{Entry, Opened, Refused, Resume};
use crate::hub::Hub;
use crate::metrics;
use crate::rules::Refusal;
use crate::session::Session;
use crate::user::User;

/// How long the routers may take to say who is in a room.
const PRESENCE: std::time::Duration = std::time::Duration::from_secs(3);

/// One client that speaks plain JSON.
pub(crate) struct Plain {
    pub(crate) hub: Arc<Hub>,
    pub(crate) client: Arc<Client>,
    pub(crate) session: Arc<Session>,
}

/// What an error answers.
#[derive(Default, Clone, Copy)]
struct About<'a> {
    topic: Option<&'a str>,
    id: Option<u64>,
}

impl<'a> About<'a> {
    fn of(message: &'a Message<'_>) -> Self {
        match message {
            Message::Subscribe { topic, .. } | Message::Unsubscribe { topic } => Self {
                topic: Some(topic),
                id: None,
            },
            Message::Presence { topic, id } => Self {
                topic: Some(topic),
                id: Some(*id),
            },
            _ => Self::default(),
        }
    }
}

impl Plain {
    /// Opens the session of a plain client and greets it.
    pub(crate) async fn open(
        hub: &Arc<Hub>,
        client: &Arc<Client>,
        user: Arc<User>,
        since: Option<String>,
        topics: &[Room],
    ) -> Result<Self, Refused> {
        let namespace = hub.namespace("/").cloned().ok_or(Refused::Unavailable)?;
        let resume = since.clone().map_or(Resume::Fresh, Resume::Since);
        let entry = Entry {
            namespace,
            client: Arc::clone(client),
            user,
            auth: None,
            resume,
        };
        let mut opened = hub.open_session(entry).await?;
        let plain = Self {
            hub: Arc::clone(hub),
            client: Arc::clone(client),
            session: Arc::clone(&opened.session),
        };
        // Before the rooms that it enters are told.
        hub.tell_connect(&opened, None);
        if let Err(refused) = plain.enter_topics(topics, since.as_deref(), &mut opened).await {
            hub.close_session(&opened.session, "refused", false).await;
            return Err(refused);
        }
        plain.greet(opened, since.is_some());
        Ok(plain)
    }

    fn greet(&self, opened: Opened, resumed: bool) {
        let session = &self.session;
        let mut text = Vec::new();
        let user = session.user.load();
        let recovered = resumed.then_some(opened.recovered);
        // The session is held, so this is where the client's history begins.
        let is_sse = self.client.transport() == Transport::Sse;
        let offset = (is_sse && session.namespace.style.recovery).then(|| session.offset_now());
        encode::welcome(
            &mut text,
            session.sid.as_str(),
            user.id().map(|id| &**id),
            recovered,
            offset,
        );
        self.client.send_text(&text);
        session.greeted();
        if resumed {
            metrics::recovered(opened.recovered);
        }
        for (room, oldest) in &opened.lost {
            self.history_lost(room, *oldest);
        }
        for greeting in &opened.greetings {
            session.deliver(greeting);
        }
        let emits = session.in_context(|context| session.namespace.rules.load().welcome(context));
        for emit in emits {
            session.emit(emit);
        }
        session.release();
        if self.hub.revocations.covers(&user) {
            let (hub, session) = (Arc::clone(&self.hub), Arc::clone(session));
            tokio::spawn(async move { hub.disconnect(&session, "revoked").await });
        }
    }

    /// Takes a text message.
    pub(crate) async fn text(&self, text: &str) -> Result<(), Closing> {
        let message = match parse(text) {
            Ok(message) => message,
            Err(bad) => return self.bad_message(&bad),
        };
        // Events and tokens are counted where they are judged, and answers where nobody asked.
        let is_counted = !matches!(
            message,
            Message::Emit { .. } | Message::Answer { .. } | Message::Authenticate { .. }
        );
        if is_counted && let Err(refusal) = self.session.admit() {
            self.error(&refusal, About::of(&message));
            return close_if_abuse(&refusal);
        }
        match message {
            Message::Subscribe { topic, since } => {
                let about = About {
                    topic: Some(&topic),
                    ..About::default()
                };
                if let Err(refusal) = self.subscribe(&topic, since.as_deref()).await {
                    self.error(&refusal, about);
                }
            }
            Message::Unsubscribe { topic } => self.unsubscribe(&topic).await,
            Message::Ping => {
                let mut text = Vec::new();
                encode::pong(&mut text, now(), self.offset());
                self.client.send_text(&text);
            }
            Message::Emit { event, arguments, id } => {
                return self.emit(&event, &arguments.to_payload(), id).await;
            }
            Message::Presence { topic, id } => self.presence(&topic, id),
            Message::Answer { ask, arguments } => {
                if !self.client.asks.answer(ask, arguments.to_payload())
                    && let Err(refusal) = self.session.admit()
                {
                    return close_if_abuse(&refusal);
                }
            }
            Message::Authenticate { token } => {
                let payload = Payload::One(serde_json::json!({ "token": token.reveal() }).to_string().into());
                match self.hub.refresh(&self.session, &payload).await {
                    Ok(answer) => self.client.send_text(&event_text("auth:refreshed", &answer)),
                    Err(refusal) => {
                        self.error(&refusal, About::default());
                        return close_if_abuse(&refusal);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a binary message, which means nothing here.
    pub(crate) fn bad_message(&self, bad: &BadMessage) -> Result<(), Closing> {
        let told = refusal(bad.problem.code(), &bad.problem.to_string());
        self.error(
            &told,
            About {
                topic: bad.topic.as_deref(),
                id: bad.id,
            },
        );
        let counted = self.session.admit();
        counted.as_ref().map_or_else(close_if_abuse, |()| Ok(()))
    }

    fn offset(&self) -> Option<Offset> {
        self.session
            .namespace
            .style
            .recovery
            .then(|| self.session.offset())
    }

    async fn emit(&self, event: &str, payload: &Payload, id: Option<u64>) -> Result<(), Closing> {
        let outcome = self
            .hub
            .on_event(&self.session, event, payload, id.is_some())
            .await;
        match outcome {
            Ok(Answer::Backend { event, payload }) => {
                let asked = self.hub.forward_asking(&self.session, &event, &payload);
                let answer = match asked.await {
                    Ok(answer) => answer,
                    Err(refusal) => {
                        self.finish(id, Err(refusal));
                        return Ok(());
                    }
                };
                let (hub, session, client) = (
                    Arc::clone(&self.hub),
                    Arc::clone(&self.session),
                    Arc::clone(&self.client),
                );
                tokio::spawn(async move {
                    let answer = answer.await.map(|payload| Answer::Reply { payload, event: None });
                    Self { hub, client, session }.finish(id, answer);
                });
                Ok(())
            }
            Err(refusal) => {
                self.finish(id, Err(refusal.clone()));
                close_if_abuse(&refusal)
            }
            outcome => {
                self.finish(id, outcome);
                Ok(())
            }
        }
    }

    fn finish(&self, id: Option<u64>, answer: Result<Answer, Refusal>) {
        let acknowledge = |id, payload: &Payload| {
            let mut text = Vec::new();
            encode::ack(&mut text, id, payload);
            self.client.send_text(&text);
        };
        match (answer, id) {
            (Ok(Answer::Reply { payload, .. }), Some(id)) => acknowledge(id, &payload),
            (Ok(_), Some(id)) => acknowledge(id, &Payload::NONE),
            (
                Ok(Answer::Reply {
                    payload,
                    event: Some(event),
                }),
                None,
            ) => {
                self.session.emit(crate::rules::Emit { event, payload });
            }
            (Ok(_), None) => {}
            (Err(refusal), id) => self.error(
                &refusal,
                About {
                    id,
                    ..About::default()
                },
            ),
        }
    }

    /// Answers who is in a room that the client is in; the routers know.
    fn presence(&self, topic: &str, id: u64) {
        let about = About {
            topic: Some(topic),
            id: Some(id),
        };
        let Some(room) = Room::new(topic).ok().filter(|room| self.session.is_in(room)) else {
            return self.error(
                &refusal("not_member", "presence is told to members of a room"),
                about,
            );
        };
        let (hub, session, client) = (
            Arc::clone(&self.hub),
            Arc::clone(&self.session),
            Arc::clone(&self.client),
        );
        let topic = topic.to_owned();
        tokio::spawn(async move {
            let subject = hub.bus.subjects().presence(&session.namespace.name, &room);
            let reply = hub
                .bus
                .request(&subject, &Headers::new(), bytes::Bytes::new(), PRESENCE)
                .await;
            let plain = Self { hub, client, session };
            match reply
                .ok()
                .and_then(|reply| String::from_utf8(reply.body.to_vec()).ok())
            {
                Some(json) => plain.finish(
                    Some(id),
                    Ok(Answer::Reply {
                        payload: Payload::One(json.into()),
                        event: None,
                    }),
                ),
                None => {
                    let about = About {
                        topic: Some(&topic),
                        id: Some(id),
                    };
                    plain.error(&refusal("unavailable", "presence is not available now"), about);
                }
            }
        });
    }

    fn error(&self, refusal: &Refusal, about: About<'_>) {
        metrics::error(&refusal.code);
        let mut text = Vec::new();
        encode::Error {
            code: &refusal.code,
            message: &refusal.message,
            topic: about.topic,
            id: about.id,
            ..encode::Error::default()
        }
        .write(&mut text);
        self.client.send_text(&text);
    }
}

fn event_text(name: &str, payload: &Payload) -> Vec<u8> {
    format!("{{\"type\":\"{name}\",\"data\":{}}}", payload.text()).into_bytes()
}
