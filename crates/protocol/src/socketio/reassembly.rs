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
/// A packet with too many of them is told apart from a broken one, and they are swallowed within `max_bytes`.
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
    missing: usize,
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
        let mut packet = head.packet;
        if head.attachments > 0 {
            let arguments = packet.arguments().ok_or(PacketError::Attachments)?;
            binary::check_placeholders(arguments.text(), head.attachments)?;
        }
        if let Some(limit) = head.excess {
            packet = packet.exceeding(limit);
        }
        if head.attachments == 0 {
            return Ok(Some(packet));
        }
        self.pending = Some(Box::new(Pending {
            packet: packet.into_owned(),
            missing: head.attachments,
            attachments: Vec::new(),
            room,
        }));
        Ok(None)
    }

    /// Takes a binary message; `None` while more are awaited.
    pub fn binary(&mut self, bytes: Bytes) -> Result<Option<Packet<'static>>, PacketError> {
        let mut pending = self.pending.take().ok_or(PacketError::UnexpectedBinary)?;
        pending.room = pending.room.checked_sub(bytes.len()).ok_or(PacketError::TooBig)?;
        pending.missing -= 1;
        if pending.packet.arguments().is_some() {
            pending.attachments.push(bytes);
        }
        if pending.missing > 0 {
            self.pending = Some(pending);
            return Ok(None);
        }
        match pending.packet.arguments() {
            Some(arguments) => {
                let text = binary::embed(arguments.text(), &pending.attachments)?;
                Ok(Some(pending.packet.with_arguments(text)))
            }
            None => Ok(Some(pending.packet)),
        }
    }

    /// Returns whether attachments are awaited.
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }
}
