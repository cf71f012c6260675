//! Tokens that expire while their connection stands: a warning, a chance to show a newer one, then the end.

use std::sync::Arc;
use std::time::Duration;

use carillon_bus::history::now;
use carillon_protocol::clientjson::encode;
use carillon_protocol::event::Payload;
use serde::Deserialize;
use serde_json::json;

use crate::backend::refusal;
use crate::client::Closing;
use crate::frame::Wire;
use crate::hub::Hub;
use crate::metrics;
use crate::namespace::Namespace;
use crate::rules::{Emit, Refusal};
use crate::session::Session;

/// The event that warns of the end.
const WARNING: &str = "auth:expiring";
/// The code of the end.
const EXPIRED: &str = "token_expired";
/// How often connections are looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Refresh {
    token: String,
}

impl Hub {
    /// Takes a newer token for a connection; the user must be the same.
    pub(crate) async fn refresh(
        self: &Arc<Self>,
        session: &Arc<Session>,
        payload: &Payload,
    ) -> Result<Payload, Refusal> {
        let rules = session.namespace.rules.load();
        session.with_limits(|limits| rules.admit(limits, std::time::Instant::now()))?;
        drop(rules);
        let shown = serde_json::from_slice::<Refresh>(payload.json());
        let token = shown.map_err(|_| refusal("bad_field", "token is missing"))?.token;
        let token = token.strip_prefix("Bearer ").unwrap_or(&token);
        let user = session.user.load_full();
        match self.reidentify(&user, token).await {
            Ok(newer) => {
                let expires_at = newer.expires_at;
                session.user.store(newer);
                session.warned.store(false, std::sync::atomic::Ordering::Relaxed);
                Ok(Payload::One(
                    json!({ "ok": true, "expiresAt": expires_at }).to_string().into(),
                ))
            }
            Err(crate::admission::Unknown::Unavailable) => {
                Err(refusal("unavailable", "the token cannot be checked now"))
            }
            Err(_) => Err(refusal("unauthorized", &self.auth.invalid_text)),
        }
    }

    /// Warns and closes connections whose token expires, until the edge stops.
    pub(crate) async fn watch_expiry(self: Arc<Self>) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            for namespace in self.namespaces() {
                self.look_for_expiry(namespace);
                namespace.beat_hearts();
                namespace.rooms.sweep(|cell, complete| {
                    namespace.doubts.left(&cell.room, complete);
                    if let Some(subscription) = cell.subscription {
                        self.link().unsubscribe(subscription);
                    }
                });
            }
        }
    }

    fn look_for_expiry(&self, namespace: &Namespace) {
        let now = now() / 1000;
        let leeway = self.verifier.leeway().as_secs();
        for session in namespace.sessions() {
            let Some(expires_at) = session.user.load().expires_at else {
                continue;
            };
            let is_near = now.saturating_add(self.config.expiry_warning.as_secs()) >= expires_at;
            // Before its greeting a client is sent nothing.
            if !is_near || !session.is_greeted() {
                continue;
            }
            if now >= expires_at.saturating_add(leeway) {
                if session.client.closing().is_some() {
                    continue;
                }
                session.tell_expired();
                // The transport is closed, since a client that was disconnected would not come back by itself.
                session.client.close(Closing {
                    code: 1008,
                    reason: EXPIRED.to_owned(),
                    flush: true,
                });
            } else if !session.warned.swap(true, std::sync::atomic::Ordering::Relaxed) {
                let data = json!({ "expiresAt": expires_at, "expiresIn": expires_at.saturating_sub(now) });
                session.emit(Emit {
                    event: WARNING.into(),
                    payload: Payload::One(data.to_string().into()),
                });
            }
        }
    }
}

impl Session {
    fn tell_expired(self: &Arc<Self>) {
        const MESSAGE: &str = "the token has expired";
        match self.client.wire {
            Wire::SocketIo => self.emit_error(&refusal(EXPIRED, MESSAGE), ""),
            Wire::Json => {
                metrics::error(EXPIRED);
                let mut text = Vec::new();
                encode::Error {
                    code: EXPIRED,
                    message: MESSAGE,
                    ..encode::Error::default()
                }
                .write(&mut text);
                self.client.send_text(&text);
            }
        }
    }
}
