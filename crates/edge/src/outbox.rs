//! What waits for one client: a queue bounded in bytes, and the socket that it leaves by.
//!
//! Whoever finds the queue empty writes to the socket at once; what the socket does not take is queued, and the
//! connection's own task sends it when the socket is ready again. The lock is short and never held over an await.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use carillon_service::settings::Overflow;

use crate::frame::Chunk;
use crate::metrics;
use crate::socket::Socket;

/// Most buffers of one `writev`.
const BATCH: usize = 64;
/// Bytes that are collected at most before they are written; a large frame does not wait for others.
const COLLECTED: usize = 64 * 1024;

/// Where a client's frames leave.
pub(crate) enum Sink {
    /// A socket that frames are written to as they come.
    Socket(Arc<Socket>),
    /// A transport that takes what waits when it can: long-polling, SSE.
    Pull,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sent {
    /// It left, or nothing needs to be woken for it.
    Done,
    /// It waits, and the connection's task must see to it.
    Waiting,
    /// The queue is full, and the client must be closed; it recovers from history.
    Overflow,
}

/// The queue of one client.
pub(crate) struct Outbox {
    pub(crate) sink: Sink,
    queue: VecDeque<Chunk>,
    /// How much of the first chunk has left already.
    written: usize,
    bytes: usize,
    limit: usize,
    /// Frames are collected and not written yet, so that they leave in one `writev`.
    corked: bool,
    /// What waited was dropped, and nothing is taken any more.
    abandoned: bool,
}

impl Outbox {
    pub(crate) fn new(sink: Sink, limit: usize) -> Self {
        Self {
            sink,
            queue: VecDeque::new(),
            written: 0,
            bytes: 0,
            limit,
            corked: false,
            abandoned: false,
        }
    }

    /// Sends a chunk, or queues it.
    pub(crate) fn push(&mut self, chunk: Chunk, overflow: Overflow) -> Sent {
        if self.abandoned {
            return Sent::Done;
        }
        if self.queue.is_empty()
            && !self.corked
            && let Sink::Socket(socket) = &self.sink
        {
            match socket.try_write(&chunk.bytes) {
                Ok(written) if written == chunk.bytes.len() => {
                    metrics::left(chunk.accepted);
                    return Sent::Done;
                }
                Ok(written) => self.written = written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The connection's task sees the same error when it reads.
                Err(_) => return Sent::Done,
            }
        }
        if self.corked && self.bytes + chunk.bytes.len() > COLLECTED.min(self.limit) {
            // An error shows when the connection's task reads.
            let _ = self.write();
        }
        if !self.fits(&chunk) && !self.make_room(&chunk, overflow) {
            return Sent::Overflow;
        }
        self.bytes += chunk.bytes.len();
        self.queue.push_back(chunk);
        if self.corked { Sent::Done } else { Sent::Waiting }
    }

    /// Returns whether a chunk may join what waits. A single one always may: part of it may have left already, and whoever
    /// recovers would meet it again.
    fn fits(&self, chunk: &Chunk) -> bool {
        self.queue.is_empty() || self.bytes + chunk.bytes.len() <= self.limit
    }

    /// Drops queued events as the namespace says; `false` where nothing may be dropped.
    fn make_room(&mut self, chunk: &Chunk, overflow: Overflow) -> bool {
        let Some(room) = chunk.droppable else { return false };
        // The first chunk may be half written.
        let first = usize::from(self.written > 0);
        match overflow {
            Overflow::CloseAndRecover => false,
            Overflow::DropOldest => {
                while !self.fits(chunk) {
                    let oldest =
                        (first..self.queue.len()).find(|&index| self.queue[index].droppable.is_some());
                    let Some(removed) = oldest.and_then(|index| self.queue.remove(index)) else {
                        return false;
                    };
                    self.bytes -= removed.bytes.len();
                }
                true
            }
            Overflow::LatestOnly => {
                let mut index = first;
                while index < self.queue.len() {
                    if self.queue[index].droppable == Some(room)
                        && let Some(removed) = self.queue.remove(index)
                    {
                        self.bytes -= removed.bytes.len();
                    } else {
                        index += 1;
                    }
                }
                self.fits(chunk)
            }
        }
    }

    /// Drops what waits, but for the rest of a frame of which a part has left; after a last chunk nothing is taken any
    /// more.
    pub(crate) fn abandon(&mut self, last: Option<Chunk>) {
        if std::mem::replace(&mut self.abandoned, true) {
            return;
        }
        self.queue.truncate(usize::from(self.written > 0));
        self.queue.extend(last);
        self.bytes = self.queue.iter().map(|chunk| chunk.bytes.len()).sum();
    }

    /// Collects frames from now on, until [`Outbox::flush`]; `false` if it did already.
    pub(crate) fn cork(&mut self) -> bool {
        !std::mem::replace(&mut self.corked, true)
    }

    /// Writes what waits, as far as the socket takes it; `true` when nothing waits any more.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        self.corked = false;
        self.write()
    }

