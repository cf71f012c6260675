//! `joined` and `left`: told on a user's first and last connection in a room, where the rules ask for it.
//!
//! What is told is a function of the records in the order of the bucket, so every replica comes to the same
//! result. The replica that a room falls to tells it; each keeps the last two minutes, so that a new owner can
//! tell again what the former one may not have told. The message id removes what was told twice.

mod rules;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_bus::Bus;
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::ids::Sid;
use carillon_protocol::names::{Namespace, Room};
use carillon_service::settings::PresenceData;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::leases::Leases;
use crate::metrics;
use crate::table::{Session, Table};

pub(crate) use rules::Rules;

/// How long a replica remembers what was told, in case it becomes a room's owner.
const MEMORY: Duration = Duration::from_secs(120);
/// Announcements that are remembered or wait to be told; beyond it the oldest are dropped.
const MOST: usize = 65_536;
/// How often a replica looks whether rooms have fallen to it.
const LOOK: Duration = Duration::from_millis(500);

/// Something to be told to a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    namespace: Namespace,
    room: Room,
    event: Arc<str>,
    data: PresenceData,
    /// Whether the session itself is left out.
    to_others: bool,
    user: Option<Arc<str>>,
    sid: Sid,
    term: u64,
    /// The sequence at which the session joined the room, and the number of the stay, since it may do so more than
    /// once: in an automatic room the sequence stays the same.
    joined: u64,
    stay: u64,
}

/// Takes down what the room's owner has to tell.
#[derive(Clone)]
pub(crate) struct Announcer(mpsc::Sender<Announcement>);

