//! What waits to be stored: in order within a room, side by side between rooms.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// An event that waits, with the rooms it goes to.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) value: T,
    /// Each room once.
    pub(crate) rooms: Vec<Arc<str>>,
    pub(crate) bytes: usize,
    /// What names the event in a room; two of the same cannot stand in one batch.
    pub(crate) once: Option<Arc<str>>,
}

/// Entries that are stored together: either one for a list of rooms, or several for the same room.
#[derive(Debug)]
pub(crate) struct Job<T> {
    pub(crate) entries: Vec<Entry<T>>,
    load: Load,
}

/// What a job holds of the queue's bounds and rooms until it is finished.
#[derive(Debug)]
pub(crate) struct Load {
    rooms: Vec<Arc<str>>,
    copies: usize,
    bytes: usize,
}

/// Bounds of a queue and of one job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) copies: usize,
    pub(crate) bytes: usize,
    pub(crate) job_entries: usize,
    pub(crate) job_bytes: usize,
}

/// Entries by room. At most one job of a room is out at a time.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    bounds: Bounds,
    lines: HashMap<Arc<str>, Line>,
    waiting: HashMap<u64, Waiting<T>>,
    ready: VecDeque<Ready>,
    next: u64,
    copies: usize,
    bytes: usize,
}

/// What waits for one room. A line exists as long as it is busy or not empty.
#[derive(Debug, Default)]
struct Line {
    entries: VecDeque<u64>,
    /// A job is out or ready, or the list at the front waits for its other rooms.
    busy: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    entry: Entry<T>,
    /// Rooms in which another entry comes first.
    behind: usize,
}

#[derive(Debug)]
enum Ready {
    Room(Arc<str>),
    List(u64),
}

impl<T> Job<T> {
    /// Splits the entries from what [`Queue::finish`] wants back.
    pub(crate) fn split(self) -> (Vec<Entry<T>>, Load) {
        (self.entries, self.load)
    }
}

