//! Who asks, and when.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use carillon_protocol::names::Room;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

/// The user of a connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The id; none for an anonymous user.
    pub id: Option<Arc<str>>,
    /// The role, where the token has one.
    pub role: Option<String>,
    /// The name, where the token has one.
    pub name: Option<String>,
    /// All claims of the token.
    pub claims: Arc<Map<String, Value>>,
}

impl User {
    /// The user of a connection without a good token.
    pub fn anonymous() -> Self {
        Self::default()
    }
}

impl From<&carillon_auth::Identity> for User {
    fn from(identity: &carillon_auth::Identity) -> Self {
        Self {
            id: Some(Arc::clone(&identity.user)),
            role: identity.role.clone(),
            name: identity.name.clone(),
            claims: Arc::clone(&identity.claims),
        }
    }
}

/// The rooms of a connection.
pub trait Membership {
    /// Tells whether the connection is in the room.
    fn contains(&self, room: &str) -> bool;

    /// Returns the names of all its rooms.
    fn names(&self) -> Vec<Arc<str>>;
}

impl Membership for HashSet<Room> {
    fn contains(&self, room: &str) -> bool {
        HashSet::contains(self, room)
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.iter().map(Room::shared).collect()
    }
}

impl Membership for BTreeSet<Room> {
    fn contains(&self, room: &str) -> bool {
        BTreeSet::contains(self, room)
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.iter().map(Room::shared).collect()
    }
}

/// What a decision depends on beside the settings.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Whose connection it is.
    pub user: &'a User,
    /// Its socket id.
    pub sid: &'a str,
    /// Its rooms.
    pub rooms: &'a dyn Membership,
    /// The wall clock in milliseconds since 1970.
    pub now_ms: u64,
    /// An id that no other event has, for rules that give their messages one.
    pub id: &'a str,
}

/// Writes milliseconds since 1970 as JavaScript does: `2026-01-31T12:00:00.000Z`.
pub fn rfc3339(now_ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now_ms) * 1_000_000);
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, millisecond) = time.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_written_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_769_860_800_007), "2026-01-31T12:00:00.007Z");
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
