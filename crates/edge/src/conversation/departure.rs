//! A conversation that goes on at another edge.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use carillon_protocol::ids::Sid;
use serde::{Deserialize, Serialize};

use super::{Conversation, Slot};
use crate::admission::Shown;
use crate::session::{Session, Standing};

/// Everything that the next owner of a conversation needs.
#[derive(Serialize, Deserialize)]
pub(crate) struct Handover {
    pub(crate) shown: Shown,
    /// The number of the next question to the client.
    pub(crate) next_ask: u64,
    pub(crate) sessions: Vec<Standing>,
}

/// The last that a former owner has for the next one.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Farewell {
    /// Frames for the client, in base64.
    rest: String,
    /// The signals of each session that are among them, or were sent before, since the sessions were held.
    pub(crate) signals: Vec<(Sid, Vec<u64>)>,
}

impl Farewell {
    pub(crate) fn new(rest: &[u8], signals: Vec<(Sid, Vec<u64>)>) -> Self {
        let rest = STANDARD.encode(rest);
        Self { rest, signals }
    }

    /// Returns the frames that still waited for the client.
    pub(crate) fn rest(&self) -> Bytes {
        STANDARD.decode(&self.rest).unwrap_or_default().into()
    }

    /// Returns the signals that a session was sent.
    pub(crate) fn signals_of(&self, sid: Sid) -> Vec<u64> {
        let of_session = self.signals.iter().find(|(known, _)| *known == sid);
        of_session.map(|(_, signals)| signals.clone()).unwrap_or_default()
    }
}

impl Conversation {
    /// Holds every session and describes it, if nothing is under way; otherwise everything goes on.
    ///
    /// The caller sees to it that nothing of the client is being taken.
    pub(crate) fn freeze(&self) -> Option<Handover> {
        let is_busy = self.client.closing().is_some()
            || self.decoder.lock().is_waiting()
            || self.owed.load(Ordering::SeqCst) > 0;
        let sessions = self.all_open()?;
        if is_busy || sessions.is_empty() {
            return None;
        }
        let next_ask = self.client.asks.stop()?;
        let held = sessions.iter().take_while(|session| session.freeze()).count();
        let standings = || sessions.iter().map(|session| session.standing()).collect();
        let standings: Option<Vec<Standing>> = if held == sessions.len() { standings() } else { None };
        let Some(sessions) = standings else {
            for session in &sessions[..held] {
                session.thaw();
            }
            self.client.asks.go_on(0);
            return None;
        };
        Some(Handover {
            shown: self.shown.clone(),
            next_ask,
            sessions,
        })
    }

    /// Goes on with what was held.
    pub(crate) fn thaw(&self) {
        for session in self.sessions() {
            session.thaw();
        }
        self.client.asks.go_on(0);
    }

    /// Forgets every session: another edge owns them now. Returns the signals that each was sent meanwhile.
    pub(crate) async fn depart(&self) -> Vec<(Sid, Vec<u64>)> {
        let mut signals = Vec::new();
        for session in self.sessions() {
            session.keeper.give_up().await;
            self.hub.forget(&session);
            signals.push((session.sid, session.signals()));
        }
        signals
    }

    /// Takes a session that another edge had.
    pub(crate) fn adopt(&self, session: &Arc<Session>) {
        let name = session.namespace.name.as_str().to_owned();
        self.namespaces
            .lock()
            .insert(name, Slot::Open(Arc::clone(session)));
    }

    /// Returns the sessions, unless a namespace is being entered.
    fn all_open(&self) -> Option<Vec<Arc<Session>>> {
        let namespaces = self.namespaces.lock();
        let mut sessions: Vec<Arc<Session>> = namespaces
            .values()
            .map(|slot| slot.session().cloned())
            .collect::<Option<_>>()?;
        sessions.retain(|session| !session.has_ended());
        Some(sessions)
    }
}
