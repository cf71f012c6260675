//! A new version goes out: every edge is told to stop in turn, under load.

use std::time::Duration;

use crate::LIMIT;
use crate::crowd::Crowd;
use crate::load::{Load, Pace};
use crate::report::Report;
use crate::stage::{NatsKind, Service, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_edges_loses_nothing_and_no_session() {
    let _turn = crate::alone().await;
    let mut stage = Stage::usual(NatsKind::One).await;
    let edges: Vec<_> = stage.of(Service::Edge).iter().map(|node| node.listen).collect();
    let rooms = ["lobby".to_owned(), "news".to_owned()];
    let crowd = Crowd::gather(&stage, &edges, 40, &rooms).await;
    let pace = Pace {
        shared: Duration::from_millis(200),
        personal: Duration::from_secs(1),
    };
    let load = Load::start(&stage, crowd.audience().keys(), pace).await;

    for node in stage.of_mut(Service::Edge) {
        assert!(
            node.terminate().await,
            "{} did not end with code 0\n{}",
            node.name,
            node.process.log().tail()
        );
        node.process.restart();
        assert!(node.is_ready(LIMIT).await, "{} is not ready again", node.name);
    }
    crowd
        .is_connected(LIMIT)
        .await
        .unwrap_or_else(|status| panic!("not all clients returned: {status}"));

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
    let mut report = Report::default();
    report.count(&crowd.ledger().await, &published);
    report.must_be_clean();
    assert!(report.reconnects >= 40, "{report}");
    assert_eq!(report.unrecovered, 0, "{report}");
    crowd.leave().await;
}
