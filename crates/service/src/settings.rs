//! The sections of the configuration that more than one service reads.
//!
//! Sections of one service stand in that service's crate; the binary puts them together.

mod events;
mod history;
mod namespace;
mod nats;
mod session;

pub use events::Events;
pub use history::{History, Storage};
pub use namespace::{
    Action, AutoJoin, Connect, Emit, EventRule, Forward, Heartbeat, JoinPolicy, Namespace, Namespaces,
    Overflow, PresenceData, PresenceEvents, Rate, Relay, Reply, RoomRule, Target, Unmatched,
};
pub use nats::{Nats, Tls};
pub use session::Session;
