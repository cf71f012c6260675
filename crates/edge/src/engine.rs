//! Engine.IO sessions that begin with long-polling.
//!
//! A session belongs to the edge that opened it; any other edge hands its requests over. The task in [`driver`]
//! answers polls and keeps the timers; posts are fed to the conversation by whoever brings them, one at a time.
//! What a poll was answered with is kept until the client polls again, which shows that it has arrived: the same
//! poll, repeated by a proxy or a browser, gets the same bytes.

mod driver;
mod neighbours;
mod owner;
mod posts;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use carillon_protocol::engineio::RequestError;
use carillon_protocol::ids::{EdgeId, EngineId};
use carillon_protocol::message::Relay;
use carillon_protocol::session::Transport;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::accept::{Places, Slot};
use crate::admission::Shown;
use crate::client::{Client, Closing};
use crate::conversation::Conversation;
use crate::frame::Wire;
use crate::hub::Hub;
use crate::outbox::Sink;

pub(crate) use driver::CHANGE;
pub(crate) use neighbours::Neighbours;

/// Requests that may wait for a session's task; each of them holds a connection open.
const COMMANDS: usize = 16;

/// The sessions of this edge that poll.
pub(crate) struct Engines {
    /// Bounded by the number of connections that the edge may have.
    limit: usize,
    table: Mutex<HashMap<EngineId, Arc<Engine>>>,
}

/// A session, as requests see it.
pub(crate) struct Engine {
    pub(crate) id: EngineId,
    pub(crate) client: Arc<Client>,
    pub(crate) conversation: Arc<Conversation>,
    commands: mpsc::Sender<Command>,
    posts: posts::Posts,
    /// The address's place among those it may have at this edge.
    _slot: Slot,
}

/// What a poll is answered with.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    /// Nothing follows.
    pub(crate) last: bool,
}

type Answered = Result<Answer, RequestError>;

/// What requests ask of a session's task.
enum Command {
    Poll {
        t: Option<String>,
        relay: Option<Relay>,
        /// The other edge that has the client's request.
        front: Option<EdgeId>,
        answer: oneshot::Sender<Answered>,
    },
    /// The client is there.
    Pong,
    /// The client leaves.
    Close,
    /// A WebSocket of the client wants to take over.
    Probe { answer: oneshot::Sender<()> },
    /// It does, at another edge.
    Relay {
        relay: Relay,
        answer: oneshot::Sender<Result<(), RequestError>>,
    },
    /// It does, at this edge: the session's task ends, and the socket's goes on.
    GiveUp { answer: oneshot::Sender<()> },
    /// Can the session go to the relay's edge?
    Freeze {
        relay: Relay,
        answer: oneshot::Sender<Answered>,
    },
    /// It stays.
    Thaw { relay: Relay },
    /// It has gone there.
    Leave {
        relay: Relay,
        answer: oneshot::Sender<Answered>,
    },
    /// Does this relay serve the client?
    Serves {
        relay: Option<Relay>,
        answer: oneshot::Sender<bool>,
    },
}

impl Engines {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            table: Mutex::default(),
        }
    }

    /// Returns a session.
    pub(crate) fn get(&self, id: EngineId) -> Result<Arc<Engine>, RequestError> {
        self.table
            .lock()
            .get(&id)
            .cloned()
            .ok_or(RequestError::UnknownSession)
    }

    fn insert(&self, engine: &Arc<Engine>) -> bool {
        let mut table = self.table.lock();
        let fits = table.len() < self.limit;
        if fits {
            table.insert(engine.id, Arc::clone(engine));
        }
        fits
    }

    /// Returns whether nobody polls any more, or has something to hear at the next poll.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.lock().is_empty()
    }

    fn remove(&self, id: EngineId) {
        self.table.lock().remove(&id);
    }
}

impl Hub {
    /// Opens a session that polls; `None` when there are too many. The first poll's answer is the opening packet.
    pub(crate) fn open_polling(self: &Arc<Self>, shown: Shown, places: Places, slot: Slot) -> Option<Bytes> {
        let limit = usize::try_from(self.config.queue).unwrap_or(usize::MAX);
        let client = Arc::new(Client::new(Wire::SocketIo, Transport::Polling, Sink::Pull, limit));
        let id = EngineId::of_edge(self.id, rand::random());
        let conversation = Conversation::new(Arc::clone(self), Arc::clone(&client), shown, places);
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let engine = Arc::new(Engine {
            id,
            client,
            conversation,
            commands,
            posts: posts::Posts::default(),
            _slot: slot,
        });
        if !self.engines.insert(&engine) {
            return None;
        }
        tokio::spawn(driver::run(Arc::clone(self), engine, receiver));
        Some(self.open_packet(id, &["websocket"]).into())
    }
}

impl Engine {
    /// Waits until there is something for the client; a repeated poll gets the same again.
    pub(crate) async fn poll(
        &self,
        t: Option<String>,
        relay: Option<Relay>,
        front: Option<EdgeId>,
    ) -> Answered {
        // A relay polls whether its client is there or not.
        if relay.is_none() {
            self.client.hear();
        }
        self.ask(|answer| Command::Poll {
            t,
            relay,
            front,
            answer,
        })
        .await?
    }

    /// Tells whether the client still polls: a socket that comes after its upgrade is none of its own.
    pub(crate) async fn is_polling(&self) -> bool {
        self.ask(|answer| Command::Serves { relay: None, answer }).await == Ok(true)
    }

    /// Prepares to change to a WebSocket: an open poll is answered, so that the client can stop polling.
    pub(crate) async fn probe(&self) -> Result<(), RequestError> {
        self.ask(|answer| Command::Probe { answer }).await
    }

    /// Changes to a WebSocket at another edge.
    pub(crate) async fn change_to(&self, relay: Relay) -> Result<(), RequestError> {
        self.ask(|answer| Command::Relay { relay, answer }).await?
    }

    /// Holds the session for the relay's edge, if nothing is under way, and describes it.
    pub(crate) async fn freeze(&self, relay: Relay) -> Answered {
        self.ask(|answer| Command::Freeze { relay, answer }).await?
    }

    /// Lets a session that was held go on.
    pub(crate) async fn thaw(&self, relay: Relay) -> Result<(), RequestError> {
        let thawed = self.commands.send(Command::Thaw { relay }).await;
        thawed.map_err(|_| RequestError::UnknownSession)
    }

    /// Ends what is left of a session that the relay's edge owns now; returns what still waited for the client.
    pub(crate) async fn leave(&self, relay: Relay) -> Answered {
        self.ask(|answer| Command::Leave { relay, answer }).await?
    }

    /// Changes to a WebSocket at this edge: the caller serves the client from here on.
    pub(crate) async fn give_up(&self) -> Result<(), RequestError> {
        self.ask(|answer| Command::GiveUp { answer }).await
    }

    /// Ends the session because of what the client did.
    fn fail(&self, closing: Closing) {
        self.client.close(closing);
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, RequestError> {
        let (sender, answer) = oneshot::channel();
        self.commands
            .send(command(sender))
            .await
            .map_err(|_| RequestError::UnknownSession)?;
        answer.await.map_err(|_| RequestError::UnknownSession)
    }
}