    fn write(&mut self) -> io::Result<bool> {
        let Sink::Socket(socket) = &self.sink else {
            return Ok(self.queue.is_empty());
        };
        while let Some(first) = self.queue.front() {
            let first = &first.bytes[self.written..];
            let written = if self.queue.len() == 1 {
                socket.try_write(first)
            } else {
                let mut slices: [IoSlice<'_>; BATCH] = std::array::from_fn(|_| IoSlice::new(&[]));
                slices[0] = IoSlice::new(first);
                let mut count = 1;
                for (slot, chunk) in slices[1..].iter_mut().zip(self.queue.iter().skip(1)) {
                    *slot = IoSlice::new(&chunk.bytes);
                    count += 1;
                }
                socket.try_write_vectored(&slices[..count])
            };
            let mut written = match written {
                Ok(written) => written + self.written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            self.written = 0;
            while let Some(first) = self.queue.front() {
                if written < first.bytes.len() {
                    self.written = written;
                    break;
                }
                written -= first.bytes.len();
                self.bytes -= first.bytes.len();
                metrics::left(first.accepted);
                self.queue.pop_front();
            }
        }
        // An idle connection keeps no buffer.
        self.queue = VecDeque::new();
        Ok(true)
    }

    /// Takes what waits, up to a number of bytes but at least one chunk with its attachments.
    pub(crate) fn take(&mut self, max: usize) -> Vec<Chunk> {
        let mut taken = Vec::new();
        let mut size = 0;
        while let Some(chunk) = self.queue.front() {
            if !taken.is_empty() && size + chunk.bytes.len() > max && !chunk.binary {
                break;
            }
            size += chunk.bytes.len();
            self.bytes -= chunk.bytes.len();
            metrics::left(chunk.accepted);
            taken.extend(self.queue.pop_front());
        }
        taken
    }

    /// Returns whether history of so many bytes may join what waits: half of the queue is for what comes live.
    pub(crate) fn has_room(&self, size: usize) -> bool {
        self.queue.is_empty() || self.bytes + size <= self.limit / 2
    }

    /// Returns the bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes
    }

    /// Returns whether something waits, or was dropped.
    pub(crate) fn is_waiting(&self) -> bool {
        self.abandoned || !self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(size: usize, room: u64) -> Chunk {
        let mut chunk = Chunk::text(&vec![b'x'; size]);
        chunk.droppable = Some(room);
        chunk
    }

    #[test]
    fn a_full_queue_closes_drops_the_oldest_or_keeps_the_latest() {
        let fill = |overflow| {
            let mut outbox = Outbox::new(Sink::Pull, 300);
            let sent: Vec<Sent> = [1, 2, 1, 1]
                .map(|room| outbox.push(chunk(90, room), overflow))
                .to_vec();
            assert!(outbox.waiting() <= 300);
            (
                sent,
                outbox
                    .take(usize::MAX)
                    .iter()
                    .map(|chunk| chunk.droppable.unwrap())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(fill(Overflow::CloseAndRecover).0[3], Sent::Overflow);
        assert_eq!(fill(Overflow::DropOldest).1, [2, 1, 1]);
        assert_eq!(fill(Overflow::LatestOnly).1, [2, 1]);
    }

    #[test]
    fn a_chunk_larger_than_the_queue_passes_alone() {
        for overflow in [
            Overflow::CloseAndRecover,
            Overflow::DropOldest,
            Overflow::LatestOnly,
        ] {
            let mut outbox = Outbox::new(Sink::Pull, 100);
            assert_eq!(outbox.push(chunk(500, 1), overflow), Sent::Waiting);
            outbox.push(chunk(600, 1), overflow);
            assert_eq!(outbox.take(usize::MAX).len(), 1, "never two");
        }
    }

    #[test]
    fn what_is_abandoned_ends_with_the_last_chunk() {
        let mut outbox = Outbox::new(Sink::Pull, 1000);
        outbox.push(chunk(10, 1), Overflow::CloseAndRecover);
        outbox.abandon(Some(chunk(20, 2)));
        outbox.push(chunk(30, 3), Overflow::CloseAndRecover);
        outbox.abandon(Some(chunk(40, 4)));
        assert_eq!(outbox.waiting(), chunk(20, 2).bytes.len());
        assert_eq!(outbox.take(usize::MAX).len(), 1);
        assert!(outbox.is_waiting(), "something was dropped");
    }

    #[test]
    fn what_is_taken_is_bounded_but_never_nothing() {
        let mut outbox = Outbox::new(Sink::Pull, 1000);
        for room in 0..4 {
            outbox.push(chunk(10, room), Overflow::CloseAndRecover);
        }
        assert_eq!(outbox.take(1).len(), 1);
        let rooms: Vec<u64> = outbox
            .take(usize::MAX)
            .iter()
            .filter_map(|chunk| chunk.droppable)
            .collect();
        assert_eq!(rooms, [1, 2, 3]);
        assert_eq!(outbox.waiting(), 0);
    }
}
