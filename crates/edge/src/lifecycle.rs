//! What backends are told of connections: `$connect`, `$disconnect`, `$join`, `$leave`.
//!
//! They are stored, and the server publishes them on `rt.up.…` too.

use std::sync::Arc;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::Room;
use carillon_protocol::token;
use serde_json::{Map, Value, json};

use crate::hub::Hub;
use crate::session::Session;

/// How often a store is tried again.
const ATTEMPTS: u32 = 8;

impl Hub {
    /// Tells that a connection stands.
    pub(crate) fn tell_connect(self: &Arc<Self>, session: &Arc<Session>, auth: Option<Value>, recovered: bool) {
        let data = json!({ "recovered": recovered, "term": session.keeper.term() });
        let mut more = Map::new();
        more.insert("recovered".to_owned(), recovered.into());
        more.insert("auth".to_owned(), auth.unwrap_or(Value::Null));
        let id = format!("{}.{}.connect", session.sid, session.keeper.term());
        self.tell(session, "$connect", data, more, Some(id));
    }

    /// Tells that a connection's transport is gone.
    pub(crate) fn tell_disconnect(self: &Arc<Self>, session: &Arc<Session>, reason: &str) {
        let id = format!("{}.{}.disconnect", session.sid, session.keeper.term());
        let data = json!({ "reason": reason, "term": session.keeper.term() });
        self.tell(session, "$disconnect", data, Map::new(), Some(id));
    }

    /// Tells that a connection joined or left a room.
    pub(crate) fn tell_room(self: &Arc<Self>, session: &Arc<Session>, event: &str, room: &Room) {
        self.tell(session, event, json!({ "room": room }), Map::new(), None);
    }

    fn tell(self: &Arc<Self>, session: &Arc<Session>, event: &str, data: Value, more: Map<String, Value>, id: Option<String>) {
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
        let mut headers = Headers::new();
        if let Some(id) = id {
            headers.push(name::MSG_ID, id);
        }
        let hub = Arc::clone(self);
        tokio::spawn(async move {
            let body = bytes::Bytes::from(Value::Object(body).to_string());
            for attempt in 0..ATTEMPTS {
                match hub.bus.store(&subject, &headers, body.clone()).await {
                    Ok(_) => return,
                    Err(error) => tracing::debug!(%error, subject, "lifecycle event cannot be stored yet"),
                }
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            }
            tracing::warn!(subject, "lifecycle event was not stored");
        });
    }

    /// Returns what every body on `rt.up` has.
    pub(crate) fn up_body(&self, session: &Session, event: &str) -> Map<String, Value> {
        let user = session.user.load();
        let mut body = Map::new();
        body.insert("event".to_owned(), event.into());
        body.insert("user".to_owned(), json!({ "id": user.id(), "claims": &*user.who.claims }));
        body.insert("sid".to_owned(), session.sid.as_str().into());
        body.insert("namespace".to_owned(), session.namespace.name.as_str().into());
        body.insert("ts".to_owned(), now().into());
        body
    }
}
