use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// One packet; the text of a message stays where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    Open(&'a str),
    Close,
    Ping {
        /// The first packet on a WebSocket that wants to take over from polling.
        probe: bool,
    },
    Pong {
        probe: bool,
    },
    Message(&'a str),
    Binary(Bytes),
    Upgrade,
    Noop,
}

/// Why a text is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("the packet is empty")]
    Empty,
    #[error("unknown packet type")]
    UnknownType,
    #[error("a packet of this type has no data")]
    UnexpectedData,
    #[error("the packet is not base64")]
    Base64,
}

const PROBE: &str = "probe";

impl<'a> Packet<'a> {
    /// Reads a WebSocket text frame; a binary frame is a binary message as it stands.
    pub fn from_text(text: &'a str) -> Result<Self, PacketError> {
        let kind = *text.as_bytes().first().ok_or(PacketError::Empty)?;
        let data = text.get(1..).ok_or(PacketError::UnknownType)?;
        let bare = |packet| {
            if data.is_empty() {
                Ok(packet)
            } else {
                Err(PacketError::UnexpectedData)
            }
        };
        match kind {
            b'0' => Ok(Self::Open(data)),
            b'1' => bare(Self::Close),
            b'2' => probe(data).map(|probe| Self::Ping { probe }),
            b'3' => probe(data).map(|probe| Self::Pong { probe }),
            b'4' => Ok(Self::Message(data)),
            b'5' => bare(Self::Upgrade),
            b'6' => bare(Self::Noop),
            _ => Err(PacketError::UnknownType),
        }
    }

    /// Reads a packet of a polling payload, where bytes are base64 after a `b`.
    pub fn from_polling(text: &'a str) -> Result<Self, PacketError> {
        match text.strip_prefix('b') {
            Some(base64) => STANDARD
                .decode(base64)
                .map(|bytes| Self::Binary(bytes.into()))
                .map_err(|_| PacketError::Base64),
            None => Self::from_text(text),
        }
    }

    /// Appends the packet as it stands in a polling payload.
    pub fn write_polling(&self, out: &mut Vec<u8>) {
        let (kind, data) = match self {
            Self::Open(data) => (b'0', *data),
            Self::Close => (b'1', ""),
            Self::Ping { probe } => (b'2', if *probe { PROBE } else { "" }),
            Self::Pong { probe } => (b'3', if *probe { PROBE } else { "" }),
            Self::Message(data) => (b'4', *data),
            Self::Upgrade => (b'5', ""),
            Self::Noop => (b'6', ""),
            Self::Binary(bytes) => return write_base64(out, bytes),
        };
        out.push(kind);
        out.extend_from_slice(data.as_bytes());
    }
}

/// Appends a binary packet of a polling payload.
pub(super) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'b');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("the room was made for just these bytes");
}

fn probe(data: &str) -> Result<bool, PacketError> {
    match data {
        "" => Ok(false),
        PROBE => Ok(true),
        _ => Err(PacketError::UnexpectedData),
    }
}
