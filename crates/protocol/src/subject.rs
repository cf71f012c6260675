//! The subjects that Carillon speaks on, below one prefix.

use std::sync::Arc;

use crate::ids::EdgeId;
use crate::names::{BadName, Class, Namespace, Room};
use crate::token;

/// Builds and reads subjects; cheap to clone.
#[derive(Debug, Clone)]
pub struct Subjects {
    prefix: Arc<str>,
}

/// A namespace and a room as a subject names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub namespace: Namespace,
    pub room: Room,
}

impl Subjects {
    /// Takes the prefix, `rt` by default.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// Returns the prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A subject of the given kind in a namespace: `rt.<kind>.<ns>.<token>`.
    fn named(&self, kind: &str, namespace: &Namespace, name: &str) -> String {
        format!(
            "{}.{kind}.{}.{}",
            self.prefix,
            namespace.token(),
            token::encode(name)
        )
    }

    /// Where teams publish durable events.
    pub fn publish(&self, namespace: &Namespace, room: &Room) -> String {
        self.named("pub", namespace, room.as_str())
    }

    /// Where the HTTP interface puts an event for a list of rooms; no room has such a token.
    pub fn publish_list(&self, namespace: &Namespace) -> String {
        format!("{}.pub.{}.%list", self.prefix, namespace.token())
    }

    /// Where INGEST keeps what waits for its time.
    pub fn scheduled(&self, id: &str) -> String {
        format!("{}.ingest.at.{id}", self.prefix)
    }

    /// The subjects of one partition of INGEST.
    pub fn ingest(&self, partition: u32) -> String {
        format!("{}.ingest.{partition}.>", self.prefix)
    }

    /// Where teams publish ephemeral events.
    pub fn signal(&self, namespace: &Namespace, room: &Room) -> String {
        self.named("signal", namespace, room.as_str())
    }

    /// Where an event is stored.
    pub fn event(&self, namespace: &Namespace, room: &Room) -> String {
        format!(
            "{}.event.{}.{}.{}",
            self.prefix,
            namespace.token(),
            room.class().token(),
            room.token()
        )
    }

    /// Where the events of all `session:` rooms of a namespace are stored.
    pub fn session_events(&self, namespace: &Namespace) -> String {
        format!("{}.event.{}.s.>", self.prefix, namespace.token())
    }

    /// Where a stored event and a signal are delivered.
    pub fn delivery(&self, namespace: &Namespace, room: &Room) -> String {
        format!(
            "{}.out.{}.{}.{}",
            self.prefix,
            namespace.token(),
            room.class().token(),
            room.token()
        )
    }

    /// Where an edge stores the probes that prove its subscriptions, in the stream of a namespace.
    pub fn probe(&self, namespace: &Namespace, edge: EdgeId) -> String {
        format!("{}.event.{}.p.{edge}", self.prefix, namespace.token())
    }

    /// Where an edge's probes come back.
    pub fn probe_delivery(&self, namespace: &Namespace, edge: EdgeId) -> String {
        format!("{}.out.{}.p.{edge}", self.prefix, namespace.token())
    }

    /// What clients emit.
    pub fn up(&self, namespace: &Namespace, event: &str) -> String {
        self.named("up", namespace, event)
    }

    /// May this user join?
    pub fn authz(&self, namespace: &Namespace) -> String {
        format!("{}.authz.{}", self.prefix, namespace.token())
    }

    /// Who is in a room?
    pub fn presence(&self, namespace: &Namespace, room: &Room) -> String {
        self.named("presence", namespace, room.as_str())
    }

    /// Ask the clients of a room.
    pub fn ask(&self, namespace: &Namespace, room: &Room) -> String {
        self.named("ask", namespace, room.as_str())
    }

    /// An order to a namespace: `join`, `leave`, `disconnect`, `revoke`.
    pub fn control(&self, namespace: &Namespace, order: &str) -> String {
        format!("{}.ctl.{}.{order}", self.prefix, namespace.token())
    }

    /// Events for a user who had no connection.
    pub fn offline(&self, namespace: &Namespace, user: &str) -> String {
        self.named("offline", namespace, user)
    }

    /// Bodies that were refused.
    pub fn dead(&self, namespace: &str, room: &str) -> String {
        format!("{}.dead.{namespace}.{room}", self.prefix)
    }

