use std::time::Duration;

use carillon_bus::Bucket;
use carillon_protocol::session::Lease;
use carillon_testkit::clients::{FleetPlan, Kind, Member, SioOptions};
use carillon_testkit::proxy::RoundRobin;
use carillon_testkit::{tokens, wait};
use serde_json::json;

use crate::stage::{Edge, PATIENCE, Plan, Stage};

const CLIENTS: usize = 300;

fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.session.renewal = Duration::from_millis(100);
    plan.edge.rebalance_rate = 100;
    plan
}

impl Stage {
    /// What an edge tells the others.
    async fn lease(&self, edge: &Edge) -> Lease {
        wait::until("the edge's lease", PATIENCE, async || {
            let leases = self.bus.table(Bucket::Edges).entries().await.ok()?;
            let mut leases = leases
                .iter()
                .map(|(_, entry)| serde_json::from_slice::<Lease>(&entry.value).unwrap());
            leases.find(|lease| lease.address == edge.address.to_string())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_edge_gets_its_share_of_the_clients_and_none_of_them_misses_anything() {
    let stage = Stage::with(plan()).await;
    let first = stage.edge().await;
    let proxy = RoundRobin::start([first.address]).await;
    let members = (0..CLIENTS).map(|n| Member::new(format!("m{n}"), tokens::dev(&format!("m{n}"))));
    let fleet = stage.driver.fleet(FleetPlan {
        kind: Kind::Sio,
        urls: vec![proxy.url()],
        options: SioOptions::new().transports(&["websocket"]),
        members: members.collect(),
    });
    fleet.all_connected(PATIENCE).await;

    let second = stage.edge().await;
    proxy.set_upstreams([first.address, second.address]);
    let mut published = 0;
    wait::until_true("the surplus is small", PATIENCE, async || {
        published += 1;
        stage
            .publish("all", "numbered", json!({ "s": "all", "n": published }))
            .await;
        let (first, second) = (stage.lease(&first).await, stage.lease(&second).await);
        let all = first.connections + second.connections == CLIENTS as u64;
        all && first.connections.abs_diff(second.connections) < 200
    })
    .await;
    let status = fleet.all_connected(PATIENCE).await;
    assert!(status.recovered >= 50, "{status:?}");
    assert_eq!(status.unrecovered, 0, "{status:?}");

    published += 1;
    stage
        .publish("all", "numbered", json!({ "s": "all", "n": published }))
        .await;
    wait::until_true("every event at every client", PATIENCE, async || {
        fleet.watch().await.received >= CLIENTS as u64 * published
    })
    .await;
    for member in fleet.ledger().await {
        let stream = &member.streams["all"];
        assert!(stream.is_exactly(1, published as i64), "{member:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_shall_not_rebalance_keeps_its_clients() {
    let mut plan = plan();
    plan.edge.rebalance = false;
    let stage = Stage::with(plan).await;
    let first = stage.edge().await;
    let members = (0..CLIENTS).map(|n| Member::new(format!("m{n}"), tokens::dev(&format!("m{n}"))));
    let fleet = stage.driver.fleet(FleetPlan {
        kind: Kind::Sio,
        urls: vec![first.url()],
        options: SioOptions::new().transports(&["websocket"]),
        members: members.collect(),
    });
    fleet.all_connected(PATIENCE).await;
    let second = stage.edge().await;
    // As many renewals as the other test needs for all its looks.
    wait::until_true("forty renewals", PATIENCE, async || {
        stage.lease(&second).await.renewal > 40
    })
    .await;
    assert_eq!(fleet.status().await.connects, CLIENTS);
}
