//! Socket.IO, protocol 5: packets from clients, and the texts that clients are sent.
//!
//! The arguments of events stay JSON text in both directions. Bytes among them are attachments on the wire and
//! `{"$binary":"<base64>"}` everywhere else, see [`binary`](crate::binary).

pub mod encode;
mod packet;
mod parse;
mod reassembly;

pub use packet::{Body, Limit, Packet};
pub use parse::PacketError;
pub use reassembly::{Decoder, Limits};

/// How many attachments a stock client takes with one packet; it closes at more.
pub const MAX_SENT_ATTACHMENTS: usize = 10;

/// The longest namespace, with its query, that is read.
pub const MAX_NAMESPACE: usize = 512;

/// Returns whether the name is an event that clients raise themselves.
///
/// A stock client closes its transport when it is sent one of these.
pub fn is_reserved(event: &str) -> bool {
    matches!(
        event,
        "connect" | "connect_error" | "disconnect" | "disconnecting" | "newListener" | "removeListener"
    )
}

#[cfg(test)]
mod tests;
