//! Names that the outside chooses: namespaces, rooms, events.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::Sid;
use crate::token::{self, BadToken};

/// Longest room name in bytes.
pub const MAX_ROOM: usize = 256;
/// Longest event name in bytes.
pub const MAX_EVENT: usize = 128;
/// Longest user id in bytes.
pub const MAX_USER: usize = 200;

/// A name that breaks a rule of the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("a room has 1 to {MAX_ROOM} bytes")]
    Room,
    #[error("an event name has 1 to {MAX_EVENT} bytes")]
    Event,
    #[error("a namespace begins with a slash, has no empty part and is not \"/main\"")]
    Namespace,
    #[error("bad subject token")]
    Token(#[from] BadToken),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the name as one subject token.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = BadName;

            fn try_from(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A room within a namespace.
    Room
);
name!(
    /// A Socket.IO namespace, beginning with a slash.
    Namespace
);

/// Which part of the subject space a room lives in, since NATS has no wildcard inside a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// `user:<id>`
    User,
    /// `session:<sid>`
    Session,
    /// Every other room.
    Other,
}

impl Class {
    /// Returns the class as a subject token.
    pub fn token(self) -> &'static str {
        match self {
            Self::User => "u",
            Self::Session => "s",
            Self::Other => "r",
        }
    }
}

impl Room {
    /// Checks a room's name.
    pub fn new(text: &str) -> Result<Self, BadName> {
        if text.is_empty() || text.len() > MAX_ROOM {
            return Err(BadName::Room);
        }
        Ok(Self(text.into()))
    }

    /// Decodes a room from its subject token.
    pub fn from_token(token: &str) -> Result<Self, BadName> {
        Self::new(&token::decode(token)?)
    }

    /// Returns the personal room of a user.
    pub fn of_user(user: &str) -> Self {
        Self(format!("user:{user}").into())
    }

    /// Returns the room of one connection.
    pub fn of_session(sid: Sid) -> Self {
        Self(format!("session:{sid}").into())
    }

    /// Returns the room that everyone in a namespace hears.
    pub fn all() -> Self {
        Self("all".into())
    }

    /// Returns the class by the room's name.
    pub fn class(&self) -> Class {
        if self.0.starts_with("user:") {
            Class::User
        } else if self.0.starts_with("session:") {
            Class::Session
        } else {
            Class::Other
        }
    }

    /// Returns the user whose personal room this is; no user has an empty or longer id.
    pub fn user(&self) -> Option<&str> {
        let user = self.0.strip_prefix("user:")?;
        (1..=MAX_USER).contains(&user.len()).then_some(user)
    }

    /// Returns the connection whose room this is.
    pub fn session(&self) -> Option<&str> {
        let sid = self.0.strip_prefix("session:")?;
        sid.parse::<Sid>().is_ok().then_some(sid)
    }

    /// Returns whether only the owner and the control plane may enter the room.
    pub fn is_reserved(&self) -> bool {
        self.class() != Class::Other
    }

    /// Returns the room as one subject token.
    pub fn token(&self) -> std::borrow::Cow<'_, str> {
        token::encode(&self.0)
    }
}

impl Namespace {
    /// Checks a namespace's name.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(BadName::Namespace);
        };
        if text.len() > MAX_ROOM || path == "main" {
            return Err(BadName::Namespace);
        }
        if !path.is_empty() && path.split('/').any(str::is_empty) {
            return Err(BadName::Namespace);
        }
        Ok(Self(text.into()))
    }

    /// Returns the namespace `/`.
    pub fn main() -> Self {
        Self("/".into())
    }

    /// Returns whether this is the namespace `/`.
    pub fn is_main(&self) -> bool {
        &*self.0 == "/"
    }

    /// Decodes a namespace from its subject token (`main` is `/`).
    pub fn from_token(token: &str) -> Result<Self, BadName> {
        if token == "main" {
            return Ok(Self::main());
        }
        let path = token::decode(token)?;
        if path.is_empty() {
            return Err(BadName::Namespace);
        }
        Self::new(&format!("/{path}"))
    }

    /// Returns the namespace as one subject token.
    pub fn token(&self) -> std::borrow::Cow<'_, str> {
        match &self.0[1..] {
            "" => "main".into(),
            path => token::encode(path),
        }
    }
}

/// Checks an event's name.
pub fn check_event(name: &str) -> Result<&str, BadName> {
    if name.is_empty() || name.len() > MAX_EVENT {
        Err(BadName::Event)
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_have_tokens() {
        for (name, token) in [
            ("/", "main"),
            ("/chat", "chat"),
            ("/a/b", "a/b"),
            ("/a.b", "a%2Eb"),
        ] {
            let namespace = Namespace::new(name).unwrap();
            assert_eq!(namespace.token(), token);
            assert_eq!(Namespace::from_token(token).unwrap(), namespace);
        }
        for bad in ["", "chat", "/main", "//", "/a/", "/a//b"] {
            assert!(Namespace::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rooms_know_their_class() {
        assert_eq!(Room::new("user:42").unwrap().class(), Class::User);
        assert_eq!(Room::new("session:x").unwrap().class(), Class::Session);
        assert_eq!(Room::new("users").unwrap().class(), Class::Other);
        assert!(Room::new("").is_err());
        assert!(Room::new(&"x".repeat(257)).is_err());
    }

    #[test]
    fn a_room_that_no_id_names_is_reserved_and_nobodys() {
        let (user, sid) = ("x".repeat(MAX_USER), "x".repeat(Sid::LEN));
        let room = |text: String| Room::new(&text).unwrap();
        assert_eq!(room(format!("user:{user}")).user(), Some(&*user));
        assert_eq!(room(format!("session:{sid}")).session(), Some(&*sid));
        for name in [
            "user:",
            &format!("user:{user}x"),
            "session:",
            &format!("session:{sid}x"),
        ] {
            let room = room(name.to_owned());
            assert!(room.is_reserved(), "{name}");
            assert_eq!((room.user(), room.session()), (None, None), "{name}");
        }
    }
}
