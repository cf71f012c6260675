//! What backends are told of connections: `$connect`, `$disconnect`, `$join`, `$leave`.
//!
//! They are stored, in the order in which they happened at this edge, and the server publishes them on `rt.up.…`
//! too.

use std::sync::Arc;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_bus::{Outgoing, StoreError};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::Room;
use carillon_protocol::token;
use futures_util::StreamExt;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::backend::with_raw;
use crate::entrance::Opened;
use crate::hub::Hub;
use crate::metrics;
use crate::session::Session;

/// How often a store is tried again.
const ATTEMPTS: u32 = 8;
/// What may wait to be stored while NATS is away; more is dropped, and the log says so.
pub(crate) const MAX_WAITING: usize = 65_536;
/// Stores that await their acknowledgement at once.
const AT_ONCE: usize = 256;
/// Largest handshake data that backends are shown, as JSON.
const MAX_AUTH: usize = 256 * 1024;

impl Hub {
    /// Tells that a connection stands, unless the backend was asked to admit it: then that was the `$connect`.
    pub(crate) fn tell_connect(self: &Arc<Self>, opened: &Opened, auth: Option<Box<RawValue>>) {
        if !opened.asked {
            self.tell_connected(&opened.session, opened.recovered, auth.as_deref());
        }
    }

    /// Tells that a connection stands whose `$disconnect` was told by others.
    pub(crate) fn tell_return(&self, session: &Session) {
        self.tell_connected(session, true, None);
    }

    fn tell_connected(&self, session: &Session, recovered: bool, auth: Option<&RawValue>) {
        let data = json!({ "recovered": recovered, "term": session.keeper.term() });
        let mut more = Map::new();
        more.insert("recovered".to_owned(), recovered.into());
        let auth = passed_on(&mut more, auth);
        let id = format!("{}.{}.connect", session.sid, session.keeper.term());
        self.tell(session, "$connect", data, more, Some(auth), Some(id));
    }

    /// Tells that a connection's transport is gone.
    pub(crate) fn tell_disconnect(self: &Arc<Self>, session: &Arc<Session>, reason: &str) {
        let id = format!("{}.{}.disconnect", session.sid, session.keeper.term());
        let data = json!({ "reason": reason, "term": session.keeper.term() });
        self.tell(session, "$disconnect", data, Map::new(), None, Some(id));
    }

    /// Tells that a connection joined or left a room; automatic rooms are not told.
    pub(crate) async fn tell_room(self: &Arc<Self>, session: &Arc<Session>, event: &str, room: &Room) {
        if !session.keeper.is_automatic(room).await {
            self.tell(session, event, json!({ "room": room }), Map::new(), None, None);
        }
    }

    fn tell(
        &self,
        session: &Session,
        event: &str,
        data: Value,
        more: Map<String, Value>,
        auth: Option<&RawValue>,
        id: Option<String>,
    ) {
        if !session.namespace.settings.load().lifecycle {
            return;
        }
        let subject = format!(
            "{}.lifecycle.{}.{}",
            self.bus.subjects().prefix(),
            session.namespace.name.token(),
            token::encode(event)
        );
        let mut body = self.up_body(session, event);
        body.insert("data".to_owned(), data);
        body.insert("term".to_owned(), session.keeper.term().into());
        body.extend(more);
        let body = Value::Object(body);
        let mut headers = Headers::new();
        if let Some(id) = id {
            headers.push(name::MSG_ID, id);
        }
        let message = Outgoing {
            subject,
            headers,
            body: match auth {
                Some(auth) => with_raw("auth", auth.get(), &body),
                None => body.to_string().into(),
            },
        };
        if self.lifecycle.try_send(message).is_err() {
            metrics::error("lifecycle_dropped");
            tracing::warn!(event, sid = %session.sid, "lifecycle event is dropped, too many wait");
        }
    }

    /// Stores what is told, until the edge stops and everything told before is stored.
    pub(crate) async fn store_lifecycle(self: Arc<Self>, told: mpsc::Receiver<Outgoing>) {
        let told = futures_util::stream::unfold(told, async |mut told| Some((told.recv().await?, told)));
        // Sent one after the other; only the acknowledgements are awaited side by side.
        let sent = told.then(|message| {
            let hub = Arc::clone(&self);
            async move {
                let sent = hub
                    .bus
                    .store_later(&message.subject, &message.headers, message.body.clone())
                    .await;
                (hub, message, sent)
            }
        });
        let stored = sent.map(|(hub, message, sent)| async move {
            let stored = match sent {
                Ok(acknowledged) => acknowledged.await,
                Err(error) => Err(error),
            };
            if let Err(error) = stored {
                hub.store_again(message, error).await;
            }
        });
        stored
            .buffered(AT_ONCE)
            .for_each(|()| std::future::ready(()))
            .await;
    }

    /// Stores what was not stored. What is too large is so every time, and others wait behind it.
    async fn store_again(&self, mut message: Outgoing, mut error: StoreError) {
        for attempt in 0..ATTEMPTS {
            if error != StoreError::TooLarge {
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            } else if !leave_out_auth(&mut message) {
                break;
            }
            match self
                .bus
                .store(&message.subject, &message.headers, message.body.clone())
                .await
            {
                Ok(_) => return,
                Err(again) => error = again,
            }
        }
        tracing::warn!(%error, subject = message.subject, "lifecycle event was not stored");
    }

    /// Returns what every body on `rt.up` has.
    pub(crate) fn up_body(&self, session: &Session, event: &str) -> Map<String, Value> {
        let user = session.user.load();
        let mut body = Map::new();
        body.insert("event".to_owned(), event.into());
        body.insert(
            "user".to_owned(),
            json!({ "id": user.id(), "claims": &*user.who.claims }),
        );
        body.insert("sid".to_owned(), session.sid.as_str().into());
        body.insert("namespace".to_owned(), session.namespace.name.as_str().into());
        body.insert("ts".to_owned(), now().into());
        body
    }
}

/// Returns the handshake data that goes into a body, or nothing where it is too large, which the body says then.
pub(crate) fn passed_on<'a>(body: &mut Map<String, Value>, auth: Option<&'a RawValue>) -> &'a RawValue {
    let auth = auth.unwrap_or(RawValue::NULL);
    if auth.get().len() <= MAX_AUTH {
        return auth;
    }
    omit_auth(body);
    RawValue::NULL
}

fn omit_auth(body: &mut Map<String, Value>) {
    body.insert("omitted".to_owned(), json!(["auth"]));
}

/// Makes an event smaller; `false` where it has no handshake data.
fn leave_out_auth(message: &mut Outgoing) -> bool {
    let Ok(mut body) = serde_json::from_slice::<Map<String, Value>>(&message.body) else {
        return false;
    };
    if body.get("auth").is_none_or(Value::is_null) {
        return false;
    }
    body.insert("auth".to_owned(), Value::Null);
    omit_auth(&mut body);
    message.body = Value::Object(body).to_string().into();
    true
}
