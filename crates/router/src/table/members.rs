//! Who is in a room.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use carillon_protocol::ids::Sid;
use carillon_protocol::names::{Namespace, Room};

use super::{Session, Table};

/// A part of the members of a room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) count: usize,
    pub(crate) members: Vec<(Sid, Option<Arc<str>>)>,
    /// The last member of the page, unless it is the room's last.
    pub(crate) next: Option<Sid>,
}

impl Table {
    /// Returns the live members of a room after the given one, at most `limit`.
    pub(crate) fn page(&self, namespace: &Namespace, room: &Room, after: Option<Sid>, limit: usize) -> Page {
        let Some(index) = self.namespaces.get(namespace) else {
            return Page {
                count: 0,
                members: Vec::new(),
                next: None,
            };
        };
        let mut count = 0;
        let mut sids: Vec<Sid> = Vec::new();
        let is_after = |sid: &Sid| after.is_none_or(|after| *sid > after);
        let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        if room.as_str() == "all" {
            count += index.live.len() - index.without_all.len();
            let members = index
                .live
                .range(from)
                .filter(|sid| !index.without_all.contains(sid));
            sids.extend(members.take(limit + 1));
        } else {
            let implied = self.implied(namespace, room);
            count += implied.len();
            sids.extend(implied.into_iter().filter(is_after));
            if let Some(members) = index.rooms.get(room) {
                count += members.len();
                sids.extend(members.range(from).take(limit + 1));
            }
            sids.sort_unstable();
        }
        let more = sids.len() > limit;
        sids.truncate(limit);
        let next = if more { sids.last().copied() } else { None };
        let user = |sid: Sid| self.session(sid).and_then(|session| session.user.clone());
        Page {
            count,
            members: sids.into_iter().map(|sid| (sid, user(sid))).collect(),
            next,
        }
    }

    /// The live members that a room has by its name.
    fn implied(&self, namespace: &Namespace, room: &Room) -> Vec<Sid> {
        if let Some(user) = room.user() {
            let hearing =
                |(sid, session): (Sid, &Session)| (session.live && session.hears_user).then_some(sid);
            return self.of_user(namespace, user).filter_map(hearing).collect();
        }
        let Some(Ok(sid)) = room.session().map(str::parse::<Sid>) else {
            return Vec::new();
        };
        let here = self
            .session(sid)
            .is_some_and(|session| session.live && session.namespace == *namespace);
        if here { vec![sid] } else { Vec::new() }
    }

    /// Walks over the live members of a room.
    pub(crate) fn members<'a>(
        &'a self,
        namespace: &'a Namespace,
        room: &'a Room,
    ) -> impl Iterator<Item = (Sid, &'a Session)> + 'a {
        let index = self.namespaces.get(namespace);
        let all = index.filter(|_| room.as_str() == "all");
        let everyone = all.into_iter().flat_map(|index| {
            index
                .live
                .iter()
                .filter(|sid| !index.without_all.contains(sid))
                .copied()
        });
        let joined = index
            .filter(|_| room.as_str() != "all")
            .and_then(|index| index.rooms.get(room));
        let sids = everyone
            .chain(self.implied(namespace, room))
            .chain(joined.into_iter().flatten().copied());
        sids.filter_map(|sid| Some((sid, self.session(sid)?)))
    }

    /// Returns how many users and connections are in at least one of the rooms.
    pub(crate) fn union(&self, namespace: &Namespace, rooms: &[Room]) -> (usize, usize) {
        let mut users: HashSet<&str> = HashSet::new();
        let mut connections: HashSet<Sid> = HashSet::new();
        for room in rooms {
            for (sid, session) in self.members(namespace, room) {
                connections.insert(sid);
                users.extend(session.user.as_deref());
            }
        }
        (users.len(), connections.len())
    }
}
