//! A plain publish, without any acknowledgement, while no publisher runs.

use carillon_testkit::clients::{Driver, SioOptions};

use crate::LIMIT;
use crate::stage::{NatsKind, Size, Stage, user_token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_publish_without_a_publisher_is_delivered_when_one_comes_back() {
    let _turn = crate::alone().await;
    let size = Size {
        edges: 1,
        publishers: 2,
        routers: 1,
    };
    let mut stage = Stage::start(NatsKind::One, size).await;
    let driver = Driver::start().await;
    let url = format!("http://{}", stage.edges[0].listen);
    let client = driver.sio(url, SioOptions::websocket(user_token("42")));
    client.set_patience(LIMIT);
    client.connected().await;

    for node in &stage.publishers {
        node.process.kill9();
    }
    let nats = stage.nats.connect().await;
    for number in 1..=3 {
        let body = format!("{{\"event\":\"numbered\",\"data\":{number}}}");
        nats.publish("rt.pub.main.user:42", body.into()).await.unwrap();
    }
    nats.flush().await.unwrap();
    client.assert_no_event("numbered");

    stage.publishers[1].process.restart();
    for number in 1..=3 {
        assert_eq!(client.next_event("numbered").await.data(), &number);
    }
}
