//! What backends are told of connections: `$connect`, `$disconnect`, `$join`, `$leave`.
//!
//! They are stored, in the order in which they happened at this edge, and the server publishes them on `rt.up.…`
//! too.

use std::sync::Arc;
use std::time::Duration;

use carillon_bus::{Outgoing, StoreError};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::Room;
use carillon_protocol::token;
use futures_util::StreamExt;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::entrance::Opened;
use crate::hub::Hub;
use crate::metrics;
use crate::session::Session;
use crate::up::{self, About, Up};

/// How often a store is tried again.
const ATTEMPTS: u32 = 8;
/// What may wait to be stored while NATS is away; more is dropped, and the log says so.
pub(crate) const MAX_WAITING: usize = 65_536;
/// Stores that await their acknowledgement at once.
const AT_ONCE: usize = 256;

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
        let data = About {
            recovered: Some(recovered),
            term: Some(session.keeper.term()),
            ..About::default()
        };
        self.tell(
            session,
            "$connect",
            data,
            Some("connect"),
            Some((recovered, auth)),
        );
    }

    /// Tells that a connection's transport is gone.
    pub(crate) fn tell_disconnect(self: &Arc<Self>, session: &Arc<Session>, reason: &str) {
        let data = About {
            reason: Some(reason),
            term: Some(session.keeper.term()),
            ..About::default()
        };
        self.tell(session, "$disconnect", data, Some("disconnect"), None);
    }

    /// Tells that a connection joined or left a room; automatic rooms are not told.
    pub(crate) async fn tell_room(self: &Arc<Self>, session: &Arc<Session>, event: &str, room: &Room) {
        if !session.keeper.is_automatic(room).await {
            let data = About {
                room: Some(room),
                ..About::default()
            };
            self.tell(session, event, data, None, None);
        }
    }

    /// Tells an event, with a name where it happens once in a term, and with the handshake where it is one.
    fn tell(
        &self,
        session: &Session,
        event: &str,
        data: About<'_>,
        once: Option<&str>,
        handshake: Option<(bool, Option<&RawValue>)>,
    ) {
        if !session.namespace.settings.load().lifecycle {
            return;
        }
        let term = session.keeper.term();
        let user = session.user.load();
        let mut body = Up::of(session, &user, event);
        (body.data, body.term) = (Some(data), Some(term));
        if let Some((recovered, auth)) = handshake {
            body.recovered = Some(recovered);
            body.show(auth);
        }
        let mut headers = Headers::new();
        if let Some(once) = once {
            headers.push(name::MSG_ID, format!("{}.{term}.{once}", session.sid));
        }
        let message = Outgoing {
            subject: format!(
                "{}.lifecycle.{}.{}",
                self.bus.subjects().prefix(),
                session.namespace.name.token(),
                token::encode(event)
            ),
            headers,
            body: body.json().into(),
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
}

/// Makes an event smaller; `false` where it has no handshake data.
fn leave_out_auth(message: &mut Outgoing) -> bool {
    let smaller = up::without_auth(&message.body);
    let is_smaller = smaller.is_some();
    message.body = smaller.unwrap_or_else(|| std::mem::take(&mut message.body));
    is_smaller
}
