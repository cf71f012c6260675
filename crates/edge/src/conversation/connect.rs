//! Entering a namespace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_protocol::engineio;
use carillon_protocol::socketio::encode;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::handshake::Handshake;
use super::{Conversation, Slot, bad_packet};
use crate::admission::Unknown;
use crate::client::Closing;
use crate::entrance::{Entry, Opened, Refused, Resume};
use crate::metrics;
use crate::namespace::Namespace;
use crate::ticket;

/// Why a session ends whose client leaves its namespace.
pub(super) const LEFT: &str = "client namespace disconnect";
/// CONNECT packets that a client may send in a period, unless it may be in more namespaces.
const MAX_REQUESTS: usize = 100;
const PERIOD: Duration = Duration::from_secs(10);

/// How often a client has asked lately.
#[derive(Default)]
pub(super) struct Requests {
    since: Option<Instant>,
    count: usize,
}

impl Requests {
    fn allow(&mut self, most: usize) -> bool {
        if self.since.is_none_or(|since| since.elapsed() >= PERIOD) {
            (self.since, self.count) = (Some(Instant::now()), 0);
        }
        self.count += 1;
        self.count <= most
    }
}

impl Conversation {
    /// Begins to enter a namespace, on a task of its own: it may take a while, and others go on.
    pub(super) fn connect(self: &Arc<Self>, name: String, auth: Option<String>) -> Result<(), Closing> {
        let most = MAX_REQUESTS.max(self.hub.config.max_namespaces);
        if !self.requests.lock().allow(most) {
            metrics::error("rate_limited");
            return Err(Closing {
                code: 1008,
                reason: "rate_limited: far too many namespaces were entered".to_owned(),
                flush: true,
            });
        }
        let Some(namespace) = self.hub.namespace(&name).cloned() else {
            self.refuse(&name, "Invalid namespace", None);
            return Ok(());
        };
        let auth = auth.map(|auth| Handshake::read(&auth)).transpose();
        let auth = auth.map_err(bad_packet)?;
        {
            let mut namespaces = self.namespaces.lock();
            if self.client.closing().is_some() {
                return Ok(());
            }
            namespaces.retain(|_, slot| !slot.has_ended());
            match namespaces.get_mut(&name) {
                None => {}
                // Behind the attempt that it has left: a stock client may disconnect and connect at once.
                Some(Slot::Leaving(again @ None)) => {
                    *again = Some(Box::new(auth));
                    return Ok(());
                }
                Some(_) => {
                    return Err(Closing {
                        code: 1002,
                        reason: "bad_packet: connected already".to_owned(),
                        flush: true,
                    });
                }
            }
            if namespaces.len() >= self.hub.config.max_namespaces {
                return Err(Closing {
                    code: 1008,
                    reason: "too_many_namespaces".to_owned(),
                    flush: true,
                });
            }
            namespaces.insert(name, Slot::Connecting);
        }
        tokio::spawn(Arc::clone(self).come_in(namespace, auth));
        Ok(())
    }

    /// Enters a namespace, and again where the client has left meanwhile and come back.
    async fn come_in(self: Arc<Self>, namespace: Arc<Namespace>, mut auth: Option<Handshake>) {
        loop {
            let refused = match self.enter(&namespace, auth).await {
                Ok(true) => return,
                Ok(false) => None,
                Err(refused) => Some(refused),
            };
            let name = namespace.name.as_str();
            let mut namespaces = self.namespaces.lock();
            match (namespaces.remove(name), refused) {
                (Some(Slot::Leaving(Some(again))), _) => {
                    namespaces.insert(name.to_owned(), Slot::Connecting);
                    auth = *again;
                }
                // Under the lock: it is no answer to a later request.
                (Some(Slot::Connecting), Some(refused)) => return self.tell_refusal(&namespace, refused),
                _ => return,
            }
        }
    }

