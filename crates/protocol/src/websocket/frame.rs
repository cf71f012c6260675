use std::ops::Deref;

use bytes::Bytes;

use super::decoder::DecodeError;

/// The kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Longest header of a server's frame.
pub const MAX_HEADER: usize = 10;

/// The header of a server's frame, which is whole and unmasked.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; MAX_HEADER],
    len: u8,
}

impl Deref for Header {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Returns the header of a frame with a payload of `len` bytes.
pub fn header(opcode: Opcode, len: usize) -> Header {
    let mut bytes = [0; MAX_HEADER];
    bytes[0] = 0x80 | opcode.bits();
    let len = match len {
        0..=125 => {
            bytes[1] = len as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    Header { bytes, len }
}

/// Returns a whole frame.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let header = header(opcode, payload.len());
    let mut out = Vec::with_capacity(header.len() + payload.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.into()
}

/// The header of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientHeader {
    pub(super) last: bool,
    pub(super) opcode: Opcode,
    pub(super) key: [u8; 4],
    /// Length of the header itself.
    pub(super) len: usize,
    pub(super) payload: usize,
}

/// What the first bytes of a frame say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    Header(ClientHeader),
    /// At least so many bytes are missing.
    Need(usize),
}

/// What a frame may be at this point of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) continuation: bool,
    /// How many bytes a data frame may bring.
    pub(super) room: usize,
}

/// Reads a header; it is refused at the first byte that is wrong, however the bytes arrive.
pub(super) fn parse(bytes: &[u8], expected: Expected) -> Result<Parsed, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(Parsed::Need(2));
    };
    if first & 0x70 != 0 {
        return Err(DecodeError::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(DecodeError::UnknownOpcode(first & 0x0f))?;
    let last = first & 0x80 != 0;
    match opcode {
        _ if opcode.is_control() && !last => return Err(DecodeError::FragmentedControl),
        Opcode::Continuation if !expected.continuation => return Err(DecodeError::UnexpectedContinuation),
        Opcode::Text | Opcode::Binary if expected.continuation => {
            return Err(DecodeError::UnfinishedMessage);
        }
        _ => {}
    }
    let Some(&second) = bytes.get(1) else {
        return Ok(Parsed::Need(1));
    };
    if second & 0x80 == 0 {
        return Err(DecodeError::Unmasked);
    }
    let short = second & 0x7f;
    if opcode.is_control() && short > 125 {
        return Err(DecodeError::LongControl);
    }
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(length) = bytes.get(2..2 + extended) else {
        return Ok(Parsed::Need(2 + extended + 4 - bytes.len()));
    };
    let payload = match extended {
        0 => u64::from(short),
        _ => length
            .iter()
            .fold(0, |length, &byte| length << 8 | u64::from(byte)),
    };
    if extended == 2 && payload < 126 || extended == 8 && payload <= 0xffff || payload >> 63 != 0 {
        return Err(DecodeError::BadLength);
    }
    let payload = usize::try_from(payload).map_err(|_| DecodeError::TooBig)?;
    if !opcode.is_control() && payload > expected.room {
        return Err(DecodeError::TooBig);
    }
    let len = 2 + extended + 4;
    let Some(&[a, b, c, d]) = bytes.get(2 + extended..len) else {
        return Ok(Parsed::Need(len - bytes.len()));
    };
    Ok(Parsed::Header(ClientHeader {
        last,
        opcode,
        key: [a, b, c, d],
        len,
        payload,
    }))
}
