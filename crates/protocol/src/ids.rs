//! Identifiers. Each is a type of its own, so that a session cannot be passed where an edge is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is not an identifier of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} characters of A-Z, a-z, 0-9, - or _")]
pub struct BadId {
    expected: usize,
}

macro_rules! fixed_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in characters.
            pub const LEN: usize = $len;

            /// Makes an identifier from random bytes, six bits of each.
            pub fn from_random(random: [u8; $len]) -> Self {
                Self(random.map(|byte| ALPHABET[usize::from(byte & 63)]))
            }

            /// Returns the text of the identifier.
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bytes: [u8; $len] = text.as_bytes().try_into().map_err(|_| BadId { expected: $len })?;
                if bytes.iter().all(|byte| ALPHABET.contains(byte)) {
                    Ok(Self(bytes))
                } else {
                    Err(BadId { expected: $len })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fixed_id!(
    /// One connection of one client to one namespace: Socket.IO's `socket.id`, and the `sid` of `/ws`.
    Sid,
    20
);
fixed_id!(
    /// One start of one edge process.
    EdgeId,
    10
);
fixed_id!(
    /// An Engine.IO session: the id of the edge that opened it, then random characters.
    EngineId,
    24
);

impl EngineId {
    /// Makes an id that names its owner, so that any edge can hand a request over.
    pub fn of_edge(edge: EdgeId, random: [u8; 14]) -> Self {
        let mut bytes = [0; 24];
        bytes[..EdgeId::LEN].copy_from_slice(&edge.0);
        for (byte, random) in bytes[EdgeId::LEN..].iter_mut().zip(random) {
            *byte = ALPHABET[usize::from(random & 63)];
        }
        Self(bytes)
    }

    /// Returns the edge that opened the session.
    pub fn edge(&self) -> EdgeId {
        EdgeId(
            self.0[..EdgeId::LEN]
                .try_into()
                .expect("an engine id is longer than an edge id"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_id_names_its_edge() {
        let edge = EdgeId::from_random([7; 10]);
        let id = EngineId::of_edge(edge, [200; 14]);
        assert_eq!(id.edge(), edge);
        assert_eq!(id.as_str().parse::<EngineId>(), Ok(id));
    }

    #[test]
    fn text_of_another_length_or_alphabet_is_refused() {
        assert!("short".parse::<Sid>().is_err());
        assert!("abcdefghij.lmnopqrst".parse::<Sid>().is_err());
        assert!("abcdefghijklmnopqrst".parse::<Sid>().is_ok());
    }
}
