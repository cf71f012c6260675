//! What an event brings about.

use std::sync::Arc;

use carillon_protocol::event::Payload;
use carillon_protocol::names::Room;

/// What is to be done, in this order.
///
/// Everything here is decided already but the joins. The edge goes through the effects one after the other and
/// stops at the first that is refused: a [`Effect::Join`] is put to [`Rules::may_join`](super::Rules::may_join)
/// when its turn comes, and what stands behind it may rely on it. So a rule that joins, relays to the room and
/// replies does none of the last two if the join is refused; the refusal is then the answer to the event.
///
/// Where the client asked for an acknowledgement and no effect gives one, it gets one without arguments at
/// the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The steps.
    pub effects: Vec<Effect>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The connection joins, if `may_join` allows it.
    Join(Room),
    /// The connection leaves.
    Leave(Room),
    /// An event for other clients.
    Relay {
        /// Whom it is for.
        to: Target,
        /// Its name.
        event: Arc<str>,
        /// Its arguments.
        payload: Payload,
        /// Stored and replayed, or for whoever is there now.
        durable: bool,
        /// Whether the sender is left out.
        except_self: bool,
    },
    /// An event for the backend, on `rt.up.<ns>.<event>`.
    Forward {
        /// Its name.
        event: Arc<str>,
        /// Its arguments.
        payload: Payload,
        /// Whether the backend's reply is the acknowledgement; if not, nobody waits for one.
        awaited: bool,
    },
    /// The acknowledgement.
    Reply {
        /// Its arguments.
        payload: Payload,
        /// The event that carries them where the client asked for no acknowledgement.
        event: Option<Arc<str>>,
    },
    /// An event for the sender, on this connection alone.
    Emit(Emit),
    /// The client answered the application heartbeat.
    Alive,
}

/// Whom a relayed event is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everyone in the namespace.
    Everyone,
    /// The members of a room.
    Room(Room),
}

/// An event for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// Its name.
    pub event: Arc<str>,
    /// Its arguments.
    pub payload: Payload,
}
