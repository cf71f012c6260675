//! Who is in a room, and where a user is connected.

use std::sync::Arc;

use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::names::{Namespace, Room};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::refusal::Refusal;
use crate::router::Router;

/// Most entries of one answer.
pub(crate) const MOST: usize = 1000;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Part {
    /// Entries at most.
    limit: Option<usize>,
    /// What the part before gave as `next`.
    #[serde(alias = "next")]
    cursor: Option<Sid>,
}

impl Part {
    /// Makes a part of what stands in a query.
    pub(crate) fn new(limit: Option<usize>, cursor: Option<Sid>) -> Self {
        Self { limit, cursor }
    }

    fn limit(self) -> Result<usize, Refusal> {
        match self.limit {
            None => Ok(MOST),
            Some(limit @ 1..=MOST) => Ok(limit),
            Some(_) => Err(Refusal::wrong("bad_limit", format!("limit is from 1 to {MOST}"))),
        }
    }
}

/// The live connections of a room.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Members {
    count: usize,
    members: Vec<Member>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Sid>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Member {
    #[serde(rename = "userId")]
    user: Option<Arc<str>>,
    sid: Sid,
}

/// Returns who is in a room.
pub(crate) async fn members(
    router: &Router,
    namespace: &Namespace,
    room: &Room,
    part: Part,
) -> Result<Members, Refusal> {
    router.check(namespace)?;
    let limit = part.limit()?;
    router.view.catch_up().await?;
    let page = router.view.table().page(namespace, room, part.cursor, limit);
    let member = |(sid, user)| Member { user, sid };
    Ok(Members {
        count: page.count,
        members: page.members.into_iter().map(member).collect(),
        next: page.next,
    })
}

/// Where a user is connected.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct User {
    online: bool,
    count: usize,
    connections: Vec<Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Sid>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Connection {
    sid: Sid,
    namespace: Namespace,
    edge: EdgeId,
    transport: &'static str,
    since: String,
    rooms: Vec<Room>,
}

/// Returns where a user is connected in a namespace.
pub(crate) async fn user(
    router: &Router,
    namespace: &Namespace,
    user: &str,
    part: Part,
) -> Result<User, Refusal> {
    router.check(namespace)?;
    let limit = part.limit()?;
    router.view.catch_up().await?;
    let table = router.view.table();
    let live = table
        .of_user(namespace, user)
        .filter(|(_, session)| session.live)
        .map(|(sid, _)| sid);
    let mut sids: Vec<Sid> = live.collect();
    let count = sids.len();
    sids.sort_unstable();
    sids.retain(|sid| part.cursor.is_none_or(|cursor| *sid > cursor));
    let next = (sids.len() > limit).then(|| sids[limit - 1]);
    sids.truncate(limit);
    let connections = sids.into_iter().filter_map(|sid| {
        let session = table.session(sid)?;
        Some(Connection {
            sid,
            namespace: session.namespace.clone(),
            edge: session.owner,
            transport: session.transport.as_str(),
            since: rfc3339(session.since),
            rooms: session.heard(sid),
        })
    });
    Ok(User {
        online: count > 0,
        count,
        connections: connections.collect(),
        next,
    })
}

fn rfc3339(milliseconds: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000);
    time.ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// The rooms of a union.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rooms {
    namespace: Namespace,
    rooms: Vec<Room>,
}

/// How many are in at least one of some rooms.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Union {
    users: usize,
    connections: usize,
}

/// Counts who is in at least one of the rooms.
pub(crate) async fn union(router: &Router, rooms: Rooms) -> Result<Union, Refusal> {
    router.check(&rooms.namespace)?;
    if rooms.rooms.len() > MOST {
        return Err(Refusal::wrong("too_many_rooms", format!("at most {MOST} rooms")));
    }
    router.view.catch_up().await?;
    let (users, connections) = router.view.table().union(&rooms.namespace, &rooms.rooms);
    Ok(Union { users, connections })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(u64::MAX), "");
    }

    #[test]
    fn a_limit_has_bounds() {
        assert_eq!(Part::default().limit().unwrap(), MOST);
        assert!(Part::new(Some(0), None).limit().is_err());
        assert!(Part::new(Some(1001), None).limit().is_err());
        assert_eq!(Part::new(Some(2), None).limit().unwrap(), 2);
    }
}
