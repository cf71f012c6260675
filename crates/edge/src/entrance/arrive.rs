//! Sessions that move here from another edge while their client goes on: its WebSocket is here already.
//!
//! The former owner holds them. They enter their rooms here, what came since is read, and the records change hands
//! by compare-and-set: up to there nothing has happened, from there on they are this edge's.

use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::names::Room;
use carillon_protocol::session::{State, Transport};

use crate::accept::{Places, Slots};
use crate::client::Client;
use crate::conversation::{Conversation, Handover};
use crate::frame::Wire;
use crate::hub::Hub;
use crate::outbox::Sink;
use crate::record::{Keeper, RecordError};
use crate::session::{Session, Standing};

/// How long the sessions may take to enter their rooms and to read what they missed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A conversation that goes on here; its sessions are held, and nothing was written to the client.
pub(crate) struct Arrived {
    pub(crate) client: Arc<Client>,
    pub(crate) conversation: Arc<Conversation>,
}

/// Why the sessions did not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotMoved {
    /// Everything is as it was before.
    Unchanged,
    /// It is not known who owns which session: the client must recover them.
    Broken,
}

impl Hub {
    /// Makes this edge the owner of sessions that their former owner holds.
    pub(crate) async fn take_in(
        self: &Arc<Self>,
        handover: Handover,
        slots: Slots,
    ) -> Result<Arrived, NotMoved> {
        let limit = usize::try_from(self.config.queue).unwrap_or(usize::MAX);
        let client = Arc::new(Client::new(
            Wire::SocketIo,
            Transport::Websocket,
            Sink::Pull,
            limit,
        ));
        client.asks.go_on(handover.next_ask);
        let places = Places::new(slots);
        let mut arriving = Arriving {
            hub: self,
            sessions: Vec::new(),
        };
        let prepare = async {
            for standing in &handover.sessions {
                self.prepare(&mut arriving.sessions, standing, &client, &places)
                    .await?;
            }
            Some(())
        };
        let prepared = tokio::time::timeout(PATIENCE, prepare).await;
        if !matches!(prepared, Ok(Some(()))) || self.is_draining() || self.lease.is_stale() {
            return Err(NotMoved::Unchanged);
        }
        for (done, session) in arriving.sessions.iter().enumerate() {
            match session.keeper.change(self, |_| {}).await {
                Ok(()) => {}
                Err(RecordError::Fenced) if done == 0 => return Err(NotMoved::Unchanged),
                Err(_) => {
                    // This one may have been written too; where it was not, giving it back changes nothing.
                    arriving.give_back(done + 1).await;
                    return Err(NotMoved::Broken);
                }
            }
        }
        let conversation = Conversation::new(Arc::clone(self), Arc::clone(&client), handover.shown, places);
        for session in std::mem::take(&mut arriving.sessions) {
            conversation.adopt(&session);
        }
        Ok(Arrived { client, conversation })
    }

    /// Lets a session enter its rooms here, held; `None` where that cannot be done.
    async fn prepare(
        self: &Arc<Self>,
        sessions: &mut Vec<Arc<Session>>,
        standing: &Standing,
        client: &Arc<Client>,
        places: &Places,
    ) -> Option<()> {
        let namespace = self.namespace(standing.record.namespace.as_str())?;
        if standing.record.epoch != namespace.style.epoch || standing.record.state != State::Live {
            return None;
        }
        let user = Arc::new(standing.user.clone());
        let place = match user.id() {
            Some(id) => Some(places.user(id)?),
            None => None,
        };
        let mut record = standing.record.clone();
        record.owner = self.id;
        record.term += 1;
        record.transport = client.transport();
        let keeper = Keeper::new(standing.sid, record, standing.revision);
        let session = Session::new(
            standing.sid,
            Arc::clone(namespace),
            Arc::clone(client),
            user,
            keeper,
        );
        session.occupy(place);
        session.stand(standing);
        let own = Room::of_session(standing.sid);
        if let Some(up_to) = standing.heard.get(&own) {
            session.has_own_room_up_to(*up_to);
        }
        namespace.insert(&session);
        sessions.push(Arc::clone(&session));
        let names: Vec<Room> = standing.heard.keys().cloned().collect();
        self.enter(&session, &names).await;
        let rooms: Vec<(Room, u64)> = standing
            .heard
            .iter()
            .map(|(room, up_to)| (room.clone(), *up_to))
            .collect();
        for missed in self.stored(&session, &rooms, &[]).await.ok()? {
            if !missed.complete {
                return None;
            }
            for (sequence, event) in missed.events {
                session.replay(self, sequence, event);
            }
        }
        Some(())
    }
}

/// Sessions on their way in; those that do not get in are forgotten.
struct Arriving<'a> {
    hub: &'a Arc<Hub>,
    sessions: Vec<Arc<Session>>,
}

impl Arriving<'_> {
    /// Marks the first sessions, whose records are this edge's already, as away.
    async fn give_back(&self, count: usize) {
        for session in &self.sessions[..count] {
            self.hub.close_session(session, "transport error", true).await;
        }
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        for session in &self.sessions {
            self.hub.forget(session);
        }
    }
}
