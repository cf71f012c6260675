//! Close frames: what a client says when it goes, and what it is told when it must.

use bytes::Bytes;

use super::decoder::DecodeError;
use super::frame::{Opcode, frame};

pub const NORMAL: u16 = 1000;
pub const GOING_AWAY: u16 = 1001;
pub const PROTOCOL_ERROR: u16 = 1002;
pub const UNSUPPORTED_DATA: u16 = 1003;
pub const INVALID_DATA: u16 = 1007;
pub const POLICY: u16 = 1008;
pub const TOO_BIG: u16 = 1009;
pub const INTERNAL_ERROR: u16 = 1011;
pub const RESTART: u16 = 1012;
pub const TRY_AGAIN_LATER: u16 = 1013;

/// The longest reason that fits into a control frame beside the code.
pub const MAX_REASON: usize = 123;

/// Why a connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: String,
}

/// Returns a close frame; a longer reason is cut between characters.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut payload = Vec::with_capacity(2 + MAX_REASON);
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON)]);
    frame(Opcode::Close, &payload)
}

/// Reads the payload of a close frame.
pub(super) fn parse(payload: &[u8]) -> Result<Option<Close>, DecodeError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(DecodeError::BadClose)
        };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(DecodeError::BadCloseCode(code));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| DecodeError::NotUtf8)?;
    Ok(Some(Close {
        code,
        reason: reason.to_owned(),
    }))
}

/// Returns whether the code may stand in a frame: 1004 to 1006 and 1015 may not.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
