use super::packet::{Packet, PacketError, write_base64};

const SEPARATOR: u8 = 0x1e;

/// What a client may send in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_bytes: usize,
    pub max_packets: usize,
}

/// Why a body is no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("the payload is larger than allowed")]
    TooBig,
    #[error("the payload has more packets than allowed")]
    TooManyPackets,
    #[error("the payload is not utf-8")]
    NotUtf8,
    #[error("packet {index} of the payload: {error}")]
    Packet { index: usize, error: PacketError },
}

/// Reads the body of a POST; all of it or nothing.
pub fn decode(body: &[u8], limits: Limits) -> Result<Vec<Packet<'_>>, PayloadError> {
    if body.len() > limits.max_bytes {
        return Err(PayloadError::TooBig);
    }
    if memchr::memchr_iter(SEPARATOR, body).count() >= limits.max_packets {
        return Err(PayloadError::TooManyPackets);
    }
    let body = std::str::from_utf8(body).map_err(|_| PayloadError::NotUtf8)?;
    body.split(char::from(SEPARATOR))
        .enumerate()
        .map(|(index, text)| {
            Packet::from_polling(text).map_err(|error| PayloadError::Packet { index, error })
        })
        .collect()
}

/// Puts packets together into the answer to a poll.
#[derive(Debug, Default)]
pub struct Writer {
    body: Vec<u8>,
}

impl Writer {
    /// Adds a packet that is already encoded as for a WebSocket text frame.
    pub fn text(&mut self, packet: &[u8]) {
        self.separate();
        self.body.extend_from_slice(packet);
    }

    /// Adds a binary message.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.separate();
        write_base64(&mut self.body, bytes);
    }

    /// Adds a packet.
    pub fn packet(&mut self, packet: &Packet<'_>) {
        self.separate();
        packet.write_polling(&mut self.body);
    }

    /// Returns the length of the body so far.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Returns whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Returns the body.
    pub fn finish(self) -> Vec<u8> {
        self.body
    }

    fn separate(&mut self) {
        if !self.body.is_empty() {
            self.body.push(SEPARATOR);
        }
    }
}
