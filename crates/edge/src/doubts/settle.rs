//! Looking at doubts: the rooms are compared with their streams, and clients that came in between get what they may lack.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use carillon_bus::HistoryError;
use carillon_protocol::doubt::{Doubt, Findings, Lack};
use carillon_protocol::names::{Class, Room};
use futures_util::future::join_all;

use super::Waiting;
use super::findings::may_have_lived;
use crate::delivery::session_cell;
use crate::entrance::Refused;
use crate::frame::Broadcast;
use crate::history::{PAGE, Past};
use crate::hub::Hub;
use crate::namespace::Namespace;
use crate::repair::PATIENCE;
use crate::room::Cell;
use crate::session::Session;

/// Pause between two attempts to compare.
const RETRY: Duration = Duration::from_millis(200);

/// Members of a room in doubt that came with an offset above a doubted event; they are held.
struct Returned {
    cell: Arc<Cell>,
    /// The sequence after which a delivery may be missing.
    after: u64,
    sessions: Vec<Arc<Session>>,
}

impl Hub {
    /// Takes a doubt from the delivery link: its rooms are held until they have been compared with the stream.
    pub(crate) fn doubted(self: &Arc<Self>, namespace: &Arc<Namespace>, sequence: u64, doubt: Doubt) {
        let cells = doubt
            .rooms
            .keys()
            .filter_map(|room| doubted_cell(namespace, room));
        let cells = cells.collect();
        for cell in namespace.doubts.add(sequence, Arc::new(doubt), cells) {
            cell.state.lock().suspend();
        }
        namespace.trust.doubt();
    }

    /// Looks at the doubts that came, and writes down what was found.
    pub(crate) async fn look_at_doubts(self: &Arc<Self>, namespace: &Arc<Namespace>) {
        while let Some(waiting) = namespace.doubts.take_waiting() {
            namespace.doubts.look_at_left(&waiting.rooms, waiting.through);
            let returned = self.settle(namespace, &waiting).await;
            self.write_findings(namespace, waiting.through).await;
            if !returned.is_empty() {
                let (hub, namespace) = (Arc::clone(self), Arc::clone(namespace));
                tokio::spawn(async move { hub.give_again(&namespace, returned, waiting.through).await });
            }
        }
    }

    /// Compares rooms with their streams, delivers what is missing, and lets their members go on, but for those who
    /// came with an offset above a doubted event.
    async fn settle(self: &Arc<Self>, namespace: &Arc<Namespace>, waiting: &Waiting) -> Vec<Returned> {
        let cells: Vec<Arc<Cell>> = waiting.cells.values().cloned().collect();
        let mut compared = pin!(self.compare_in_doubt(namespace, &cells));
        let lasts = match tokio::time::timeout(PATIENCE, &mut compared).await {
            Ok(lasts) => lasts,
            Err(_) => {
                cells.iter().for_each(|cell| self.close_held(namespace, cell));
                compared.await
            }
        };
        let Some((lasts, barrier)) = lasts else {
            return Vec::new();
        };
        let returned = cells
            .iter()
            .filter_map(|cell| hold_returned(cell, waiting.rooms[&cell.room]));
        let returned = returned.collect();
        let checks = cells.iter().map(|cell| {
            let last = lasts.get(&cell.room).copied().unwrap_or(0);
            self.run_repair(namespace, cell, last.min(barrier), barrier)
        });
        join_all(checks).await;
        returned
    }

