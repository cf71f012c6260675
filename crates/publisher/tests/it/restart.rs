use std::time::Duration;

use bytes::Bytes;
use carillon_protocol::headers::{Headers, name};
use carillon_testkit::{http, wait};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::stage::{LIMIT, Stage, data, is_numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_nats_in_the_middle_loses_and_repeats_nothing() {
    const COUNT: usize = 600;
    let mut stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let bus = stage.bus.clone();
    let sending = async {
        for number in 0..COUNT {
            let headers = Headers::new().with(name::MSG_ID, format!("m{number}"));
            let body = Bytes::from(json!({ "event": "e", "data": number }).to_string());
            wait::until("a stored event", LIMIT, async || {
                bus.store("rt.pub.main.a", &headers, body.clone()).await.ok()
            })
            .await;
        }
    };
    let restarting = async {
        for part in [1, 2] {
            stage.room("a", part * COUNT / 4).await;
            if part == 1 {
                stage.nats.kill()
            } else {
                stage.nats.stop().await
            }
            let client = http::client();
            let url = |path: &str| format!("http://{}{path}", publisher.admin);
            wait::until_true("an unready publisher", LIMIT, async || {
                client
                    .get(url("/readyz"))
                    .send()
                    .await
                    .is_ok_and(|response| response.status().as_u16() == 503)
            })
            .await;
            assert_eq!(
                client
                    .get(url("/healthz"))
                    .send()
                    .await
                    .unwrap()
                    .status()
                    .as_u16(),
                200
            );
            stage.nats.restart().await;
            wait::until_true("a ready publisher", LIMIT, async || {
                client
                    .get(url("/readyz"))
                    .send()
                    .await
                    .is_ok_and(|response| response.status().as_u16() == 200)
            })
            .await;
        }
    };
    tokio::join!(sending, restarting);
    stage.room("a", COUNT).await;
    stage.ingest_is_empty().await;
    is_numbered(&stage.room("a", COUNT).await, COUNT);
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_keeps_its_order_when_nats_goes_away_in_the_middle() {
    const COUNT: usize = 300;
    let mut stage = Stage::new().await;
    stage.options.config.max_body = 64 << 20;
    stage.options.config.ingest_timeout = LIMIT;
    let publisher = stage.publisher().await;
    publisher.owns_all(&stage).await;
    // Much more than what is on its way in the sockets.
    let filling = "x".repeat(100_000);
    let batch = (0..COUNT).map(|number| json!({ "rooms": ["a"], "event": "e", "args": [number, filling] }));
    let batch = batch.collect::<Vec<_>>().into();
    let restarting = async {
        wait::until_true("the first event", LIMIT, async || {
            let bounds = stage.bus.bounds("RT_INGEST").await;
            bounds.is_ok_and(|bounds| bounds.last > 0)
        })
        .await;
        stage.nats.kill();
        stage.nats.restart().await;
    };
    let (answer, ()) = tokio::join!(publisher.post("/v1/events/batch", batch), restarting);
    assert_eq!(answer.0, 202, "{}", answer.1);
    stage.ingest_is_empty().await;
    let stored = stage.room("a", COUNT).await;
    let numbers = stored.iter().map(|event| {
        let (number, _): (usize, String) = serde_json::from_slice(&event.body).unwrap();
        number
    });
    let numbers: Vec<usize> = numbers.collect();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_waits_for_nats_and_then_says_so() {
    let mut stage = Stage::new().await;
    stage.options.config.ingest_timeout = Duration::from_secs(3);
    let publisher = stage.publisher().await;
    let event = |data: u32| json!({ "rooms": ["a"], "event": "e", "data": data });
    stage.nats.kill();
    let ready = format!("http://{}/readyz", publisher.addr);
    wait::until_true("an unready publisher", LIMIT, async || {
        http::client()
            .get(&ready)
            .send()
            .await
            .is_ok_and(|response| response.status().as_u16() == 503)
    })
    .await;
    for body in [
        event(0),
        json!({ "rooms": ["a"], "event": "e", "ephemeral": true }),
    ] {
        let (status, problem) = publisher.post("/v1/events", body).await;
        assert_eq!(
            (status, &problem["code"]),
            (503, &json!("unavailable")),
            "{problem}"
        );
    }
    // A request that waits is answered once NATS is back.
    let (answer, ()) = tokio::join!(publisher.post("/v1/events", event(1)), stage.nats.restart());
    assert_eq!(answer.0, 202, "{}", answer.1);
    let stored = stage.room("a", 1).await;
    assert!(crate::stage::data(&stored).contains(&"1".to_owned()));
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_id_is_known_after_a_restart_of_nats() {
    let mut stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let named = Headers::new().with(name::MSG_ID, "once");
    let list = Headers::new().with(name::MSG_ID, "list");
    let later = Headers::new().with(name::MSG_ID, "later");
    let at = OffsetDateTime::from(std::time::SystemTime::now() + Duration::from_secs(4));
    let at = json!({ "event": "e", "data": "later", "at": at.format(&Rfc3339).unwrap() }).to_string();
    let publishes = [
        ("rt.pub.main.a", &named, r#"{"event":"e","data":0}"#),
        (
            "rt.pub.main.%list",
            &list,
            r#"{"rooms":["a","b"],"event":"e","data":1}"#,
        ),
        ("rt.pub.main.later", &later, &at),
    ];
    for (subject, headers, body) in publishes {
        stage.publish_with(subject, headers, body).await;
    }
    stage.room("a", 2).await;
    stage.room("b", 1).await;
    for hard in [true, false] {
        if hard {
            stage.nats.kill()
        } else {
            stage.nats.stop().await
        }
        stage.nats.restart().await;
        for (subject, headers, body) in publishes {
            let body = Bytes::copy_from_slice(body.as_bytes());
            wait::until("the publish is taken", LIMIT, async || {
                stage.bus.store(subject, headers, body.clone()).await.ok()
            })
            .await;
        }
    }
    wait::until_true("the stage is connected", LIMIT, async || {
        stage.bus.link_state().borrow().connected
    })
    .await;
    // The same text as an id in a body is another name.
    let last = r#"{"event":"e","data":2,"id":"once"}"#;
    stage
        .publish(
            "rt.pub.main.%list",
            &last.replacen('{', r#"{"rooms":["a","b"],"#, 1),
        )
        .await;
    stage.room("a", 3).await;
    stage.room("later", 1).await;
    stage.ingest_is_empty().await;
    assert_eq!(data(&stage.room("a", 3).await), ["0", "1", "2"]);
    assert_eq!(data(&stage.room("b", 2).await), ["1", "2"]);
    assert_eq!(data(&stage.room("later", 1).await), ["\"later\""]);
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_with_an_idempotency_key_waits_for_nats_too() {
    let mut stage = Stage::new().await;
    let publisher = stage.publisher().await;
    stage.nats.kill();
    let body = json!({ "rooms": ["a"], "event": "e", "ephemeral": true }).to_string();
    let key = [("idempotency-key", "k")];
    let back = async {
        // Longer than NATS may take for one answer.
        let begun = std::time::Instant::now();
        wait::until_true("an outage of six seconds", LIMIT, async || {
            begun.elapsed() > Duration::from_secs(6)
        })
        .await;
        stage.nats.restart().await;
    };
    let (answer, ()) = tokio::join!(publisher.post_with("/v1/events", &key, body), back);
    assert_eq!(answer.0, 202, "{}", answer.1);
    publisher.stop().await;
}
