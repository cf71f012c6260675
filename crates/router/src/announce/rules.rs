//! Which rooms tell who came and went.

use std::collections::HashMap;
use std::sync::Arc;

use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::pattern::{BadPattern, Pattern};
use carillon_service::settings::{PresenceData, PresenceEvents, RoomRule};

/// Which rooms tell `joined` and `left`, by namespace.
#[derive(Clone, Default)]
pub(crate) struct Rules(Arc<HashMap<Namespace, Vec<Rule>>>);

/// One pattern of rooms; `None` where it tells nothing.
struct Rule {
    pattern: Pattern,
    events: Option<Events>,
}

impl Rule {
    fn new(rule: &RoomRule) -> Result<Self, BadPattern> {
        let events = rule.presence.as_ref().map(Events::from);
        Ok(Self {
            pattern: Pattern::new(&rule.pattern)?,
            events,
        })
    }
}

/// What is told of one pattern.
#[derive(Debug, Clone)]
pub(super) struct Events {
    pub(super) joined: Option<Arc<str>>,
    pub(super) left: Option<Arc<str>>,
    pub(super) data: PresenceData,
}

impl From<&PresenceEvents> for Events {
    fn from(events: &PresenceEvents) -> Self {
        let name = |name: &Option<String>| name.as_deref().map(Arc::from);
        Self {
            joined: name(&events.joined),
            left: name(&events.left),
            data: events.data,
        }
    }
}

impl Rules {
    /// Takes the rules of each namespace that has some.
    pub(crate) fn new<'a>(
        namespaces: impl IntoIterator<Item = (Namespace, &'a [RoomRule])>,
    ) -> Result<Self, BadPattern> {
        let mut asked = HashMap::new();
        for (namespace, rules) in namespaces {
            if rules.iter().any(|rule| rule.presence.is_some()) {
                let rules = rules.iter().map(Rule::new).collect::<Result<Vec<_>, _>>()?;
                asked.insert(namespace, rules);
            }
        }
        Ok(Self(Arc::new(asked)))
    }

    /// Returns whether any room of a namespace tells something.
    pub(crate) fn has(&self, namespace: &Namespace) -> bool {
        self.0.contains_key(namespace)
    }

    /// Returns the events of a room, by the first pattern that fits. Rooms of one user or session have none, and
    /// the room that everyone is in only by its name: it is joined by connecting.
    pub(super) fn events(&self, namespace: &Namespace, room: &Room) -> Option<&Events> {
        let rules = self.0.get(namespace).filter(|_| !room.is_reserved())?;
        let fits = |rule: &&Rule| match *room == Room::all() {
            true => rule.pattern.text() == room.as_str(),
            false => rule.pattern.matches(room.as_str()),
        };
        rules.iter().find(fits)?.events.as_ref()
    }
}
