use std::time::{Duration, Instant};

use carillon_protocol::session::{Record, Transport};
use serde_json::{Value, json};

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_from_all_edges() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let (one, two) = (cluster.edge().await, cluster.edge().await);
    let first = one.connect(Some("42"), &["chat"]).await;
    let second = two.connect(None, &["chat"]).await;
    two.open(Record {
        transport: Transport::Sse,
        ..two.record(Some("43"), &["chat"])
    })
    .await;
    let body = json!({ "event": "vote", "data": { "n": 1 }, "timeoutMs": 1000 });
    let answers = cluster.ask("rt.ask.main.chat", body).await;
    let expected =
        |sid: Value, user: Value| json!({ "sid": sid, "userId": user, "data": ["vote", { "n": 1 }, "yes"] });
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(
        answers.contains(&expected(json!(first), json!("42"))),
        "{answers:?}"
    );
    assert!(
        answers.contains(&expected(json!(second), json!(null))),
        "{answers:?}"
    );
    assert_eq!(
        cluster.ask("rt.ask.main.empty", json!({ "event": "vote" })).await,
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_has_an_error() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let (living, silent, mut dead) = (cluster.edge().await, cluster.edge().await, cluster.edge().await);
    let good = living.connect(Some("1"), &["chat"]).await;
    let late = silent.connect(Some("2"), &["chat"]).await;
    let gone = dead.connect(Some("3"), &["chat"]).await;
    *silent.answer.lock() = None;
    dead.kill();
    let started = Instant::now();
    let answers = cluster
        .ask("rt.ask.main.chat", json!({ "event": "vote", "timeoutMs": 300 }))
        .await;
    assert!(started.elapsed() < Duration::from_secs(10));
    let answers = answers.as_array().unwrap();
    let of = |sid| answers.iter().find(|answer| answer["sid"] == json!(sid)).unwrap();
    assert!(of(good)["data"].is_array());
    assert_eq!(
        *of(late),
        json!({ "sid": late, "userId": "2", "error": "timeout" })
    );
    assert_eq!(
        *of(gone),
        json!({ "sid": gone, "userId": "3", "error": "timeout" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_question_has_an_error() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    for (subject, body, code) in [
        ("rt.ask.main.chat", json!({}), "bad_field"),
        ("rt.ask.main.chat", json!({ "event": "" }), "bad_event"),
        (
            "rt.ask.main.chat",
            json!({ "event": "a", "args": 1 }),
            "bad_field",
        ),
        (
            "rt.ask.main.chat",
            json!({ "event": "a", "args": [], "data": 1 }),
            "bad_field",
        ),
        (
            "rt.ask.main.chat",
            json!({ "event": "a", "timeoutMs": "x" }),
            "bad_field",
        ),
        (
            "rt.ask.nowhere.chat",
            json!({ "event": "a" }),
            "unknown_namespace",
        ),
        ("rt.ask.main", json!({ "event": "a" }), "bad_subject"),
    ] {
        let answer = cluster.ask(subject, body).await;
        assert_eq!(answer["error"]["code"], code, "{subject} {answer}");
    }
    let edge = cluster.edge().await;
    for _ in 0..1001 {
        edge.connect(None, &["crowd"]).await;
    }
    let answer = cluster.ask("rt.ask.main.crowd", json!({ "event": "a" })).await;
    assert_eq!(answer["error"]["code"], "too_many_members");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_fit_into_one_reply_are_named() {
    let cluster = Cluster::start().await;
    let _router = cluster.router().await;
    let (one, two, three) = (cluster.edge().await, cluster.edge().await, cluster.edge().await);
    let small = one.connect(Some("1"), &["chat"]).await;
    let large = two.connect(Some("2"), &["chat"]).await;
    three.connect(Some("3"), &["chat"]).await;
    *one.answer.lock() = Some(json!("x".repeat(1_000_000)));
    *two.answer.lock() = Some(json!("x".repeat(6_000_000)));
    *three.answer.lock() = Some(json!("x".repeat(5_000_000)));
    let answers = cluster
        .ask("rt.ask.main.chat", json!({ "event": "vote", "timeoutMs": 1000 }))
        .await;
    let answers = answers.as_array().unwrap();
    let of = |sid| answers.iter().find(|answer| answer["sid"] == json!(sid)).unwrap();
    assert_eq!(answers.len(), 3);
    assert_eq!(of(small)["data"][2].as_str().unwrap().len(), 1_000_000);
    assert_eq!(
        *of(large),
        json!({ "sid": large, "userId": "2", "error": "answer_too_large" })
    );
}
