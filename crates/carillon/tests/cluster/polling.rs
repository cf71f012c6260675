//! Stock Socket.IO clients behind a balancer that sends every single request to the next edge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use carillon_testkit::clients::{Driver, Fleet, FleetPlan, Kind, Member, SioOptions};
use carillon_testkit::proxy::RoundRobin;
use carillon_testkit::wait;
use futures_util::future::join_all;
use serde_json::json;

use crate::LIMIT;
use crate::load::{Load, Pace};
use crate::stage::{NatsKind, Stage, user_token};

/// Clients of each kind, unless `CARILLON_POLLING_CLIENTS` says otherwise.
const CLIENTS: usize = 40;
/// Sessions that have not moved for so long will not.
const SETTLED: Duration = Duration::from_secs(5);

fn fleet(driver: &Driver, url: String, kind: &str, transports: &[&str], count: usize) -> Fleet {
    let members = (0..count).map(|n| {
        let name = format!("{kind}{n}");
        Member::new(name.clone(), user_token(&name))
    });
    driver.fleet(FleetPlan {
        kind: Kind::Sio,
        urls: vec![url],
        options: SioOptions::new().transports(transports),
        members: members.collect(),
    })
}

/// Where each user of a fleet is connected; `None` until all are.
async fn edges(stage: &Stage, kind: &str, count: usize) -> Option<BTreeMap<String, String>> {
    let mut edges = BTreeMap::new();
    for numbers in (0..count).collect::<Vec<_>>().chunks(50) {
        let asked = numbers.iter().map(async |n| {
            let user = format!("{kind}{n}");
            let known = stage.get(&format!("/v1/users/{user}")).await;
            let connections = known["connections"].as_array()?;
            let [only] = &connections[..] else { return None };
            Some((user, only["edge"].as_str()?.to_owned()))
        });
        for one in join_all(asked).await {
            let (user, edge) = one?;
            edges.insert(user, edge);
        }
    }
    Some(edges)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_sticky_sessions_miss_nothing_when_an_edge_is_killed() {
    let _turn = crate::alone().await;
    let count = std::env::var("CARILLON_POLLING_CLIENTS")
        .map_or(CLIENTS, |count| count.parse().expect("a number of clients"));
    let stage = Stage::usual(NatsKind::One).await;
    let proxy = RoundRobin::start(stage.edges.iter().map(|node| node.listen)).await;
    let rooms = ["all".to_owned()];
    let pace = Pace {
        shared: Duration::from_millis(100),
        personal: Duration::from_secs(1),
    };
    // The events fall into the connects, the upgrades and the moves.
    let load = Load::start(&stage, &rooms, pace).await;
    let driver = Driver::start().await;
    let polling = fleet(&driver, proxy.url(), "p", &["polling"], count);
    let changing = fleet(&driver, proxy.url(), "w", &["polling", "websocket"], count);
    let begun = Instant::now();
    tokio::join!(polling.all_connected(LIMIT), changing.all_connected(LIMIT));
    let upgraded = |status: &carillon_testkit::clients::Status| status.upgrades == status.members;
    changing.wait("has upgraded", LIMIT, upgraded).await;
    println!(
        "{count} polling and {count} upgraded clients after {:?}",
        begun.elapsed()
    );
    for fleet in [&polling, &changing] {
        fleet
            .emit_all("join", json!(["lobby"]), Duration::from_secs(20))
            .await;
        let all = |status: &carillon_testkit::clients::Status| status.acks.answered == status.members;
        let status = fleet.wait("has its acknowledgements", LIMIT, all).await;
        assert!(status.errors.is_empty(), "{status:?}");
        assert_eq!(status.connects, count, "{status:?}");
    }
    // Once nothing is under way, the upgraded ones move to the edges that have their sockets.
    let mut last_seen = (Instant::now(), None);
    let before = wait::until("every session at its socket", LIMIT, async || {
        let now = edges(&stage, "w", count).await;
        if now.is_none() || now != last_seen.1 {
            last_seen = (Instant::now(), now);
            return None;
        }
        (last_seen.0.elapsed() > SETTLED).then_some(now).flatten()
    })
    .await;

    stage.edges[0].process.kill9();
    let killed = Instant::now();
    let connected = |status: &carillon_testkit::clients::Status| {
        status.connected == status.members && status.connects > status.members
    };
    tokio::join!(
        polling.wait("is back", LIMIT, connected),
        changing.wait("is back", LIMIT, connected)
    );
    let alive: BTreeSet<String> = wait::until("every client at an edge that lives", LIMIT, async || {
        let after = edges(&stage, "w", count).await?;
        let alive: BTreeSet<String> = after.into_values().collect();
        (alive.len() == 2).then_some(alive)
    })
    .await;
    println!(
        "nobody was at the dead edge {:?} after its SIGKILL",
        killed.elapsed()
    );
    let published = load.finish().await;
    let last = i64::try_from(published["all"]).expect("few events");
    for (name, fleet) in [("polling", &polling), ("upgraded", &changing)] {
        wait::until(
            format_args!("the last event at the {name} clients"),
            LIMIT,
            async || {
                let ledger = fleet.ledger().await;
                let done = ledger
                    .iter()
                    .all(|one| one.streams.get("all").is_some_and(|stream| stream.last >= last));
                done.then_some(())
            },
        )
        .await;
        let ledger = fleet.ledger().await;
        for one in &ledger {
            let stream = &one.streams["all"];
            assert!(stream.is_exactly(stream.first, last), "{}: {stream:?}", one.name);
            assert_eq!(one.unrecovered, 0, "{}", one.name);
        }
        let back = ledger.iter().filter(|one| one.connects > 1).count();
        println!("{name}: {back} of {count} had to connect again, {last} events each exactly once");
        if name == "upgraded" {
            // Who was at another edge has not noticed anything; the others may meet the dead one again on their way.
            for one in &ledger {
                let stayed = alive.contains(&before[&one.name]);
                assert_eq!(
                    one.connects == 1,
                    stayed,
                    "{} at {}: {} connects",
                    one.name,
                    before[&one.name],
                    one.connects
                );
            }
        }
    }
}
