use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_bus::Limit;
use carillon_protocol::headers::{Headers, name};
use carillon_testkit::wait;
use serde_json::json;

use crate::stage::{Options, Stage, data, is_numbered};

/// An election takes seconds, and a node that comes back catches up first.
const LONG: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_stream_leaders_lose_repeat_and_disorder_nothing() {
    const COUNT: usize = 800;
    let mut stage = Stage::cluster(Options {
        partitions: 1,
        ..Options::default()
    })
    .await;
    let publisher = stage.publisher().await;
    stage
        .publish("rt.pub.main.b", r#"{"event":"e","data":0,"id":"x"}"#)
        .await;
    stage.room("b", 1).await;
    let list = json!({ "rooms": ["b", "c"], "event": "e", "data": 1, "id": "x" });
    assert_eq!(publisher.post("/v1/events", list).await.0, 202);
    assert_eq!(data(&stage.room("c", 1).await), ["1"]);

    let bus = stage.bus.clone();
    let sending = async {
        for number in 0..COUNT {
            let headers = Headers::new().with(name::MSG_ID, format!("m{number}"));
            let body = Bytes::from(json!({ "event": "e", "data": number }).to_string());
            wait::until("a stored event", LONG, async || {
                bus.store("rt.pub.main.a", &headers, body.clone()).await.ok()
            })
            .await;
        }
    };
    let killing = async {
        for (part, stream) in [(1, "RT_EVENTS"), (2, "RT_INGEST")] {
            wait::until_true("a part of the events", LONG, async || {
                let subject = ["rt.event.main.r.a".to_owned()];
                let last = stage.bus.last("RT_EVENTS", &subject, 0).await.unwrap_or_default();
                let number = last
                    .first()
                    .and_then(|last| std::str::from_utf8(&last.body).ok()?.parse::<usize>().ok());
                number.is_some_and(|number| number >= part * COUNT / 4)
            })
            .await;
            let leader = stage.nats.wait_stream_leader(stream).await;
            stage.nats.kill_node(leader);
            stage.nats.wait_stream_leader(stream).await;
            stage.nats.restart_node(leader).await;
            stage.nats.wait_stream_current("RT_EVENTS").await;
        }
    };
    tokio::join!(sending, killing);
    let begun = Instant::now();
    let stored = wait::until("the last event", LONG, async || {
        let subject = ["rt.event.main.r.a".to_owned()];
        let last = stage.bus.last("RT_EVENTS", &subject, 0).await.ok()?.pop()?;
        (last.body == (COUNT - 1).to_string()).then_some(())?;
        let read = stage
            .bus
            .read("RT_EVENTS", &subject[0], 0, last.sequence, Limit::NONE);
        let stored = read.await.ok()?.messages;
        // A replica that has just come back may still be filled.
        (stored.len() == COUNT || begun.elapsed() > LONG / 2).then_some(stored)
    })
    .await;
    is_numbered(&stored, COUNT);
    assert!(stage.read("RT_DEAD", "rt.dead.>").await.is_empty());
    assert_eq!(data(&stage.room("b", 1).await), ["0"]);
    publisher.stop().await;
}