    /// Enters a namespace once; `false` where the client has left before it was in.
    async fn enter(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        auth: Option<Handshake>,
    ) -> Result<bool, Refused> {
        let credential = auth.as_ref().map(Handshake::credential);
        let identified = self.hub.identify(namespace, &self.shown, credential.as_ref());
        let user = match identified.await {
            Ok(user) => user,
            Err(Unknown::Unavailable) => return Err(Refused::Unavailable),
            Err(unknown) => {
                let message = unknown.text(&self.hub, namespace);
                return Err(Refused::Client {
                    code: "unauthorized".to_owned(),
                    message,
                });
            }
        };
        let place = match user.id() {
            Some(id) => Some(self.places.user(id).ok_or(Refused::Unavailable)?),
            None => None,
        };
        if self.hub.is_draining() {
            return Err(Refused::Unavailable);
        }
        let text = |member: &str| auth.as_ref().and_then(|auth| auth.text(member));
        let resume = match text("pid") {
            Some(ticket) => Resume::Session {
                ticket,
                offset: text("offset"),
            },
            None => Resume::Fresh,
        };
        let asked_to_recover = matches!(resume, Resume::Session { .. }) && namespace.style.recovery;
        let auth = auth.map(|auth| auth.for_backends(&user));
        let entry = Entry {
            namespace: Arc::clone(namespace),
            client: Arc::clone(&self.client),
            user: Arc::clone(&user),
            auth: auth.clone(),
            resume,
        };
        let opened = self.hub.open_session(entry).await?;
        opened.session.occupy(place);
        if asked_to_recover {
            metrics::recovered(opened.recovered);
        }
        Ok(self.greet(namespace, auth, opened).await)
    }

    /// Tells the client that it is connected, then everything that waited for this; `false` where it has left.
    async fn greet(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        auth: Option<Box<RawValue>>,
        opened: Opened,
    ) -> bool {
        let session = Arc::clone(&opened.session);
        let name = namespace.name.as_str();
        let pid = namespace.style.recovery.then(|| {
            ticket::issue(
                &self.hub.key,
                session.sid,
                name,
                session.user.load().id().map(|id| &**id),
            )
        });
        let mut text = vec![engineio::MESSAGE];
        encode::connect(&mut text, name, session.sid.as_str(), pid.as_deref());
        let left = {
            let mut namespaces = self.namespaces.lock();
            match namespaces.get(name) {
                Some(Slot::Connecting) if self.client.closing().is_none() => {
                    if let Some(limits) = self.take_limits(name) {
                        session.keep_limits(limits);
                    }
                    namespaces.insert(name.to_owned(), Slot::Open(Arc::clone(&session)));
                    // Under the lock: whoever leaves now leaves what it and the backends were told of.
                    self.client.send_text(&text);
                    session.greeted();
                    self.hub.tell_connect(&opened, auth);
                    None
                }
                Some(Slot::Leaving(_)) => Some((LEFT, false)),
                _ => Some(("transport close", true)),
            }
        };
        if let Some((reason, recoverable)) = left {
            let is_known = opened.asked || opened.recovered;
            Box::pin(self.hub.end_session(&session, reason, recoverable, is_known)).await;
            return false;
        }
        for greeting in &opened.greetings {
            session.deliver(greeting);
        }
        if !opened.recovered {
            let emits = session.in_context(|context| namespace.rules.load().welcome(context));
            for emit in emits {
                session.emit(emit);
            }
        }
        session.release();
        // A revocation that came while the session was on its way in.
        if self.hub.revocations.covers(&session.user.load()) {
            Box::pin(self.hub.disconnect(&session, "revoked")).await;
        }
        true
    }

    fn tell_refusal(&self, namespace: &Namespace, refused: Refused) {
        match refused {
            Refused::Client { code, message } => {
                metrics::error(&code);
                self.refuse(namespace.name.as_str(), &message, Some(json!({ "code": code })));
            }
            // A stock client does not try again after a refusal, but it does after a closed transport.
            Refused::Unavailable => {
                metrics::error("unavailable");
                self.client.close(Refused::Unavailable.closing());
            }
        }
    }

    fn refuse(&self, namespace: &str, message: &str, data: Option<Value>) {
        let mut text = vec![engineio::MESSAGE];
        encode::connect_error(
            &mut text,
            namespace,
            message,
            data.map(|data| data.to_string()).as_deref(),
        );
        self.client.send_text(&text);
    }
}