    /// Returns the last sequence of each room, and a barrier up to which everything has come that will; `None` when
    /// the edge stops.
    async fn compare_in_doubt(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        cells: &[Arc<Cell>],
    ) -> Option<(HashMap<Room, u64>, u64)> {
        loop {
            let barrier = namespace.pass_barrier(self, None).await;
            match self.lasts(namespace, cells, barrier).await {
                Ok(lasts) => return Some((lasts, barrier)),
                Err(error) => tracing::debug!(%error, "rooms in doubt cannot be compared yet"),
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Sends members that came with an offset above a doubted event what the edge that they left may not have
    /// delivered, and lets them go on.
    async fn give_again(self: &Arc<Self>, namespace: &Arc<Namespace>, returned: Vec<Returned>, doubt: u64) {
        let findings = self.findings_of_all(namespace, doubt).await.ok();
        let rooms = returned
            .iter()
            .map(|returned| self.give_room(namespace, returned, findings.as_deref(), doubt));
        join_all(rooms).await;
    }

    async fn give_room(
        self: &Arc<Self>,
        namespace: &Namespace,
        returned: &Returned,
        findings: Option<&[Findings]>,
        doubt: u64,
    ) {
        let sessions = &returned.sessions;
        let given = match findings {
            Some(findings) => self.give_lacking(namespace, returned, findings, doubt).await,
            None => Err(HistoryError::Away),
        };
        match given {
            Ok(()) => sessions.iter().for_each(|session| session.release()),
            // They come back, and what they may lack is read then; what was read already does not leave before.
            Err(_) => {
                for session in sessions {
                    let up_to = session.resumed();
                    session.may_lack(vec![Lack {
                        room: returned.cell.room.clone(),
                        after: returned.after,
                        up_to,
                        proof: session.offset_now().sequence.max(up_to) + 1,
                    }]);
                    session.client.close(Refused::Unavailable.closing());
                }
            }
        }
    }

    async fn give_lacking(
        self: &Arc<Self>,
        namespace: &Namespace,
        returned: &Returned,
        findings: &[Findings],
        doubt: u64,
    ) -> Result<(), HistoryError> {
        let Returned {
            cell,
            after,
            sessions,
        } = returned;
        let up_to = sessions.iter().map(|session| session.resumed()).max();
        let up_to = up_to.unwrap_or(0);
        let mut reached = *after;
        while reached < up_to {
            let page = self.history(namespace, &cell.room, reached, up_to, PAGE).await?;
            reached = page.reached;
            for event in &page.events {
                for session in sessions {
                    if may_lack(findings, event, session.resumed(), doubt) {
                        let sequence = event.sequence.unwrap_or(0);
                        session.replay(self, sequence, Past::Read(Arc::clone(event)));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns whether a client may lack an event that came with an offset above it, by what all edges have found.
fn may_lack(findings: &[Findings], event: &Broadcast, offset: u64, doubt: u64) -> bool {
    let sequence = event.sequence.unwrap_or(0);
    let is_late = |lack: &Lack| lack.concerns(offset) && lack.covers(&event.room, sequence);
    sequence <= offset
        && findings.iter().any(|findings| {
            let has_looked = findings.through >= doubt;
            findings.late.iter().any(is_late) || !has_looked && may_have_lived(findings, event.event.time)
        })
}

/// Holds the members of a room that came with an offset above a sequence.
fn hold_returned(cell: &Arc<Cell>, after: u64) -> Option<Returned> {
    let state = cell.state.lock();
    let members = state.members.iter().map(|member| &member.session);
    let sessions: Vec<_> = members
        .filter(|session| session.resumed() > after)
        .cloned()
        .collect();
    sessions.iter().for_each(|session| session.hold());
    (!sessions.is_empty()).then(|| Returned {
        cell: Arc::clone(cell),
        after,
        sessions,
    })
}

fn doubted_cell(namespace: &Arc<Namespace>, room: &Room) -> Option<Arc<Cell>> {
    match room.class() {
        Class::Session => session_cell(namespace, room),
        _ => namespace.rooms.find(room),
    }
}

#[cfg(test)]
mod tests {
    use carillon_protocol::event::{Event, Payload};

    use super::*;

    #[test]
    fn who_came_before_a_doubt_may_lack_what_any_edge_missed_or_did_not_look_at() {
        let room = Room::new("a").unwrap();
        let event = Event {
            name: "tick".to_owned(),
            payload: Payload::NONE,
            id: None,
            except: None,
            time: 0,
        };
        let event = Broadcast::new(event, room.clone(), Some(10), None);
        let lack = Lack {
            room,
            after: 9,
            up_to: 10,
            proof: 40,
        };
        let looked = |late: &[&Lack]| Findings {
            through: 50,
            late: late.iter().copied().cloned().collect(),
            ..Findings::default()
        };
        assert!(!may_lack(&[looked(&[])], &event, 20, 50), "it came in order");
        assert!(may_lack(&[looked(&[]), looked(&[&lack])], &event, 20, 50));
        assert!(
            !may_lack(&[looked(&[&lack])], &event, 40, 50),
            "the offset proves it"
        );
        assert!(
            !may_lack(&[looked(&[&lack])], &event, 9, 50),
            "it is read as missed"
        );
        assert!(
            may_lack(&[Findings::default()], &event, 20, 50),
            "nobody has looked"
        );
    }
}
