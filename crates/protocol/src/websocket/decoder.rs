use bytes::{Bytes, BytesMut};

use super::close::{self, INVALID_DATA, PROTOCOL_ERROR, TOO_BIG};
use super::frame::{ClientHeader, Expected, Opcode, Parsed, parse};
use super::mask::unmask;
use super::{Message, Text};

/// What a client did against the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a reserved bit is set")]
    ReservedBits,
    #[error("unknown opcode {0:#x}")]
    UnknownOpcode(u8),
    #[error("a control frame is fragmented")]
    FragmentedControl,
    #[error("a control frame is longer than 125 bytes")]
    LongControl,
    #[error("a continuation without a message")]
    UnexpectedContinuation,
    #[error("a new message before the end of the last")]
    UnfinishedMessage,
    #[error("a frame without a mask")]
    Unmasked,
    #[error("a length that is not in its shortest form")]
    BadLength,
    #[error("a close frame of one byte")]
    BadClose,
    #[error("close code {0} may not be sent")]
    BadCloseCode(u16),
    #[error("text that is not utf-8")]
    NotUtf8,
    #[error("a message larger than allowed")]
    TooBig,
}

impl DecodeError {
    /// Returns the code to close the connection with.
    pub fn close_code(self) -> u16 {
        match self {
            Self::NotUtf8 => INVALID_DATA,
            Self::TooBig => TOO_BIG,
            _ => PROTOCOL_ERROR,
        }
    }
}

/// What the buffer held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Message(Message),
    /// At least so many more bytes are needed: never more than the largest message and a header.
    Need(usize),
}

/// Reads the frames of one client.
///
/// After an error the connection must be closed: what follows has no meaning.
#[derive(Debug)]
pub struct Decoder {
    max_message: usize,
    fragments: Option<Box<Fragments>>,
    closed: bool,
}

/// The frames so far of a message that is not whole yet.
#[derive(Debug)]
struct Fragments {
    text: bool,
    data: BytesMut,
    /// How much of a text is known to be UTF-8; the rest can only be a character cut in two.
    checked: usize,
}

impl Decoder {
    /// Makes a decoder for messages of at most `max_message` bytes.
    pub fn new(max_message: usize) -> Self {
        Self {
            max_message,
            fragments: None,
            closed: false,
        }
    }

    /// Takes the next message, if it is whole, from the front of the buffer.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Step, DecodeError> {
        loop {
            if self.closed {
                buffer.clear();
                return Ok(Step::Need(1));
            }
            let header = match parse(buffer, self.expected())? {
                Parsed::Header(header) => header,
                Parsed::Need(bytes) => return Ok(Step::Need(bytes)),
            };
            let whole = header.len + header.payload;
            if buffer.len() < whole {
                return Ok(Step::Need(whole - buffer.len()));
            }
            let mut payload = buffer.split_to(whole).split_off(header.len);
            unmask(&mut payload, header.key);
            if let Some(message) = self.take(header, payload)? {
                return Ok(Step::Message(message));
            }
        }
    }

    /// Returns whether nothing of the next message was taken from the buffer yet.
    pub fn is_between_messages(&self) -> bool {
        self.fragments.is_none() && !self.closed
    }

    fn expected(&self) -> Expected {
        let held = self
            .fragments
            .as_ref()
            .map_or(0, |fragments| fragments.data.len());
        Expected {
            continuation: self.fragments.is_some(),
            room: self.max_message.saturating_sub(held),
        }
    }

    fn take(&mut self, header: ClientHeader, payload: BytesMut) -> Result<Option<Message>, DecodeError> {
        let message = match header.opcode {
            Opcode::Ping => Message::Ping(payload.freeze()),
            Opcode::Pong => Message::Pong(payload.freeze()),
            Opcode::Close => {
                self.closed = true;
                Message::Close(close::parse(&payload)?)
            }
            Opcode::Text if header.last => Message::Text(text(payload.freeze())?),
            Opcode::Binary if header.last => Message::Binary(payload.freeze()),
            Opcode::Text | Opcode::Binary => {
                let text = header.opcode == Opcode::Text;
                let mut fragments = Box::new(Fragments {
                    text,
                    data: payload,
                    checked: 0,
                });
                fragments.check()?;
                self.fragments = Some(fragments);
                return Ok(None);
            }
            Opcode::Continuation => {
                let mut fragments = self.fragments.take().ok_or(DecodeError::UnexpectedContinuation)?;
                fragments.data.extend_from_slice(&payload);
                fragments.check()?;
                if !header.last {
                    self.fragments = Some(fragments);
                    return Ok(None);
                }
                let data = fragments.data.freeze();
                if fragments.text {
                    Message::Text(text(data)?)
                } else {
                    Message::Binary(data)
                }
            }
        };
        Ok(Some(message))
    }
}

impl Fragments {
    /// Refuses a text as soon as no continuation could make it valid.
    fn check(&mut self) -> Result<(), DecodeError> {
        if !self.text {
            return Ok(());
        }
        match std::str::from_utf8(&self.data[self.checked..]) {
            Ok(_) => self.checked = self.data.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(DecodeError::NotUtf8),
        }
        Ok(())
    }
}

fn text(data: Bytes) -> Result<Text, DecodeError> {
    Text::new(data).map_err(|_| DecodeError::NotUtf8)
}
