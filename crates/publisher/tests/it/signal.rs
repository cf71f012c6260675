use bytes::Bytes;
use carillon_protocol::headers::{Headers, name};
use carillon_testkit::wait;

use crate::stage::{LIMIT, Stage};

#[tokio::test]
async fn a_signal_is_delivered_in_order_and_not_stored() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let mut deliveries = stage.bus.subscribe("rt.out.chat.>", None).await.unwrap();
    stage.bus.flush().await;
    for number in 0..100 {
        let body = Bytes::from(format!(r#"{{"event":"typing","data":{number},"except":["s"]}}"#));
        stage
            .bus
            .publish("rt.signal.chat.lobby", &Headers::new(), body)
            .await
            .unwrap();
    }
    for number in 0..100 {
        let delivery = tokio::time::timeout(LIMIT, deliveries.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(delivery.subject, "rt.out.chat.r.lobby");
        assert_eq!(delivery.body, number.to_string());
        assert_eq!(delivery.headers.get(name::EVENT), Some("typing"));
        assert_eq!(delivery.headers.get(name::EXCEPT), Some("s"));
        assert_eq!(delivery.headers.get(name::SEQUENCE), None);
    }
    assert!(stage.read("RT_EVENTS", "rt.event.chat.r.lobby").await.is_empty());
    publisher.stop().await;
}

#[tokio::test]
async fn two_publishers_share_signals() {
    let stage = Stage::new().await;
    let publishers = [stage.publisher().await, stage.publisher().await];
    let mut deliveries = stage.bus.subscribe("rt.out.main.r.lobby", None).await.unwrap();
    stage.bus.flush().await;
    for number in 0..200 {
        let body = Bytes::from(format!(r#"{{"event":"e","data":{number}}}"#));
        stage
            .bus
            .publish("rt.signal.main.lobby", &Headers::new(), body)
            .await
            .unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let delivery = tokio::time::timeout(LIMIT, deliveries.next())
            .await
            .unwrap()
            .unwrap();
        assert!(seen.insert(delivery.body), "delivered twice");
    }
    for publisher in publishers {
        publisher.stop().await;
    }
}

#[tokio::test]
async fn a_publisher_that_stops_loses_no_signal() {
    const SIGNALS: usize = 4000;
    let stage = Stage::new().await;
    let (stopping, staying) = (stage.publisher().await, stage.publisher().await);
    let mut deliveries = stage.bus.subscribe("rt.out.main.r.lobby", None).await.unwrap();
    stage.bus.flush().await;
    let send = async {
        for number in 0..SIGNALS {
            let body = Bytes::from(format!(r#"{{"event":"e","data":{number}}}"#));
            let headers = Headers::new();
            let sent = stage.bus.publish("rt.signal.main.lobby", &headers, body);
            sent.await.unwrap();
        }
        stage.bus.flush().await;
    };
    let receive = async {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < SIGNALS {
            let delivery = tokio::time::timeout(LIMIT, deliveries.next()).await;
            let delivery = delivery.unwrap_or_else(|_| panic!("{} of {SIGNALS} came", seen.len()));
            assert!(seen.insert(delivery.unwrap().body), "delivered twice");
        }
    };
    tokio::join!(send, receive, stopping.stop());
    staying.stop().await;
}

async fn signal(stage: &Stage, room: &str, body: impl Into<Bytes>) {
    let subject = format!("rt.signal.main.{room}");
    stage
        .bus
        .publish(&subject, &Headers::new(), body.into())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_burst_of_refused_signals_loses_none() {
    const SIGNALS: usize = 4000;
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    for number in 0..SIGNALS {
        signal(&stage, "bad", format!("not json {number}")).await;
    }
    let letters = wait::until("all dead letters", LIMIT, async || {
        let letters = stage.read("RT_DEAD", "rt.dead.main.bad").await;
        (letters.len() >= SIGNALS).then_some(letters)
    })
    .await;
    let bodies: std::collections::BTreeSet<_> = letters.iter().map(|letter| &letter.body).collect();
    assert_eq!((letters.len(), bodies.len()), (SIGNALS, SIGNALS));
    publisher.stop().await;
}

#[tokio::test]
async fn good_signals_pass_while_no_letter_can_be_stored() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let mut deliveries = stage.bus.subscribe("rt.out.main.r.lobby", None).await.unwrap();
    let deleted = stage
        .bus
        .request(
            "$JS.API.STREAM.DELETE.RT_DEAD",
            &Headers::new(),
            Bytes::new(),
            LIMIT,
        )
        .await
        .unwrap();
    assert!(
        deleted.body.ends_with(br#""success":true}"#),
        "{:?}",
        deleted.body
    );
    // More than may wait: the last ones find no place.
    let large = Bytes::from(vec![b'x'; 1_000_000]);
    for _ in 0..80 {
        signal(&stage, "bad", large.clone()).await;
    }
    signal(&stage, "lobby", r#"{"event":"e","data":1}"#).await;
    let delivery = tokio::time::timeout(LIMIT, deliveries.next()).await.unwrap();
    assert_eq!(delivery.unwrap().body, "1");
    publisher.kill();
}
