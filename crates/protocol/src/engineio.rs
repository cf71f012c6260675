//! Engine.IO, protocol 4: packets, polling payloads, the opening packet, queries and errors.

mod error;
mod open;
mod packet;
mod payload;
mod query;

pub use error::RequestError;
pub use open::Open;
pub use packet::{Packet, PacketError};
pub use payload::{Limits, PayloadError, Writer, decode};
pub use query::{Query, Transport};

/// What a WebSocket text frame or a payload's packet begins with when it holds a message.
pub const MESSAGE: u8 = b'4';

/// The packets that an edge sends and that never differ.
pub mod fixed {
    pub const CLOSE: &str = "1";
    pub const PING: &str = "2";
    pub const PROBE_ANSWER: &str = "3probe";
    pub const NOOP: &str = "6";
}

#[cfg(test)]
mod tests;
