//! Presence after the death of an edge.

use std::time::{Duration, Instant};

use carillon_testkit::clients::{Driver, SioOptions};
use carillon_testkit::wait;
use serde_json::Value;

use crate::LIMIT;
use crate::crowd::Crowd;
use crate::load::{Load, Pace};
use crate::report::Report;
use crate::stage::{NatsKind, Service, Stage, user_token};

/// Twice what is promised: the machine may be busy with other tests.
const RIGHT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_right_soon_after_the_death_of_an_edge_and_others_never_notice() {
    let _turn = crate::alone().await;
    let stage = Stage::usual(NatsKind::One).await;
    let edges: Vec<_> = stage.of(Service::Edge).iter().map(|node| node.listen).collect();
    let rooms = ["lobby".to_owned()];
    let survivors = Crowd::gather(&stage, &edges[1..], 20, &rooms).await;
    let pace = Pace {
        shared: Duration::from_millis(100),
        personal: Duration::from_secs(1),
    };
    let load = Load::start(&stage, survivors.audience().keys(), pace).await;

    // 42 has a device at the edge that dies and one elsewhere, 43 only the former; neither comes back.
    let driver = Driver::start().await;
    let connect = async |edge: usize, user: &str| {
        let options = SioOptions::websocket(user_token(user)).with("reconnection", false.into());
        let client = driver.sio(format!("http://{}", edges[edge]), options);
        client.set_patience(LIMIT);
        let sid = client.connected().await.sid;
        (client, sid)
    };
    let _lost = [connect(0, "42").await, connect(0, "43").await];
    let (_kept, sid) = connect(1, "42").await;
    assert_eq!(
        settled(&stage, 2, LIMIT).await["connections"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );

    stage.edges[0].process.kill9();
    let dead = Instant::now();
    let user = settled(&stage, 1, RIGHT).await;
    assert_eq!(user["connections"][0]["sid"], sid, "{user}");
    assert_eq!(user["online"], true);
    wait::until("user 43 offline", RIGHT, async || {
        (stage.get("/v1/users/43").await["online"] == false).then_some(())
    })
    .await;
    println!(
        "presence was right {:?} after the SIGKILL of an edge",
        dead.elapsed()
    );

    let published = load.finish().await;
    let audience = survivors.audience();
    survivors
        .settle(
            published
                .iter()
                .map(|(room, last)| last * audience[room] as u64)
                .sum(),
        )
        .await;
    let mut report = Report::default();
    report.count(&survivors.ledger().await, &published);
    report.must_be_clean();
    assert_eq!(report.reconnects, 0, "{report}");
    survivors.leave().await;
}

/// What the router says of user 42, once it and `carillon who` both know as many connections as expected.
async fn settled(stage: &Stage, connections: usize, limit: Duration) -> Value {
    wait::until(
        format_args!("{connections} connections of user 42"),
        limit,
        async || {
            let user = stage.get("/v1/users/42").await;
            let listed = user["connections"].as_array().map(Vec::len) == Some(connections);
            if !listed {
                return None;
            }
            let text = stage.run(["who", "user:42"]).await;
            let who: Value = text.lines().find_map(|line| serde_json::from_str(line).ok())?;
            (who["count"] == connections && who["members"].as_array().map(Vec::len) == Some(connections))
                .then_some(user)
        },
    )
    .await
}
