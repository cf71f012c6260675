//! A new version goes out: every edge is told to stop in turn, under load.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_testkit::http;
use tokio_util::sync::CancellationToken;

use crate::LIMIT;
use crate::crowd::Crowd;
use crate::load::{Load, Pace};
use crate::report::{self, Report};
use crate::stage::{EDGE, NatsKind, Node, Service, Stage, USUAL};

/// How often the edges are asked how many connections they have accepted.
const LOOK: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// What can be set.
struct Size {
    clients: usize,
    accept_rate: u64,
    pace: Pace,
}

impl Size {
    fn of_environment() -> Self {
        let set = |name: &str, usual: u64| {
            std::env::var(format!("CARILLON_ROLLING_{name}")).map_or(usual, |text| {
                text.parse()
                    .unwrap_or_else(|e| panic!("CARILLON_ROLLING_{name}: {text}: {e}"))
            })
        };
        Self {
            clients: set("CLIENTS", 40) as usize,
            accept_rate: set("ACCEPT_RATE", 200),
            pace: Pace {
                shared: Duration::from_millis(set("SHARED_MS", 200)),
                personal: Duration::from_millis(set("PERSONAL_MS", 1000)),
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_edges_loses_nothing_and_no_session() {
    let _turn = crate::alone().await;
    let size = Size::of_environment();
    let settings = format!("{EDGE}accept_rate = {}\n", size.accept_rate);
    let mut stage = Stage::with(NatsKind::One, USUAL, &settings).await;
    let edges: Vec<_> = stage.of(Service::Edge).iter().map(|node| node.listen).collect();
    let rooms = ["lobby".to_owned(), "news".to_owned()];
    let crowd = Crowd::gather(&stage, &edges, size.clients, &rooms).await;
    let load = Load::start(&stage, crowd.audience().keys(), size.pace).await;
    let door = Door::watch(stage.of(Service::Edge));
    let begun = Instant::now();

    let mut report = Report {
        nats_servers: 1,
        clients: size.clients,
        ..Report::default()
    };
    let mut longest_stop = Duration::ZERO;
    for node in stage.of_mut(Service::Edge) {
        let told = Instant::now();
        assert!(
            node.terminate().await,
            "{} did not end with code 0\n{}",
            node.name,
            node.process.log().tail()
        );
        longest_stop = longest_stop.max(told.elapsed());
        node.process.restart();
        assert!(node.is_ready(LIMIT).await, "{} is not ready again", node.name);
        crowd
            .is_connected(LIMIT)
            .await
            .unwrap_or_else(|status| panic!("not all clients returned: {status}"));
    }
    report.seconds = begun.elapsed().as_secs();

    let published = load.finish().await;
    let audience = crowd.audience();
    crowd
        .settle(
            published
                .iter()
                .map(|(room, last)| last * audience[room] as u64)
                .sum(),
        )
        .await;
    report.count(&crowd.ledger().await, &published);
    let highest = door.highest().await;
    report.more = [
        ("most accepted by an edge in a second".to_owned(), highest),
        ("the limit".to_owned(), size.accept_rate),
        (
            "longest stop of an edge, ms".to_owned(),
            longest_stop.as_millis() as u64,
        ),
    ]
    .into();
    if highest > size.accept_rate {
        report
            .problems
            .push("an edge accepted more than its limit".to_owned());
    }
    println!("{report}");
    let folder = report::folder("rolling");
    report.write(&folder);
    stage.write_logs(&folder);
    report.must_be_clean();
    // Each client was at each edge's stop once at most, and a third of them at each.
    assert!(report.reconnects >= size.clients as u64, "{report}");
    assert_eq!(report.unrecovered, 0, "{report}");
    crowd.leave().await;
}

/// Counts what the edges accept, by the second.
struct Door {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<u64>,
}

impl Door {
    fn watch(edges: &[Node]) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let edges: Arc<[SocketAddr]> = edges.iter().map(|node| node.admin).collect();
        let task = tokio::spawn(async move {
            let (http, mut highest) = (http::client(), 0.0_f64);
            let mut seen: BTreeMap<SocketAddr, VecDeque<(Instant, f64)>> = BTreeMap::new();
            let mut tick = tokio::time::interval(LOOK);
            while stopped.run_until_cancelled(tick.tick()).await.is_some() {
                for &edge in edges.iter() {
                    let begun = Instant::now();
                    let Some(accepted) = accepted(&http, edge).await else {
                        continue;
                    };
                    let samples = seen.entry(edge).or_default();
                    if samples.back().is_some_and(|(_, last)| *last > accepted) {
                        // It was restarted.
                        samples.clear();
                    }
                    samples.push_back((begun, accepted));
                    // From the begin of one request to the end of another lies more time than between the answers.
                    while samples.front().is_some_and(|(at, _)| at.elapsed() > SECOND) {
                        samples.pop_front();
                    }
                    if let Some((_, first)) = samples.front() {
                        highest = highest.max(accepted - first);
                    }
                }
            }
            highest as u64
        });
        Self { stop, task }
    }

    /// The most that any of them accepted in a second.
    async fn highest(self) -> u64 {
        self.stop.cancel();
        self.task
            .await
            .unwrap_or_else(|e| panic!("the watch over the edges: {e}"))
    }
}

/// How many connections an edge has accepted, while it answers.
async fn accepted(http: &http::Client, admin: SocketAddr) -> Option<f64> {
    let url = format!("http://{admin}/metrics");
    let text = http.get(url).send().await.ok()?.text().await.ok()?;
    let samples = text
        .lines()
        .filter(|line| line.starts_with("ws_connections_accepted_total{"));
    let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Some(values.sum())
}
