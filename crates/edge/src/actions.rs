//! What a client's event brings about: the rules decide, this carries it out.

use std::sync::Arc;
use std::time::Instant;

use carillon_bus::history::now;
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::Sid;
use carillon_protocol::names::Room;
use carillon_protocol::socketio::Limit;

use crate::backend::refusal;
use crate::client::Closing;
use crate::frame::Broadcast;
use crate::hub::Hub;
use crate::metrics;
use crate::rules::{Effect, Emit, Refusal, Target, code};
use crate::session::Session;

/// What the client is to be told in the end.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The acknowledgement, or an event of this name where none was asked for.
    Reply {
        payload: Payload,
        event: Option<Arc<str>>,
    },
    /// Nothing was decided: an acknowledgement without arguments.
    Empty,
    /// The backend answers: the event goes there before anything that the client sends next, and whoever waits for the
    /// answer waits on a task of its own.
    Backend { event: Arc<str>, payload: Payload },
}

impl Hub {
    /// Puts a client's event to the rules and carries out what they say, in order, up to the first refusal.
    pub(crate) async fn on_event(
        self: &Arc<Self>,
        session: &Arc<Session>,
        event: &str,
        payload: &Payload,
        wants_ack: bool,
    ) -> Result<Answer, Refusal> {
        metrics::received(&session.namespace);
        let rules = session.namespace.rules.load_full();
        let outcome = session.in_context(|context| {
            session.with_limits(|limits| rules.on_event(event, payload, context, limits, Instant::now()))
        })?;
        for effect in &outcome.effects {
            self.check_size(session, effect)?;
        }
        let mut answer = Answer::Empty;
        for effect in outcome.effects {
            match effect {
                Effect::Join(room) => self.join_by_rule(session, &room).await?,
                Effect::Leave(room) => {
                    self.leave(session, &room).await.map_err(|_| unavailable())?;
                }
                Effect::Relay {
                    to,
                    event,
                    payload,
                    durable,
                    except_self,
                } => {
                    self.relay(session, to, &event, payload, durable, except_self)
                        .await?;
                }
                Effect::Forward {
                    event,
                    payload,
                    awaited,
                } if awaited && wants_ack => {
                    answer = Answer::Backend { event, payload };
                }
                Effect::Forward { event, payload, .. } => {
                    self.forward(session, &event, &payload).await?;
                }
                Effect::Reply { payload, event } => answer = Answer::Reply { payload, event },
                Effect::Emit(emit) => session.emit(emit),
                Effect::Alive => session.alive(),
            }
        }
        Ok(answer)
    }

    /// Counts an event that is over a limit of its protocol, and says what its sender is told.
    pub(crate) fn refuse_excess(&self, session: &Session, limit: Limit) -> Refusal {
        metrics::received(&session.namespace);
        let rules = session.namespace.rules.load_full();
        match session.with_limits(|limits| rules.admit(limits, Instant::now())) {
            Ok(()) => refusal(excess_code(limit), &limit.to_string()),
            Err(refusal) => refusal,
        }
    }

    /// Joins a room if the rules allow it, within the limit of rooms.
    pub(crate) async fn join_by_rule(
        self: &Arc<Self>,
        session: &Arc<Session>,
        room: &Room,
    ) -> Result<(), Refusal> {
        self.may_join(session, room).await?;
        if !session.is_in(room) && session.rooms().len() >= self.config.max_rooms {
            return Err(refusal(
                "too_many_rooms",
                "this connection is in as many rooms as it may be",
            ));
        }
        self.join(session, room).await.map_err(|_| unavailable())
    }

    /// Refuses a relay that no publisher would take, before anything of the rule is done.
    fn check_size(&self, session: &Session, effect: &Effect) -> Result<(), Refusal> {
        let Effect::Relay {
            event,
            payload,
            except_self,
            ..
        } = effect
        else {
            return Ok(());
        };
        let except = except_self.then_some(session.sid);
        let (size, most) = (
            relayed(event, payload, except).len() as u64,
            self.events.max_bytes,
        );
        if size > most {
            let problem = format!("the event has {size} bytes; at most {most} are allowed");
            return Err(refusal(code::TOO_LARGE, &problem));
        }
        Ok(())
    }

