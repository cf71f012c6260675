//! Nothing is lost, repeated or disordered while everything is killed in turn.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::crowd::{Count, Crowd};
use crate::fault::{Fault, Step};
use crate::load::{Load, Pace};
use crate::report::{self, Moment, Report, Row};
use crate::schedule::{self, Schedule};
use crate::stage::{NatsKind, Stage};

/// Within this time after a fault everything is as before it, even on a busy machine.
const RETURN: Duration = Duration::from_secs(120);

/// A run.
struct Plan {
    name: &'static str,
    nats: NatsKind,
    clients: usize,
    pace: Pace,
    kinds: Vec<Fault>,
    /// From one fault to the next, unless the cluster needs longer to return.
    every: Duration,
    /// How long it lasts; without, each kind comes once.
    length: Option<Duration>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_one_nats_server() {
    let short = Plan {
        name: "one",
        nats: NatsKind::One,
        clients: 60,
        pace: Pace {
            shared: Duration::from_millis(250),
            personal: Duration::from_secs(2),
        },
        kinds: schedule::few(NatsKind::One),
        every: Duration::from_secs(5),
        length: None,
    };
    short.or_long().run().await.must_be_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_three_nats_servers() {
    let short = Plan {
        name: "three",
        nats: NatsKind::Three,
        clients: 30,
        pace: Pace {
            shared: Duration::from_millis(250),
            personal: Duration::from_secs(2),
        },
        kinds: schedule::leader_and_edge(),
        every: Duration::from_secs(5),
        length: None,
    };
    short.or_long().run().await.must_be_clean();
}

impl Plan {
    /// What the environment asks for.
    fn or_long(self) -> Self {
        let clients = variable("CARILLON_CHAOS_CLIENTS");
        let Some(minutes) = variable::<f64>("CARILLON_CHAOS_MINUTES") else {
            return Self {
                clients: clients.unwrap_or(self.clients),
                ..self
            };
        };
        Self {
            clients: clients.unwrap_or(300),
            pace: Pace {
                shared: Duration::from_millis(250),
                personal: Duration::from_secs(2),
            },
            kinds: schedule::all(self.nats),
            every: Duration::from_secs(10),
            length: Some(Duration::from_secs_f64(minutes * 60.0)),
            ..self
        }
    }

    async fn run(self) -> Report {
        let _turn = crate::alone().await;
        let seed = variable("CARILLON_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
        println!("CARILLON_CHAOS_SEED={seed} repeats this schedule");
        let folder = report::folder(self.name);
        let mut stage = Stage::usual(self.nats).await;
        let rooms: Vec<String> = ["lobby", "news", "case:7"].map(str::to_owned).to_vec();
        let edges: Vec<_> = stage
            .of(crate::stage::Service::Edge)
            .iter()
            .map(|node| node.listen)
            .collect();
        let crowd = Crowd::gather(&stage, &edges, self.clients, &rooms).await;
        let load = Load::start(&stage, crowd.audience().keys(), self.pace).await;
        let mut run = Run {
            report: Report {
                seed,
                clients: self.clients,
                nats_servers: if self.nats == NatsKind::One { 1 } else { 3 },
                ..Report::default()
            },
            last: crowd.count().await,
            connects: 0,
        };
        let begun = Instant::now();
        let mut next = tokio::time::Instant::now() + self.every;
        let (mut steps, mut left) = (Schedule::new(seed, self.kinds.clone()), self.kinds.len());
        loop {
            tokio::time::sleep_until(next).await;
            next = (next + self.every).max(tokio::time::Instant::now());
            let ended = match self.length {
                Some(length) => begun.elapsed() >= length,
                None => left == 0,
            };
            let Some(step) = steps.next().filter(|_| !ended) else {
                break;
            };
            left = left.saturating_sub(1);
            if !run.step(&step, &mut stage, &crowd, &load).await {
                break;
            }
        }
        let retries = load.figures().retries();
        let published = load.finish().await;
        run.note("the publishers have ended");
        let audience = crowd.audience();
        let expected = published
            .iter()
            .map(|(room, last)| last * audience[room] as u64)
            .sum();
        crowd.settle(expected).await;
        let mut report = run.report;
        (report.seconds, report.retries) = (begun.elapsed().as_secs(), retries);
        report.count(&crowd.ledger().await, &published);
        report.write(&folder);
        stage.write_logs(&folder);
        println!("{report}\nwritten to {}", folder.display());
        crowd.leave().await;
        report
    }
}

/// A run that goes on.
struct Run {
    report: Report,
    last: Count,
    connects: u64,
}

impl Run {
    /// Strikes once and waits until everything has returned; `false` where it does not.
    async fn step(&mut self, step: &Step, stage: &mut Stage, crowd: &Crowd, load: &Load) -> bool {
        let name = step.fault.to_string();
        load.figures().take_longest_wait();
        self.note(&format!("{name} ({}), away {:?}", step.index, step.away));
        if let Err(problem) = step.strike(stage).await {
            self.report.problems.push(format!("{name}: {problem}"));
        }
        self.note("back");
        let back = Instant::now();
        let late = stage.late(RETURN).await;
        let connected = crowd.is_connected(RETURN).await;
        if !stage.has_settled(RETURN).await {
            let problem = format!("after {name} not all edges looked at what publishers doubted");
            self.report.problems.push(problem);
        }
        let count = crowd.count().await;
        self.note(&format!(
            "as before; silent for longest: {} for {} ms",
            count.quietest, count.silence_ms
        ));
        let connects = crowd
            .status()
            .await
            .iter()
            .map(|status| status.connects as u64)
            .sum();
        let row = self.report.faults.entry(name.clone()).or_default();
        row.add(&self.last, &count);
        row.reconnects += connects - self.connects.max(self.report.clients as u64);
        row.longest_return_ms = row.longest_return_ms.max(back.elapsed().as_millis() as u64);
        row.longest_wait_for_ack_ms = row
            .longest_wait_for_ack_ms
            .max(load.figures().take_longest_wait());
        (self.last, self.connects) = (count, connects);
        if !late.is_empty() {
            self.report
                .problems
                .push(format!("after {name} not ready: {}", late.join(", ")));
        }
        if let Err(status) = &connected {
            self.report
                .problems
                .push(format!("after {name} not all clients returned: {status}"));
        }
        late.is_empty() && connected.is_ok()
    }

    fn note(&mut self, what: &str) {
        println!("{what}");
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        self.report.timeline.push(Moment {
            at: since.map_or(0, |since| since.as_millis() as u64),
            what: what.to_owned(),
        });
    }
}

impl Row {
    fn add(&mut self, before: &Count, after: &Count) {
        self.times += 1;
        self.lost += after.missing.saturating_sub(before.missing);
        self.duplicated += after.duplicates - before.duplicates;
        self.disordered += after.disordered - before.disordered;
        self.longest_silence_ms = self.longest_silence_ms.max(after.silence_ms);
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: {text:?} is not a number")),
    )
}
