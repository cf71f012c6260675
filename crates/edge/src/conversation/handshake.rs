//! The data that a client shows when it enters a namespace.

use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::user::User;

/// The members as text: backends get numbers and escapes that no tree of values holds as they were sent.
pub(super) struct Handshake(BTreeMap<String, Box<RawValue>>);

impl Handshake {
    pub(super) fn read(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json).map(Self)
    }

    /// Returns the payload with the token alone; one that is no string in the end is a bad one.
    pub(super) fn credential(&self) -> Value {
        let token = self.0.get("token");
        json!({ "token": token.map(|token| serde_json::from_str(token.get()).unwrap_or(Value::Bool(false))) })
    }

    /// Returns a member that is a string.
    pub(super) fn text(&self, member: &str) -> Option<String> {
        serde_json::from_str(self.0.get(member)?.get()).ok()
    }

    /// Returns what backends see: everything but a token that was good, and what is for the edge alone.
    pub(super) fn for_backends(mut self, user: &User) -> Box<RawValue> {
        if user.id().is_some() {
            self.0.remove("token");
        }
        self.0.remove("pid");
        self.0.remove("offset");
        to_raw_value(&self.0).expect("members with names are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = r#"{"pid":"p","x":"\ud800","token":"a","n":1e400,"\u0074oken":"b", "offset": 7}"#;

    #[test]
    fn members_are_read_one_by_one_and_the_last_of_a_name_counts() {
        let handshake = Handshake::read(SENT).unwrap();
        assert_eq!(handshake.credential(), json!({ "token": "b" }));
        assert_eq!(handshake.text("pid").as_deref(), Some("p"));
        assert_eq!((handshake.text("offset"), handshake.text("x")), (None, None));
        let unreadable = Handshake::read(r#"{"token":"\ud800"}"#).unwrap();
        assert_eq!(unreadable.credential(), json!({ "token": false }));
        assert_eq!(
            Handshake::read("{}").unwrap().credential(),
            json!({ "token": null })
        );
    }

    #[test]
    fn backends_see_the_rest_as_it_was_sent() {
        let anonymous = Handshake::read(SENT).unwrap().for_backends(&User::anonymous());
        assert_eq!(anonymous.get(), r#"{"n":1e400,"token":"b","x":"\ud800"}"#);
        let mut user = User::anonymous();
        user.who.id = Some("42".into());
        let known = Handshake::read(SENT).unwrap().for_backends(&user);
        assert_eq!(known.get(), r#"{"n":1e400,"x":"\ud800"}"#);
    }
}
