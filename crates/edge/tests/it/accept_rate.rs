use std::time::{Duration, Instant};

use carillon_testkit::clients::{FleetPlan, Kind, Member, SioOptions};
use carillon_testkit::{http, tokens};

use crate::stage::{PATIENCE, Plan, Stage};

fn plan(accept_rate: u32) -> Plan {
    let mut plan = Plan::default();
    plan.edge.accept_rate = accept_rate;
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_rate_new_sessions_of_every_transport_are_told_when_to_come_back() {
    let stage = Stage::with(plan(3)).await;
    let edge = stage.edge().await;
    let client = http::client();
    let token = tokens::dev("42");
    let polling = format!("{}/socket.io/?EIO=4&transport=polling", edge.url());
    let sse = format!("{}/sse?token={token}", edge.url());
    let ws = format!("{}/ws?token={token}", edge.url());
    let begun = Instant::now();
    let (mut accepted, mut refused) = (0, 0);
    for url in [&polling, &polling, &polling, &polling, &sse, &ws, &polling] {
        let request = client
            .get(url)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
        let response = request.send().await.unwrap();
        match response.status().as_u16() {
            200 => accepted += 1,
            503 => {
                let seconds = response.headers()["retry-after"].to_str().unwrap();
                assert!((1..=30).contains(&seconds.parse::<u32>().unwrap()), "{seconds}");
                refused += 1;
            }
            other => panic!("{url}: status {other}"),
        }
    }
    // On a machine that stands still for that long the next second has begun.
    if begun.elapsed() < Duration::from_secs(1) {
        assert_eq!((accepted, refused), (3, 4));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_get_in_one_after_the_other() {
    let stage = Stage::with(plan(10)).await;
    let edge = stage.edge().await;
    let begun = Instant::now();
    let members = (0..40).map(|n| Member::new(format!("m{n}"), tokens::dev(&format!("m{n}"))));
    let fleet = stage.driver.fleet(FleetPlan {
        kind: Kind::Sio,
        urls: vec![edge.url()],
        options: SioOptions::new().transports(&["websocket"]),
        members: members.collect(),
    });
    let status = fleet.all_connected(PATIENCE).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(2900),
        "four times the rate"
    );
    assert!(!status.errors.is_empty(), "some were refused first: {status:?}");
}
