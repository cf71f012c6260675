//! The members of a room: a list that events walk over, with an index once it is long.

use std::collections::HashMap;
use std::sync::Arc;

use crate::session::Session;

/// Members from which on an index costs less than looking through the list.
const LONG: usize = 32;

/// A connection in a room.
pub(crate) struct Member<S = Session> {
    pub(crate) session: Arc<S>,
    /// It hears what has a higher sequence.
    pub(crate) from: u64,
}

/// The members of a room.
pub(crate) struct Members<S = Session> {
    list: Vec<Member<S>>,
    /// Where each session stands in a long list.
    places: Option<Box<Places>>,
}

/// Places in the list, by a session's address, which is its own as long as it is a member.
struct Places(HashMap<usize, u32>);

impl<S> Default for Members<S> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            places: None,
        }
    }
}

impl<S> Members<S> {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Member<S>> {
        self.list.iter()
    }

    /// Adds a member, or returns `false` if it is one.
    pub(crate) fn add(&mut self, session: &Arc<S>, from: u64) -> bool {
        if self.place(session).is_some() {
            return false;
        }
        if self.list.is_empty() {
            // Most rooms are personal.
            self.list.reserve_exact(1);
        }
        self.list.push(Member {
            session: Arc::clone(session),
            from,
        });
        if let Some(places) = &mut self.places {
            places.0.insert(key(session), self.list.len() as u32 - 1);
        } else if self.list.len() >= LONG {
            let places = self.list.iter().zip(0..);
            let places = places.map(|(member, place)| (key(&member.session), place));
            self.places = Some(Box::new(Places(places.collect())));
        }
        true
    }

    /// Removes a member; `false` if it is none.
    pub(crate) fn remove(&mut self, session: &Arc<S>) -> bool {
        let Some(place) = self.place(session) else {
            return false;
        };
        self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.0.remove(&key(session));
            if let Some(moved) = self.list.get(place) {
                places.0.insert(key(&moved.session), place as u32);
            }
        }
        if self.list.len() < LONG / 2 {
            self.places = None;
        }
        if self.list.len() < self.list.capacity() / 4 {
            let kept = self.list.len() * 2;
            self.list.shrink_to(kept);
            if let Some(places) = &mut self.places {
                places.0.shrink_to(kept);
            }
        }
        true
    }

    /// Returns a member.
    pub(crate) fn get(&self, session: &Arc<S>) -> Option<&Member<S>> {
        self.list.get(self.place(session)?)
    }

    /// Returns a member, to be changed.
    pub(crate) fn get_mut(&mut self, session: &Arc<S>) -> Option<&mut Member<S>> {
        let place = self.place(session)?;
        self.list.get_mut(place)
    }

    fn place(&self, session: &Arc<S>) -> Option<usize> {
        match &self.places {
            Some(places) => places.0.get(&key(session)).map(|place| *place as usize),
            None => self
                .list
                .iter()
                .position(|member| Arc::ptr_eq(&member.session, session)),
        }
    }
}

fn key<S>(session: &Arc<S>) -> usize {
    Arc::as_ptr(session) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_however_long_the_list_is() {
        let sessions: Vec<Arc<u64>> = (0..200).map(Arc::new).collect();
        let mut members = Members::default();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut inside = vec![false; sessions.len()];
        // It grows past the bound of the index, then shrinks below it, and again.
        for step in 0..20_000 {
            let (number, grows) = (rng.usize(..sessions.len()), step / 2_000 % 2 == 0);
            if rng.u8(..4) > 0 {
                assert_eq!(
                    if grows {
                        members.add(&sessions[number], number as u64)
                    } else {
                        members.remove(&sessions[number])
                    },
                    inside[number] != grows
                );
                inside[number] = grows;
            }
            let found = members
                .get_mut(&sessions[number])
                .map(|member| (*member.session, member.from));
            assert_eq!(found, inside[number].then_some((number as u64, number as u64)));
            assert_eq!(
                members.iter().count(),
                inside.iter().filter(|inside| **inside).count()
            );
        }
        assert_eq!(members.is_empty(), !inside.contains(&true));
    }
}