impl Announcer {
    /// Makes an announcer and what tells its announcements.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Announcement>) {
        let (sender, receiver) = mpsc::channel(MOST);
        (Self(sender), receiver)
    }

    /// Compares a session before and after a change that the table has already taken over.
    pub(crate) fn changed(
        &self,
        table: &Table,
        rules: &Rules,
        sid: Sid,
        before: Option<&Session>,
        after: Option<&Session>,
    ) {
        let (before, after) = (
            before.filter(|session| session.live),
            after.filter(|session| session.live),
        );
        let Some(session) = after.or(before).filter(|session| rules.has(&session.namespace)) else {
            return;
        };
        let rooms = |session: Option<&Session>| session.map(|session| session.heard(sid)).unwrap_or_default();
        let (had, has) = (rooms(before), rooms(after));
        let stays = |_: Sid, other: &Session| other.live;
        for room in has.iter().filter(|room| had.binary_search(room).is_err()) {
            self.tell(table, rules, sid, session, room, true, stays);
        }
        let Some(session) = before else { return };
        for room in had.iter().filter(|room| has.binary_search(room).is_err()) {
            self.tell(table, rules, sid, session, room, false, stays);
        }
    }

    /// Tells again what happened shortly before the view was loaded for the first time. `ended` are sessions of which
    /// the table has no more than that.
    pub(crate) fn recent(&self, table: &Table, ended: &HashMap<Sid, Session>, rules: &Rules, now: u64) {
        let floor = now.saturating_sub(u64::try_from(MEMORY.as_millis()).unwrap_or(u64::MAX));
        let ended = || ended.iter().map(|(sid, session)| (*sid, session));
        let mut of_user: HashMap<_, Vec<(Sid, &Session)>> = HashMap::new();
        for (sid, session) in ended() {
            of_user
                .entry((&session.namespace, &session.user))
                .or_default()
                .push((sid, session));
        }
        let sessions = table.sessions().chain(ended());
        for (sid, session) in sessions.filter(|(_, session)| rules.has(&session.namespace)) {
            let at = if session.live {
                session.since
            } else {
                session.gone.unwrap_or(0)
            };
            if at < floor {
                continue;
            }
            if session.live {
                let came = |other: Sid, candidate: &Session| {
                    candidate.live && (candidate.since, other) < (session.since, sid)
                };
                for room in session.heard(sid) {
                    self.tell(table, rules, sid, session, &room, true, came);
                }
                continue;
            }
            let stays = |other: Sid, candidate: &Session| {
                candidate.live || (candidate.gone, other) > (session.gone, sid)
            };
            let others = of_user.get(&(&session.namespace, &session.user));
            let others = others.filter(|_| session.user.is_some());
            for room in session.heard(sid) {
                let mut others = others.into_iter().flatten();
                if !others.any(|(other, candidate)| {
                    stays(*other, candidate) && candidate.joined(*other, &room).is_some()
                }) {
                    self.tell(table, rules, sid, session, &room, false, stays);
                }
            }
        }
    }

    /// Takes an announcement down unless the user is in the room by another connection that counts.
    #[expect(clippy::too_many_arguments, reason = "the parts of one announcement")]
    fn tell(
        &self,
        table: &Table,
        rules: &Rules,
        sid: Sid,
        session: &Session,
        room: &Room,
        joined: bool,
        counts: impl Fn(Sid, &Session) -> bool,
    ) {
        let Some(events) = rules.events(&session.namespace, room) else {
            return;
        };
        let name = if joined { &events.joined } else { &events.left };
        let Some(event) = name else { return };
        let other = session.user.as_deref().is_some_and(|user| {
            table.of_user(&session.namespace, user).any(|(other, candidate)| {
                other != sid && counts(other, candidate) && candidate.joined(other, room).is_some()
            })
        });
        if other {
            return;
        }
        let announcement = Announcement {
            namespace: session.namespace.clone(),
            room: room.clone(),
            event: Arc::clone(event),
            data: events.data,
            to_others: joined,
            user: session.user.clone(),
            sid,
            term: session.term,
            joined: session.joined(sid, room).unwrap_or(session.start),
            stay: session.stay(room),
        };
        if self.0.try_send(announcement).is_err() {
            metrics::announcement_dropped();
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    event: &'a str,
    data: Data<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    except: Option<[Sid; 1]>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    User {
        #[serde(rename = "userId")]
        user: Option<&'a str>,
        sid: Sid,
    },
    Sid(Sid),
}

impl Announcement {
    fn work(&self) -> String {
        format!("{} {}", self.namespace, self.room)
    }

    /// Names the announcement in the whole cluster.
    fn id(&self) -> String {
        let user = self.user.as_deref().unwrap_or_default();
        let mut text = format!(
            "{}\n{}\n{}\n{}\n{}\n{}\n{user}",
            self.namespace, self.room, self.event, self.sid, self.term, self.joined
        );
        // A first stay keeps the name that it had before stays were counted.
        if self.stay > 0 {
            text = format!("{text}\n{}", self.stay);
        }
        let hash = Sha256::digest(text.as_bytes());
        let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("presence.{hex}")
    }

    async fn publish(&self, bus: &Bus) {
        let data = match self.data {
            PresenceData::User => Data::User {
                user: self.user.as_deref(),
                sid: self.sid,
            },
            PresenceData::Sid => Data::Sid(self.sid),
        };
        let body = Body {
            event: &self.event,
            data,
            except: self.to_others.then_some([self.sid]),
        };
        let body = Bytes::from(serde_json::to_vec(&body).expect("strings are JSON"));
        let subject = bus.subjects().publish(&self.namespace, &self.room);
        let headers = Headers::new().with(name::MSG_ID, self.id());
        loop {
            match bus.store(&subject, &headers, body.clone()).await {
                Ok(_) => return,
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, room = %self.room, "presence event waits");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, room = %self.room, "presence event refused");
                    return;
                }
            }
        }
    }
}

/// Tells the announcements of the rooms that fall to this replica.
pub(crate) async fn run(bus: Bus, leases: Arc<Leases>, mut announcements: mpsc::Receiver<Announcement>) {
    let mut others: VecDeque<(Instant, Announcement)> = VecDeque::new();
    let mut routers = leases.routers(Instant::now());
    let mut look = tokio::time::interval(LOOK);
    loop {
        let announcement = tokio::select! {
            announcement = announcements.recv() => announcement,
            _ = look.tick() => {
                let now = Instant::now();
                others.retain(|(at, _)| now.duration_since(*at) < MEMORY);
                let present = leases.routers(now);
                if present != routers {
                    routers = present;
                    let (mine, rest): (VecDeque<_>, VecDeque<_>) =
                        others.drain(..).partition(|(_, announcement)| leases.is_mine(&announcement.work(), now));
                    others = rest;
                    for (_, announcement) in mine {
                        announcement.publish(&bus).await;
                    }
                }
                continue;
            }
        };
        let Some(announcement) = announcement else { return };
        let now = Instant::now();
        if leases.is_mine(&announcement.work(), now) {
            announcement.publish(&bus).await;
            continue;
        }
        others.push_back((now, announcement));
        if others.len() > MOST {
            others.pop_front();
        }
    }
}
