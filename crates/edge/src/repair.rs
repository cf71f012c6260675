//! Repairing a room: reading what was never delivered, while its members are held.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use carillon_bus::Limit;
use carillon_protocol::doubt::Lack;

use crate::client::Closing;
use crate::delivery::walk;
use crate::frame::Wire;
use crate::history::History;
use crate::hub::Hub;
use crate::metrics;
use crate::namespace::Namespace;
use crate::room::{Cell, Repair};

/// After this time the held clients are closed, and recover.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two attempts to read.
const RETRY: Duration = Duration::from_millis(100);
/// Most that is read at once.
const PAGE: Limit = Limit {
    messages: 10_000,
    bytes: 8 << 20,
};

impl Hub {
    /// Passes a barrier for a room whose members are held, and closes them where that takes longer than they can wait.
    pub(crate) async fn barrier_in_time(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        cell: &Arc<Cell>,
    ) -> u64 {
        let mut passed = pin!(namespace.pass_barrier(self, None));
        match tokio::time::timeout(PATIENCE, &mut passed).await {
            Ok(barrier) => barrier,
            Err(_) => {
                self.close_held(namespace, cell);
                passed.await
            }
        }
    }

    /// Reads what a suspended room lacks up to a sequence, and lets its members go on. Up to `barrier` everything
    /// that the link brings has been taken.
    pub(crate) async fn run_repair(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        cell: &Arc<Cell>,
        mut up_to: u64,
        barrier: u64,
    ) {
        let begun = tokio::time::Instant::now();
        let mut closed = false;
        loop {
            // Before its first barrier a room has no member that lacks anything.
            let complete = cell.state.lock().complete.unwrap_or(up_to);
            match self.history(namespace, &cell.room, complete, up_to, PAGE).await {
                Ok(read) => {
                    if !read.complete {
                        self.turn_away(namespace, cell);
                    }
                    match self.finish_repair(namespace, cell, &read, up_to, barrier) {
                        None => return,
                        // The rest of the gap, or yet another one behind it.
                        Some(next) => up_to = next,
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, room = %cell.room, "room cannot be repaired yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
            if !closed && begun.elapsed() > PATIENCE {
                closed = true;
                self.close_held(namespace, cell);
            }
        }
    }

    /// Delivers what was read and what came in the meantime; returns up to where there is more to read.
    fn finish_repair(
        &self,
        namespace: &Arc<Namespace>,
        cell: &Arc<Cell>,
        read: &History,
        up_to: u64,
        barrier: u64,
    ) -> Option<u64> {
        let events = &read.events;
        let mut state = cell.state.lock();
        // Nobody who left this edge shows a higher offset than it has sent.
        let proof = barrier.min(namespace.highest_sent() + 1);
        for event in events {
            let sequence = event.sequence.unwrap_or(0);
            if Some(sequence) > state.complete {
                namespace.has_come(sequence);
                state.advance(sequence, event);
                walk(None, &mut state, std::slice::from_ref(event));
                metrics::repaired();
                if sequence < proof {
                    namespace.doubts.found(Lack {
                        room: cell.room.clone(),
                        after: sequence - 1,
                        up_to: sequence,
                        proof,
                    });
                }
            }
        }
        if !read.complete {
            // Whoever comes back must not take these for all that there was.
            state.recent = None;
        }
        // Everything up to there was read, or has expired. Before its first barrier a room is not complete at all.
        if state.complete.is_some() {
            state.complete = state.complete.max(Some(read.reached));
        }
        if read.reached < up_to {
            return Some(up_to);
        }
        loop {
            let complete = state.complete;
            match state.repair.as_mut()?.pending.next(complete) {
                Ok(Some((sequence, event))) => {
                    state.advance(sequence, &event);
                    walk(None, &mut state, std::slice::from_ref(&event));
                }
                Ok(None) => break,
                Err(up_to) => return Some(up_to),
            }
        }
        if !events.is_empty() {
            tracing::info!(room = %cell.room, namespace = %namespace.name, events = events.len(), "room was repaired");
        }
        let repair = state.repair.as_mut()?;
        repair.running -= 1;
        repair.barrier = repair.barrier.max(barrier);
        if repair.running == 0 {
            let Repair { held, barrier, .. } = *state.repair.take()?;
            drop(state);
            for session in held {
                session.release_verified(barrier);
            }
        }
        None
    }

    /// Closes the members of a room of which something is lost, without anything that lies behind it: they come back,
    /// and are told.
    fn turn_away(self: &Arc<Self>, namespace: &Arc<Namespace>, cell: &Arc<Cell>) {
        if let Some(repair) = &cell.state.lock().repair {
            repair.held.iter().for_each(|session| session.hold());
        }
        self.close_held(namespace, cell);
    }

    /// Closes the members of a room that cannot be repaired: they recover as soon as that is possible.
    pub(crate) fn close_held(self: &Arc<Self>, namespace: &Arc<Namespace>, cell: &Arc<Cell>) {
        let state = cell.state.lock();
        let Some(repair) = &state.repair else { return };
        metrics::error("repair_timeout");
        // Whoever shows no session but an offset may show one above what it lacks.
        let plain = repair
            .held
            .iter()
            .filter(|session| session.client.wire == Wire::Json);
        let lacking = plain.filter_map(|session| {
            let (heard, last) = (session.heard(&state)?, session.offset_now().sequence);
            (heard < last).then_some((heard, last))
        });
        if let Some((after, up_to)) = lacking.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1))) {
            namespace.doubts.found(Lack {
                room: cell.room.clone(),
                after,
                up_to,
                proof: up_to + 1,
            });
            let (hub, namespace) = (Arc::clone(self), Arc::clone(namespace));
            tokio::spawn(async move { hub.write_findings(&namespace, 0).await });
        }
        for session in &repair.held {
            session.client.close(Closing {
                code: 1013,
                reason: "history is not available, connect again".to_owned(),
                flush: false,
            });
        }
    }
}
