//! The server's side of RFC 6455: handshake, frames in, frames out.
//!
//! Frames are read in place from a connection's buffer. What a header announces is checked before its payload
//! is waited for, so a connection never holds more than one message of the allowed size.

pub mod close;
mod decoder;
mod frame;
pub mod handshake;
mod mask;

pub use close::Close;
pub use decoder::{DecodeError, Decoder, Step};
pub use frame::{Header, MAX_HEADER, Opcode, frame, header};
pub use handshake::{Handshake, HandshakeError, accept_key};

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// What a client has sent, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Text(Text),
    Binary(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    /// The client closes, with or without saying why; nothing after it is read.
    Close(Option<Close>),
}

/// Bytes that are known to be UTF-8.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text(Bytes);

impl Text {
    /// Takes bytes that are UTF-8.
    pub fn new(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the bytes were checked when the text was made")
    }

    /// Returns the bytes of the text.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests;
