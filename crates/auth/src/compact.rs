//! A token taken apart, before anything in it is believed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::claims::{Claims, InvalidToken};

/// The longest token that is looked at.
const MAX_BYTES: usize = 16 * 1024;

/// A JWS in compact form with a header that may be checked.
pub(crate) struct Compact<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    /// What was signed: header and payload as they came.
    pub(crate) message: &'a [u8],
    pub(crate) signature: &'a str,
    payload: &'a str,
}

impl<'a> Compact<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, InvalidToken> {
        if token.len() > MAX_BYTES {
            return Err(InvalidToken::TooLarge);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(InvalidToken::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(InvalidToken::Malformed)?;
        if payload.contains('.') {
            return Err(InvalidToken::Malformed);
        }
        let header: Map<String, Value> =
            serde_json::from_slice(&decode(header)?).map_err(|_| InvalidToken::Malformed)?;
        // RFC 7515, 4.1.11: every extension named here must be understood. None is, and an empty or malformed
        // list is not allowed either.
        if header.contains_key("crit") {
            return Err(InvalidToken::Critical);
        }
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or(InvalidToken::Malformed)?;
        let algorithm = Algorithm::from_name(algorithm).ok_or(InvalidToken::Algorithm)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(InvalidToken::Malformed),
        };
        Ok(Self {
            algorithm,
            key_id,
            message: message.as_bytes(),
            signature,
            payload,
        })
    }

    /// Reads the claims; only for a token whose signature was verified.
    pub(crate) fn claims(&self) -> Result<Claims, InvalidToken> {
        Claims::parse(decode(self.payload)?)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, InvalidToken> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidToken::Malformed)
}
