//! The opening handshake, as far as it concerns headers.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest as _, Sha1};

/// The subprotocol of plain WebSocket clients.
pub const SUBPROTOCOL: &str = "carillon.v1";

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BEARER: &str = "bearer.";
/// Takes keys of 16 bytes whose last character has stray bits, as every other server does.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Why a request is no WebSocket handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("the request asks for no upgrade to websocket")]
    NoUpgrade,
    #[error("the websocket version is not 13")]
    Version,
    #[error("the websocket key is not 16 bytes in base64")]
    Key,
    #[error("the list of subprotocols is malformed")]
    Subprotocols,
}

impl HandshakeError {
    /// Returns the HTTP status of the refusal; 426 goes with `Sec-WebSocket-Version: 13`.
    pub fn status(self) -> u16 {
        match self {
            Self::NoUpgrade | Self::Version => 426,
            Self::Key | Self::Subprotocols => 400,
        }
    }
}

/// A request to speak WebSocket, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Handshake {
    /// Value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The subprotocols that the client offers, in its order.
    pub subprotocols: Vec<String>,
}

impl Handshake {
    /// Reads the headers of a GET request over HTTP/1.1, given as names and values in any case and order.
    pub fn read<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, HandshakeError> {
        let (mut upgrade, mut connection) = (false, false);
        let mut version = None;
        let mut key = None;
        let mut subprotocols = Vec::new();
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("upgrade") {
                upgrade |= has_token(value, "websocket");
            } else if name.eq_ignore_ascii_case("connection") {
                connection |= has_token(value, "upgrade");
            } else if name.eq_ignore_ascii_case("sec-websocket-version") {
                once(&mut version, value).ok_or(HandshakeError::Version)?;
            } else if name.eq_ignore_ascii_case("sec-websocket-key") {
                once(&mut key, value).ok_or(HandshakeError::Key)?;
            } else if name.eq_ignore_ascii_case("sec-websocket-protocol") {
                let value = std::str::from_utf8(value).map_err(|_| HandshakeError::Subprotocols)?;
                subprotocols.extend(offered(value)?.map(str::to_owned));
            }
        }
        if !upgrade || !connection {
            return Err(HandshakeError::NoUpgrade);
        }
        if version != Some(b"13".as_slice()) {
            return Err(HandshakeError::Version);
        }
        let key = key
            .and_then(|key| std::str::from_utf8(key).ok())
            .ok_or(HandshakeError::Key)?;
        let mut decoded = [0; 18];
        if key.len() != 24 || KEY.decode_slice(key, &mut decoded) != Ok(16) {
            return Err(HandshakeError::Key);
        }
        Ok(Self {
            accept: accept_key(key),
            subprotocols,
        })
    }

    /// Returns whether the client offers Carillon's subprotocol, which must then be answered.
    pub fn offers_carillon(&self) -> bool {
        self.subprotocols.iter().any(|name| name == SUBPROTOCOL)
    }

    /// Returns the subprotocol to answer a client for which none has a meaning: a browser that offers any gives up
    /// without an answer. One that is a token is chosen only where there is no other.
    pub fn any_subprotocol(&self) -> Option<&str> {
        let named = |name: &&String| !name.starts_with(BEARER);
        let chosen = self.subprotocols.iter().find(named);
        chosen.or(self.subprotocols.first()).map(String::as_str)
    }

    /// Returns the token that was offered as a subprotocol.
    pub fn bearer(&self) -> Option<&str> {
        self.subprotocols
            .iter()
            .find_map(|name| name.strip_prefix(BEARER))
    }
}

impl fmt::Debug for Handshake {
    /// Leaves out the subprotocols, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("accept", &self.accept)
            .finish_non_exhaustive()
    }
}

/// Returns the value of `Sec-WebSocket-Accept` for a key.
pub fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Splits the value of `Sec-WebSocket-Protocol`.
pub fn offered(value: &str) -> Result<impl Iterator<Item = &str>, HandshakeError> {
    let names = || value.split(',').map(|name| name.trim_matches([' ', '\t']));
    if names().all(|name| !name.is_empty() && name.bytes().all(is_token_byte)) {
        Ok(names())
    } else {
        Err(HandshakeError::Subprotocols)
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Sets a value that may stand only once.
fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8]) -> Option<()> {
    slot.replace(value.trim_ascii()).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn read(headers: &[(&str, &str)]) -> Result<Handshake, HandshakeError> {
        Handshake::read(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn with(name: &str, value: Option<&str>) -> Result<Handshake, HandshakeError> {
        let mut headers = vec![
            ("Host", "x"),
            ("Upgrade", "WebSocket"),
            ("Connection", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        headers.retain(|header| header.0 != name);
        headers.extend(value.map(|value| (name, value)));
        read(&headers)
    }

    #[test]
    fn the_key_is_accepted_as_the_rfc_shows() {
        assert_eq!(with("", None).unwrap().accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_header_is_needed_and_checked() {
        for (name, values, error) in [
            ("Upgrade", vec![None, Some("h2c")], HandshakeError::NoUpgrade),
            ("Connection", vec![None, Some("close")], HandshakeError::NoUpgrade),
            (
                "Sec-WebSocket-Version",
                vec![None, Some("8"), Some("13, 8")],
                HandshakeError::Version,
            ),
            (
                "Sec-WebSocket-Key",
                vec![
                    None,
                    Some("short"),
                    Some("AAAAAAAAAAAAAAAAAAAAAAAA"),
                    Some("dGhlIHNhbXBsZSBub25jZQ=!"),
                ],
                HandshakeError::Key,
            ),
            (
                "Sec-WebSocket-Protocol",
                vec![Some(""), Some("a,,b"), Some("a b")],
                HandshakeError::Subprotocols,
            ),
        ] {
            for value in values {
                assert_eq!(with(name, value), Err(error), "{name}: {value:?}");
            }
        }
    }

    #[test]
    fn two_keys_are_refused_and_stray_bits_pass() {
        assert!(with("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZR==")).is_ok());
        let twice = [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-key", KEY),
        ];
        assert_eq!(read(&twice), Err(HandshakeError::Key));
    }

    #[test]
    fn a_token_comes_as_a_subprotocol() {
        let handshake = with("Sec-WebSocket-Protocol", Some("carillon.v1, bearer.aa.bb-_.cc")).unwrap();
        assert!(handshake.offers_carillon());
        assert_eq!(handshake.bearer(), Some("aa.bb-_.cc"));
        assert!(!format!("{handshake:?}").contains("aa.bb"));
        assert_eq!(handshake.any_subprotocol(), Some("carillon.v1"));
        let other = with("Sec-WebSocket-Protocol", Some("bearer.aa, x, y")).unwrap();
        assert_eq!(other.any_subprotocol(), Some("x"));
        let only = with("Sec-WebSocket-Protocol", Some("bearer.aa")).unwrap();
        assert_eq!(only.any_subprotocol(), Some("bearer.aa"));
        let none = with("", None).unwrap();
        assert_eq!(none.any_subprotocol(), None);
        assert!(!none.offers_carillon());
        assert_eq!(none.bearer(), None);
    }
}
