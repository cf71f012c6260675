use carillon_testkit::clients::{Driver, FleetPlan, Kind, Member, SioOptions};
use serde_json::json;

use crate::{SOON, echo, history};

fn plan(url: &str, size: usize) -> FleetPlan {
    let member = |i| Member::new(format!("m{i}"), "good").join("join", json!(["room"]));
    FleetPlan {
        kind: Kind::Sio,
        urls: vec![url.to_owned()],
        options: SioOptions::new().transports(&["websocket"]),
        members: (0..size).map(member).collect(),
    }
}

#[tokio::test]
async fn a_fleet_counts_what_its_members_get() {
    let driver = Driver::start().await;
    let (_server, url) = echo::socket_io().await;
    let fleet = driver.fleet(plan(&url, 100));
    let status = fleet.all_connected(SOON).await;
    assert_eq!(status.transports.get("websocket"), Some(&100));

    let publisher = driver.sio(&url, SioOptions::websocket("good"));
    publisher.connected().await;
    publisher.emit("number", json!(["room", 1, 50]));
    fleet.emit_all("echo", json!([1]), SOON).await;
    fleet
        .wait("has its acknowledgements", SOON, |status| {
            status.acks.answered == 100
        })
        .await;
    // What is sent to a room before an answer of the same server arrives before it.
    publisher.emit_ack("echo", json!([])).await;
    fleet.reset_acks().await;
    fleet.emit_all("echo", json!([1]), SOON).await;
    fleet
        .wait("has its acknowledgements", SOON, |status| {
            status.acks.answered == 100
        })
        .await;

    let ledger = fleet.ledger().await;
    assert_eq!(ledger.len(), 100);
    for member in &ledger {
        assert!(member.streams["room"].is_exactly(1, 50), "{member:?}");
        assert_eq!((member.connects, member.unrecovered), (1, 0));
    }
}

#[tokio::test]
async fn a_ledger_tells_gaps_duplicates_and_disorder() {
    let driver = Driver::start().await;
    let (_server, url) = echo::socket_io().await;
    let fleet = driver.fleet(plan(&url, 1));
    fleet.all_connected(SOON).await;
    let publisher = driver.sio(&url, SioOptions::websocket("good"));
    publisher.connected().await;
    for (from, to) in [(5, 6), (9, 12), (7, 7), (12, 12)] {
        publisher.emit("number", json!(["room", from, to]));
    }
    publisher.emit_ack("echo", json!([])).await;
    fleet.emit_all("echo", json!([1]), SOON).await;
    fleet
        .wait("has its acknowledgement", SOON, |status| {
            status.acks.answered == 1
        })
        .await;

    let ledger = fleet.ledger().await;
    let stream = &ledger[0].streams["room"];
    assert_eq!((stream.first, stream.last, stream.count), (5, 12, 7));
    assert_eq!(stream.missing, [(8, 8)]);
    assert_eq!((stream.duplicates, stream.disordered), (1, 1));
    assert_eq!(stream.examples, ["7 after 12", "12 again after 12"]);
    assert!(!stream.is_exactly(5, 12));
    let trouble: Vec<&str> = ledger[0].trouble.iter().map(|one| one.text.as_str()).collect();
    assert_eq!(
        trouble,
        [
            "room: 9 after 6",
            "room: 7 late, after 12",
            "room: 12 again, after 12"
        ]
    );
    let watch = fleet.watch().await;
    assert_eq!((watch.received, watch.missing), (8, 1));
    assert_eq!((watch.duplicates, watch.disordered), (1, 1));

    fleet.close_all().await;
    fleet
        .wait("is closed", SOON, |status| status.connected == 0)
        .await;
}

#[tokio::test]
async fn a_websocket_fleet_resumes_from_where_it_had_caught_up() {
    let driver = Driver::start().await;
    let addr = history::server().await;
    let fleet = driver.fleet(FleetPlan {
        kind: Kind::Ws,
        urls: vec![format!("ws://{addr}/ws")],
        options: SioOptions::new(),
        members: vec![Member::new("one", "good").topic("room")],
    });
    let status = fleet
        .wait("has connected three times", SOON, |s| {
            s.connects == 3 && s.connected == 1
        })
        .await;
    assert_eq!((status.recovered, status.unrecovered), (2, 0), "{status:?}");

    let ledger = fleet.ledger().await;
    assert!(ledger[0].streams["room"].is_exactly(1, 30), "{ledger:?}");
    assert_eq!(ledger[0].reread, 10);
}
