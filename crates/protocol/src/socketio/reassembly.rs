use bytes::Bytes;

use super::packet::Packet;
use super::parse::{PacketError, parse};
use crate::binary;

/// What one packet may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_attachments: usize,
    /// Text and attachments together.
    pub max_bytes: usize,
}

/// Reads the packets of one client and puts attachments where they belong.
///
/// After an error the transport must be closed: attachments that follow would have no packet.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    pending: Option<Box<Pending>>,
}

/// A packet whose attachments have not all come.
#[derive(Debug)]
struct Pending {
    packet: Packet<'static>,
    expected: usize,
    attachments: Vec<Bytes>,
    /// How many bytes may still come.
    room: usize,
}

impl Decoder {
    /// Makes a decoder.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            pending: None,
        }
    }

    /// Takes a text message; `None` while its attachments are awaited.
    pub fn text<'a>(&mut self, text: &'a str) -> Result<Option<Packet<'a>>, PacketError> {
        if self.pending.is_some() {
            return Err(PacketError::UnexpectedText);
        }
        let room = self
            .limits
            .max_bytes
            .checked_sub(text.len())
            .ok_or(PacketError::TooBig)?;
        let head = parse(text, self.limits.max_attachments)?;
        if head.attachments == 0 {
            return Ok(Some(head.packet));
        }
        let arguments = head.packet.arguments().ok_or(PacketError::Attachments)?;
        binary::check_placeholders(arguments.text(), head.attachments)?;
        self.pending = Some(Box::new(Pending {
            packet: head.packet.into_owned(),
            expected: head.attachments,
            attachments: Vec::new(),
            room,
        }));
        Ok(None)
    }

    /// Takes a binary message; `None` while more are awaited.
    pub fn binary(&mut self, bytes: Bytes) -> Result<Option<Packet<'static>>, PacketError> {
        let mut pending = self.pending.take().ok_or(PacketError::UnexpectedBinary)?;
        pending.room = pending.room.checked_sub(bytes.len()).ok_or(PacketError::TooBig)?;
        pending.attachments.push(bytes);
        if pending.attachments.len() < pending.expected {
            self.pending = Some(pending);
            return Ok(None);
        }
        let arguments = pending.packet.arguments().ok_or(PacketError::UnexpectedBinary)?;
        let text = binary::embed(arguments.text(), &pending.attachments)?;
        Ok(Some(pending.packet.with_arguments(text)))
    }

    /// Returns whether attachments are awaited.
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }
}
