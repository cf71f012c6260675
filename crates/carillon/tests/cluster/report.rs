//! What a run counted, as JSON for machines and as text for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use carillon_testkit::clients::Ledger;
use serde::Serialize;

/// Troubles that are written out.
const SHOWN: usize = 60;

/// The figures of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) nats_servers: usize,
    pub(crate) clients: usize,
    pub(crate) seconds: u64,
    /// Events that were acknowledged.
    pub(crate) published: u64,
    /// Publishes that were tried again.
    pub(crate) retries: u64,
    /// Deliveries that the acknowledged events make.
    pub(crate) expected: u64,
    /// Different events that came, over all clients.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) disordered: u64,
    /// Events that came although nobody was told that they are stored; none can be.
    pub(crate) unknown: u64,
    pub(crate) longest_silence_ms: u64,
    pub(crate) reconnects: u64,
    pub(crate) recovered: u64,
    pub(crate) unrecovered: u64,
    /// Read a second time by a client whose resume was interrupted, as it had asked.
    pub(crate) reread: u64,
    /// What only one of the tests counts.
    pub(crate) more: BTreeMap<String, u64>,
    pub(crate) faults: BTreeMap<String, Row>,
    pub(crate) timeline: Vec<Moment>,
    /// What was not as it should be, beside the events.
    pub(crate) problems: Vec<String>,
    pub(crate) trouble: Vec<String>,
}

/// One kind of fault.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) times: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) disordered: u64,
    pub(crate) reconnects: u64,
    pub(crate) longest_silence_ms: u64,
    pub(crate) longest_wait_for_ack_ms: u64,
    /// From the moment that the victim was back until everything was ready and everybody connected.
    pub(crate) longest_return_ms: u64,
}

/// A step of the schedule.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Moment {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) what: String,
}

impl Report {
    /// Adds up the ledgers against the last number published in each room.
    pub(crate) fn count(&mut self, ledgers: &[Ledger], published: &BTreeMap<String, u64>) {
        self.published = published.values().sum();
        for ledger in ledgers {
            let own = format!("user:{}", ledger.name);
            let heard = published
                .iter()
                .filter(|(room, _)| !room.starts_with("user:") || **room == own);
            for (room, &last) in heard {
                self.expected += last;
                let Some(stream) = ledger.streams.get(room) else {
                    self.lost += last;
                    if last > 0 {
                        self.trouble
                            .push(format!("{}: {room}: nothing of {last} came", ledger.name));
                    }
                    continue;
                };
                self.delivered += stream.count;
                self.duplicated += stream.duplicates;
                self.disordered += stream.disordered;
                let above = u64::try_from(stream.last).unwrap_or(0).saturating_sub(last);
                self.unknown += above;
                let lost = (last + above).saturating_sub(stream.count);
                self.lost += lost;
                if lost > 0 {
                    self.trouble.push(format!(
                        "{}: {room}: {lost} of {last} never came: before {}, {:?}, after {}",
                        ledger.name, stream.first, stream.missing, stream.last
                    ));
                }
            }
            self.reconnects += ledger.connects.saturating_sub(1);
            self.recovered += ledger.recovered;
            self.unrecovered += ledger.unrecovered;
            self.reread += ledger.reread;
            self.longest_silence_ms = self.longest_silence_ms.max(ledger.longest_silence_ms);
            for one in &ledger.trouble {
                self.trouble
                    .push(format!("{} {}: {}", one.at, ledger.name, one.text));
            }
        }
    }

    /// Panics unless every event came to everybody once and in order.
    pub(crate) fn must_be_clean(&self) {
        assert!(self.delivered > 0, "nothing was delivered\n{self}");
        let wrong = [self.lost, self.duplicated, self.disordered, self.unknown];
        assert!(wrong == [0; 4] && self.problems.is_empty(), "{self}");
    }

    /// Writes both forms into a folder.
    pub(crate) fn write(&self, folder: &Path) {
        let json = serde_json::to_string_pretty(self).unwrap_or_else(|e| panic!("a report is JSON: {e}"));
        for (name, text) in [("report.json", json), ("report.txt", self.to_string())] {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        }
    }
}

/// Where the report and the logs of a run go.
pub(crate) fn folder(run: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster").join(run);
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("cannot create {}: {e}", folder.display()));
    folder
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} clients, {} nats-server(s), {} s, seed {}",
            self.clients, self.nats_servers, self.seconds, self.seed
        )?;
        for (name, value) in [
            ("published and acknowledged", self.published),
            ("tried again by the publishers", self.retries),
            ("deliveries expected", self.expected),
            ("delivered", self.delivered),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("out of order", self.disordered),
            ("never acknowledged, yet delivered", self.unknown),
            ("reconnects", self.reconnects),
            ("  that recovered", self.recovered),
            ("  that did not", self.unrecovered),
            ("read again after a broken resume", self.reread),
            ("longest silence of a client, ms", self.longest_silence_ms),
        ] {
            writeln!(f, "{name:<36}{value:>10}")?;
        }
        for (name, value) in &self.more {
            writeln!(f, "{name:<36}{value:>10}")?;
        }
        let head = [
            "times", "lost", "dup", "order", "reconn", "silence", "ack", "return",
        ];
        if !self.faults.is_empty() {
            writeln!(f, "\n{:<26}{}", "fault", columns(head))?;
        }
        for (name, row) in &self.faults {
            let Row {
                times,
                lost,
                duplicated,
                disordered,
                reconnects,
                longest_silence_ms: silence,
                longest_wait_for_ack_ms: ack,
                longest_return_ms: back,
            } = row;
            let cells = [
                times, lost, duplicated, disordered, reconnects, silence, ack, back,
            ];
            writeln!(f, "{name:<26}{}", columns(cells))?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        for trouble in self.trouble.iter().take(SHOWN) {
            writeln!(f, "{trouble}")?;
        }
        if !self.trouble.is_empty() {
            writeln!(
                f,
                "{} of {} troubles shown",
                self.trouble.len().min(SHOWN),
                self.trouble.len()
            )?;
            for moment in &self.timeline {
                writeln!(f, "{} {}", moment.at, moment.what)?;
            }
        }
        Ok(())
    }
}

fn columns<T: fmt::Display>(cells: [T; 8]) -> String {
    cells.iter().fold(String::new(), |mut line, cell| {
        let _ = write!(line, "{cell:>9}");
        line
    })
}