impl<T> Queue<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            lines: HashMap::new(),
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            next: 0,
            copies: 0,
            bytes: 0,
        }
    }

    /// Returns whether nothing more should be taken in until a job is finished.
    pub(crate) fn is_full(&self) -> bool {
        self.copies >= self.bounds.copies || self.bytes >= self.bounds.bytes
    }

    /// Puts an entry behind everything that waits for its rooms.
    pub(crate) fn push(&mut self, entry: Entry<T>) {
        let id = self.next;
        self.next += 1;
        self.copies += entry.rooms.len();
        self.bytes += entry.bytes;
        let rooms = entry.rooms.clone();
        self.waiting.insert(
            id,
            Waiting {
                entry,
                behind: rooms.len(),
            },
        );
        for room in rooms {
            let line = self.lines.entry(Arc::clone(&room)).or_default();
            line.entries.push_back(id);
            if !line.busy {
                self.advance(room);
            }
        }
    }

    /// Takes what can be stored now.
    pub(crate) fn take(&mut self) -> Option<Job<T>> {
        let entries = match self.ready.pop_front()? {
            Ready::List(id) => {
                let entry = self.waiting.remove(&id).expect("a ready list waits").entry;
                for room in &entry.rooms {
                    if let Some(line) = self.lines.get_mut(room) {
                        line.entries.pop_front();
                    }
                }
                vec![entry]
            }
            Ready::Room(room) => self.run(&room),
        };
        let rooms = if entries.len() == 1 {
            entries[0].rooms.clone()
        } else {
            vec![Arc::clone(&entries[0].rooms[0])]
        };
        let load = Load {
            rooms,
            copies: entries.iter().map(|entry| entry.rooms.len()).sum(),
            bytes: entries.iter().map(|entry| entry.bytes).sum(),
        };
        Some(Job { entries, load })
    }

    /// Frees the rooms of a job for what waits behind it.
    pub(crate) fn finish(&mut self, load: Load) {
        self.copies -= load.copies;
        self.bytes -= load.bytes;
        for room in load.rooms {
            if let Some(line) = self.lines.get_mut(&room) {
                line.busy = false;
                self.advance(room);
            }
        }
    }

    /// Looks at the front of a room that is not busy.
    fn advance(&mut self, room: Arc<str>) {
        let Some(line) = self.lines.get_mut(&room) else {
            return;
        };
        let Some(&front) = line.entries.front() else {
            self.lines.remove(&room);
            return;
        };
        line.busy = true;
        let waiting = self.waiting.get_mut(&front).expect("an entry in a line waits");
        if waiting.entry.rooms.len() == 1 {
            self.ready.push_back(Ready::Room(room));
            return;
        }
        // Only this list can be next here, so the room is kept for it until it is at the front everywhere.
        waiting.behind -= 1;
        if waiting.behind == 0 {
            self.ready.push_back(Ready::List(front));
        }
    }

    /// Takes the run of single entries at the front of a room.
    fn run(&mut self, room: &str) -> Vec<Entry<T>> {
        let line = self.lines.get_mut(room).expect("a ready room has a line");
        let mut entries: Vec<Entry<T>> = Vec::new();
        let mut names = HashSet::new();
        let mut bytes = 0;
        while let Some(&front) = line.entries.front() {
            let entry = &self.waiting.get(&front).expect("an entry in a line waits").entry;
            let fits =
                entries.len() < self.bounds.job_entries && bytes + entry.bytes <= self.bounds.job_bytes;
            let again = entry.once.as_ref().is_some_and(|once| names.contains(once));
            if entry.rooms.len() > 1 || (!entries.is_empty() && (!fits || again)) {
                break;
            }
            bytes += entry.bytes;
            names.extend(entry.once.clone());
            line.entries.pop_front();
            entries.extend(self.waiting.remove(&front).map(|waiting| waiting.entry));
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        copies: 10,
        bytes: 1000,
        job_entries: 3,
        job_bytes: 100,
    };

    fn entry(value: u32, rooms: &[&str]) -> Entry<u32> {
        Entry {
            value,
            rooms: rooms.iter().map(|&room| room.into()).collect(),
            bytes: 10,
            once: None,
        }
    }

    fn values(job: &Job<u32>) -> Vec<u32> {
        job.entries.iter().map(|entry| entry.value).collect()
    }

    fn finish(queue: &mut Queue<u32>, job: Job<u32>) {
        let (_, load) = job.split();
        queue.finish(load);
    }

    #[test]
    fn what_waits_for_a_room_goes_together_once_it_is_free() {
        let mut queue = Queue::new(BOUNDS);
        queue.push(entry(1, &["a"]));
        let first = queue.take().unwrap();
        assert_eq!(values(&first), [1]);
        for value in 2..=6 {
            queue.push(entry(value, &["a"]));
        }
        queue.push(entry(7, &["b"]));
        assert_eq!(values(&queue.take().unwrap()), [7], "another room does not wait");
        assert!(queue.take().is_none());
        finish(&mut queue, first);
        let second = queue.take().unwrap();
        assert_eq!(values(&second), [2, 3, 4], "at most three in a job");
        finish(&mut queue, second);
        assert_eq!(values(&queue.take().unwrap()), [5, 6]);
    }

    #[test]
    fn a_list_waits_for_all_its_rooms_and_holds_what_comes_behind() {
        let mut queue = Queue::new(BOUNDS);
        queue.push(entry(1, &["a"]));
        let first = queue.take().unwrap();
        queue.push(entry(2, &["a", "b"]));
        queue.push(entry(3, &["b"]));
        queue.push(entry(4, &["c"]));
        assert_eq!(values(&queue.take().unwrap()), [4]);
        assert!(queue.take().is_none());
        finish(&mut queue, first);
        let list = queue.take().unwrap();
        assert_eq!(values(&list), [2]);
        assert!(queue.take().is_none());
        finish(&mut queue, list);
        assert_eq!(values(&queue.take().unwrap()), [3]);
    }

    #[test]
    fn crossing_lists_do_not_block_each_other_for_ever() {
        let mut queue = Queue::new(BOUNDS);
        queue.push(entry(1, &["a", "b"]));
        queue.push(entry(2, &["b", "c"]));
        queue.push(entry(3, &["c", "a"]));
        for value in 1..=3 {
            let job = queue.take().unwrap();
            assert_eq!(values(&job), [value]);
            finish(&mut queue, job);
        }
        assert!(queue.lines.is_empty() && queue.waiting.is_empty());
    }

    #[test]
    fn the_same_name_twice_makes_two_jobs() {
        let mut queue = Queue::new(BOUNDS);
        for value in 1..=2 {
            queue.push(Entry {
                once: Some("x".into()),
                ..entry(value, &["a"])
            });
        }
        let job = queue.take().unwrap();
        assert_eq!(values(&job), [1]);
        finish(&mut queue, job);
        assert_eq!(values(&queue.take().unwrap()), [2]);
    }

    #[test]
    fn bounds_count_what_is_out_too() {
        let mut queue = Queue::new(BOUNDS);
        queue.push(entry(1, &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]));
        let job = queue.take().unwrap();
        assert!(queue.is_full());
        finish(&mut queue, job);
        assert!(!queue.is_full() && queue.lines.is_empty());
        queue.push(Entry {
            bytes: 5000,
            ..entry(1, &["a"])
        });
        assert!(queue.is_full());
        assert_eq!(
            values(&queue.take().unwrap()),
            [1],
            "one entry may be larger than a job"
        );
    }

    #[test]
    fn any_schedule_keeps_the_order_of_each_room() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut queue = Queue::new(Bounds {
                copies: 1000,
                bytes: 100_000,
                ..BOUNDS
            });
            let mut seen: HashMap<Arc<str>, u32> = HashMap::new();
            let mut out = Vec::new();
            let (mut pushed, mut stored) = (0, 0);
            while stored < 300 {
                match random.u8(..3) {
                    0 if pushed < 300 => {
                        pushed += 1;
                        let mut rooms = vec!["a", "b", "c", "d"];
                        random.shuffle(&mut rooms);
                        let count = if random.bool() { 1 } else { random.usize(1..=4) };
                        queue.push(entry(pushed, &rooms[..count]));
                    }
                    1 => out.extend(queue.take()),
                    _ if !out.is_empty() => {
                        let job: Job<u32> = out.swap_remove(random.usize(..out.len()));
                        for entry in &job.entries {
                            stored += 1;
                            for room in &entry.rooms {
                                let last = seen.insert(Arc::clone(room), entry.value).unwrap_or(0);
                                assert!(last < entry.value, "seed {seed}");
                            }
                        }
                        finish(&mut queue, job);
                    }
                    _ => {}
                }
            }
            assert!(
                queue.lines.is_empty() && queue.waiting.is_empty() && queue.copies == 0 && queue.bytes == 0
            );
        }
    }
}