    async fn relay(
        &self,
        session: &Arc<Session>,
        to: Target,
        event: &str,
        payload: Payload,
        durable: bool,
        except_self: bool,
    ) -> Result<(), Refusal> {
        let room = match to {
            Target::Everyone => Room::all(),
            Target::Room(room) => room,
        };
        let namespace = &session.namespace.name;
        let except = except_self.then_some(session.sid);
        if durable {
            let body = relayed(event, &payload, except);
            let subject = self.bus.subjects().publish(namespace, &room);
            let stored = self.bus.store(&subject, &Headers::new(), body.into()).await;
            return stored.map(|_| ()).map_err(|_| unavailable());
        }
        let event = Event {
            name: event.to_owned(),
            payload,
            id: None,
            except: except.map(|sid| sid.to_string()),
            time: now(),
        };
        let subject = self.bus.subjects().delivery(namespace, &room);
        let sent = self
            .bus
            .publish(&subject, &event.headers(), event.payload.json().clone())
            .await;
        sent.map_err(|_| unavailable())
    }
}

/// Returns the code of an event that is over a limit of its protocol.
pub(crate) fn excess_code(limit: Limit) -> &'static str {
    match limit {
        Limit::Depth => code::TOO_DEEP,
        Limit::Attachments => code::TOO_LARGE,
    }
}

/// Returns the body with which the event is published.
fn relayed(event: &str, payload: &Payload, except: Option<Sid>) -> String {
    let event = serde_json::Value::from(event);
    let key = match payload {
        Payload::One(_) => "data",
        Payload::Many(_) => "args",
    };
    let except = except
        .map(|sid| format!(",\"except\":[\"{sid}\"]"))
        .unwrap_or_default();
    format!("{{\"event\":{event},\"{key}\":{}{except}}}", payload.text())
}

fn unavailable() -> Refusal {
    refusal("unavailable", "the cluster cannot do this now")
}

impl Session {
    /// Calls with what the rules may know of the connection.
    pub(crate) fn in_context<T>(&self, call: impl FnOnce(&crate::rules::Context<'_>) -> T) -> T {
        let user = self.user.load();
        let rooms: std::collections::BTreeSet<Room> = self.rooms().into_iter().collect();
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        call(&crate::rules::Context {
            user: &user.who,
            sid: self.sid.as_str(),
            rooms: &rooms,
            now_ms: now(),
            id: &id,
        })
    }

    /// Sends an event that this edge makes itself to this connection alone.
    pub(crate) fn emit(self: &Arc<Self>, emit: Emit) {
        let event = Event {
            name: emit.event.to_string(),
            payload: emit.payload,
            id: None,
            except: None,
            time: now(),
        };
        let broadcast = Arc::new(Broadcast::new(event, Room::of_session(self.sid), None, None));
        self.deliver(&broadcast);
    }

    /// Tells the client that something it did was refused.
    pub(crate) fn emit_error(self: &Arc<Self>, refusal: &Refusal, event: &str) {
        metrics::error(&refusal.code);
        let data =
            serde_json::json!({ "code": &*refusal.code, "message": &*refusal.message, "event": event });
        let name = self.namespace.settings.load().error_event.clone();
        self.emit(Emit {
            event: name.into(),
            payload: Payload::One(data.to_string().into()),
        });
    }

    /// Counts something that the client sent and that is no event.
    pub(crate) fn admit(&self) -> Result<(), Refusal> {
        metrics::received(&self.namespace);
        let rules = self.namespace.rules.load();
        self.with_limits(|limits| rules.admit(limits, Instant::now()))
    }

    /// Notes that the client answered the application heartbeat.
    fn alive(&self) {
        self.pulse.lock().answered();
    }
}

/// Closes a connection that goes far past its limit.
pub(crate) fn close_if_abuse(refusal: &Refusal) -> Result<(), Closing> {
    if refusal.abuse {
        return Err(Closing {
            code: 1008,
            reason: "rate_limited: far too many messages".to_owned(),
            flush: true,
        });
    }
    Ok(())
}