    /// Requests to one edge.
    pub fn edge(&self, edge: EdgeId) -> String {
        format!("{}.edge.{edge}", self.prefix)
    }

    /// Orders to every edge.
    pub fn edges(&self) -> String {
        format!("{}.edge.all", self.prefix)
    }

    /// Where publishers store their doubts, in the stream of a namespace.
    pub fn doubts(&self, namespace: &Namespace) -> String {
        format!("{}.event.{}.d.doubt", self.prefix, namespace.token())
    }

    /// Where doubts are delivered.
    pub fn doubt_deliveries(&self, namespace: &Namespace) -> String {
        format!("{}.out.{}.d.doubt", self.prefix, namespace.token())
    }

    /// All subjects of a kind, for a subscription or a stream: `rt.<kind>.>`.
    pub fn all(&self, kind: &str) -> String {
        format!("{}.{kind}.>", self.prefix)
    }

    /// Reads `rt.<kind>.<ns>.<room>`.
    pub fn read(&self, kind: &str, subject: &str) -> Result<Address, BadName> {
        let tokens = self.tokens(kind, subject).ok_or(BadName::Room)?;
        let [namespace, room] = tokens[..] else {
            return Err(BadName::Room);
        };
        Ok(Address {
            namespace: Namespace::from_token(namespace)?,
            room: Room::from_token(room)?,
        })
    }

    /// Reads `rt.<kind>.<ns>.<class>.<room>` of a stored event or a delivery.
    pub fn read_classed(&self, kind: &str, subject: &str) -> Result<Address, BadName> {
        let tokens = self.tokens(kind, subject).ok_or(BadName::Room)?;
        let [namespace, class, room] = tokens[..] else {
            return Err(BadName::Room);
        };
        let room = Room::from_token(room)?;
        if room.class().token() != class {
            return Err(BadName::Room);
        }
        Ok(Address {
            namespace: Namespace::from_token(namespace)?,
            room,
        })
    }

    /// Splits what follows `rt.<kind>.` into tokens.
    pub fn tokens<'a>(&self, kind: &str, subject: &'a str) -> Option<Vec<&'a str>> {
        let rest = subject.strip_prefix(&*self.prefix)?.strip_prefix('.')?;
        let rest = rest.strip_prefix(kind)?.strip_prefix('.')?;
        Some(rest.split('.').collect())
    }
}

/// Returns whether a subject's class token says that it holds rooms of this class.
pub fn class_of(token: &str) -> Option<Class> {
    [Class::User, Class::Session, Class::Other]
        .into_iter()
        .find(|class| class.token() == token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_names_survive_in_a_subject(path in "\\PC{1,12}(/\\PC{1,5})?", room in "\\PC{1,30}|user:\\PC{1,9}") {
            let Ok(namespace) = Namespace::new(&format!("/{path}")) else { return Ok(()) };
            let room = Room::new(&room).unwrap();
            let subjects = Subjects::new("rt");
            let address = Address { namespace, room };
            let published = subjects.publish(&address.namespace, &address.room);
            prop_assert_eq!(subjects.read("pub", &published).ok(), Some(address.clone()));
            let stored = subjects.event(&address.namespace, &address.room);
            prop_assert_eq!(subjects.read_classed("event", &stored).ok(), Some(address));
        }
    }

    #[test]
    fn subjects_are_read_as_they_are_built() {
        let subjects = Subjects::new("rt");
        let namespace = Namespace::new("/chat").unwrap();
        let room = Room::new("a.b *").unwrap();
        let subject = subjects.publish(&namespace, &room);
        assert_eq!(subject, "rt.pub.chat.a%2Eb%20%2A");
        assert_eq!(
            subjects.read("pub", &subject).unwrap(),
            Address {
                namespace: namespace.clone(),
                room: room.clone()
            }
        );
        let event = subjects.event(&namespace, &room);
        assert_eq!(
            subjects.read_classed("event", &event).unwrap(),
            Address { namespace, room }
        );
    }

    #[test]
    fn the_list_subject_is_no_room() {
        let subjects = Subjects::new("rt");
        assert!(
            subjects
                .read("pub", &subjects.publish_list(&Namespace::main()))
                .is_err()
        );
        assert!(subjects.read("pub", "rt.pub.main").is_err());
        assert!(subjects.read("pub", "rt.pub.main.a.b").is_err());
        assert!(subjects.read_classed("out", "rt.out.main.r.user:42").is_err());
    }
}
