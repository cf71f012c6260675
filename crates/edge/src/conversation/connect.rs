//! Entering a namespace.

use std::sync::Arc;

use carillon_protocol::engineio;
use carillon_protocol::socketio::encode;
use serde_json::{Value, json};

use super::{Conversation, Slot};
use crate::admission::{Unknown, without_token};
use crate::client::Closing;
use crate::entrance::{Entry, Opened, Refused, Resume};
use crate::metrics;
use crate::namespace::Namespace;
use crate::ticket;

impl Conversation {
    /// Begins to enter a namespace, on a task of its own: it may take a while, and others go on.
    pub(super) fn connect(self: &Arc<Self>, name: String, auth: Option<String>) -> Result<(), Closing> {
        let Some(namespace) = self.hub.namespace(&name).cloned() else {
            self.refuse(&name, "Invalid namespace", None);
            return Ok(());
        };
        {
            let mut namespaces = self.namespaces.lock();
            if self.client.closing().is_some() {
                return Ok(());
            }
            if namespaces
                .get(&name)
                .is_some_and(|slot| slot.session().is_none_or(|session| !session.has_ended()))
            {
                return Err(Closing {
                    code: 1002,
                    reason: "bad_packet: connected already".to_owned(),
                    flush: true,
                });
            }
            if namespaces.len() >= self.hub.config.max_namespaces {
                return Err(Closing {
                    code: 1008,
                    reason: "too_many_namespaces".to_owned(),
                    flush: true,
                });
            }
            namespaces.insert(name.clone(), Slot::Connecting);
        }
        let conversation = Arc::clone(self);
        let auth = auth.and_then(|auth| serde_json::from_str::<Value>(&auth).ok());
        tokio::spawn(async move {
            if let Err(refused) = conversation.enter(&namespace, auth).await {
                conversation.namespaces.lock().remove(namespace.name.as_str());
                conversation.tell_refusal(&namespace, refused);
            }
        });
        Ok(())
    }

    async fn enter(self: &Arc<Self>, namespace: &Arc<Namespace>, auth: Option<Value>) -> Result<(), Refused> {
        let user = match self.hub.identify(namespace, &self.shown, auth.as_ref()).await {
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
            Some(id) => Some(self.slots.user(id).ok_or(Refused::Unavailable)?),
            None => None,
        };
        if self.hub.is_draining() {
            return Err(Refused::Unavailable);
        }
        let text = |key: &str| {
            auth.as_ref()
                .and_then(|auth| auth[key].as_str())
                .map(str::to_owned)
        };
        let resume = match text("pid") {
            Some(ticket) => Resume::Session {
                ticket,
                offset: text("offset"),
            },
            None => Resume::Fresh,
        };
        let asked_to_recover = matches!(resume, Resume::Session { .. }) && namespace.style.recovery;
        let auth = without_token(auth, &user);
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
        self.greet(namespace, auth, opened).await;
        Ok(())
    }

    /// Tells the client that it is connected, then everything that waited for this.
    async fn greet(self: &Arc<Self>, namespace: &Arc<Namespace>, auth: Option<Value>, opened: Opened) {
        let session = Arc::clone(&opened.session);
        let name = namespace.name.as_str();
        let is_still_here = {
            let mut namespaces = self.namespaces.lock();
            let here =
                matches!(namespaces.get(name), Some(Slot::Connecting)) && self.client.closing().is_none();
            if here {
                namespaces.insert(name.to_owned(), Slot::Open(Arc::clone(&session)));
            }
            here
        };
        if !is_still_here {
            self.hub.close_session(&session, "transport close", true).await;
            return;
        }
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
        self.client.send_text(&text);
        session.greeted();
        self.hub.tell_connect(&opened, auth);
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
            self.hub.disconnect(&session, "revoked").await;
        }
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
                self.client.close(Closing {
                    code: 1013,
                    reason: "unavailable: try again".to_owned(),
                    flush: true,
                });
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
