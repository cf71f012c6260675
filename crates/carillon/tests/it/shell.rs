use carillon_testkit::nats::Server;
use carillon_testkit::wait;
use serde_json::Value;

use crate::dev::Dev;
use crate::{LIMIT, carillon, run};

#[tokio::test]
async fn events_are_followed_from_any_point() {
    let nats = Server::start().await;
    let _dev = Dev::over(&nats).await;
    let publish = async |event: &str, data: &str| {
        let (ok, text) = run(carillon(["publish", "a.b c"])
            .arg(event)
            .arg(data)
            .arg("--nats")
            .arg(nats.url()))
        .await;
        assert!(ok, "{text}");
    };
    publish("first", "1").await;
    publish("second", "[2]").await;
    let tail = carillon(["tail", "a.b c", "--since", "0", "--nats"])
        .arg(nats.url())
        .start();
    tail.wait_log("\"event\":\"second\"", LIMIT).await;
    publish("third", "{\"n\":3}").await;
    tail.wait_log("\"event\":\"third\"", LIMIT).await;
    let elsewhere = carillon(["publish", "a", "b", "--namespace", "/nowhere", "--nats"]);
    let (ok, text) = run(elsewhere.arg(nats.url())).await;
    assert!(!ok && text.contains("there is no namespace /nowhere"), "{text}");

    let lines: Vec<Value> = tail
        .log()
        .text()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let events: Vec<&Value> = lines.iter().map(|line| &line["payload"]).collect();
    assert_eq!(
        events,
        [
            &serde_json::json!(1),
            &serde_json::json!([2]),
            &serde_json::json!({ "n": 3 })
        ]
    );
    let sequences: Vec<u64> = lines
        .iter()
        .map(|line| line["sequence"].as_u64().unwrap())
        .collect();
    assert!(sequences.is_sorted() && sequences[0] > 0, "{sequences:?}");
    assert!(lines.iter().all(|line| line["topic"] == "a.b c"));
    tail.signal(carillon_testkit::process::Signal::INT);
    assert!(tail.wait_exit(LIMIT).await.success());
}

#[tokio::test]
async fn refused_bodies_are_listed_shown_and_put_back() {
    let nats = Server::start().await;
    let _dev = Dev::over(&nats).await;
    let client = nats.connect().await;
    client
        .publish("rt.pub.main.user:1", "{not json".into())
        .await
        .unwrap();
    client
        .publish("rt.signal.main.user:1", "{}".into())
        .await
        .unwrap();
    client.flush().await.unwrap();

    let list = async |reason: &str| -> Vec<Value> {
        let (ok, text) = run(carillon(["dead", "list", "--reason", reason, "--nats"]).arg(nats.url())).await;
        assert!(ok, "{text}");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let letter = wait::until("a dead letter", LIMIT, async || list("not_json").await.pop()).await;
    assert_eq!(letter["subject"], "rt.pub.main.user:1");
    assert_eq!(letter["size"], 9);
    wait::until("the refused signal", LIMIT, async || list("no_event").await.pop()).await;

    let first = letter["sequence"].clone();
    let sequence = first.to_string();
    let (ok, text) = run(carillon(["dead", "show"])
        .arg(&sequence)
        .arg("--nats")
        .arg(nats.url()))
    .await;
    assert!(ok, "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["body"], "{not json");

    let (ok, text) = run(carillon(["dead", "replay"])
        .arg(&sequence)
        .arg("--nats")
        .arg(nats.url()))
    .await;
    assert!(ok && text.contains("put back on rt.pub.main.user:1"), "{text}");
    // It is as bad as before, so it comes again under another number.
    let again = wait::until("the letter to come again", LIMIT, async || {
        let letters = list("not_json").await;
        letters.into_iter().find(|letter| letter["sequence"] != first)
    });
    assert_eq!(again.await["subject"], "rt.pub.main.user:1");
    let (ok, text) = run(carillon(["dead", "show"])
        .arg(&sequence)
        .arg("--nats")
        .arg(nats.url()))
    .await;
    assert!(!ok && text.contains("there is no dead letter"), "{text}");
    // Without a number it is all of them.
    let (ok, text) = run(carillon(["dead", "replay", "--nats"]).arg(nats.url())).await;
    for subject in ["rt.pub.main.user:1", "rt.signal.main.user:1"] {
        assert!(ok && text.contains(&format!("put back on {subject}")), "{text}");
    }
}

#[tokio::test]
async fn a_refused_signal_is_kept_until_a_publisher_takes_it() {
    let nats = Server::start().await;
    let dev = Dev::over(&nats).await;
    let client = nats.connect().await;
    client
        .publish("rt.signal.main.user:1", "{}".into())
        .await
        .unwrap();
    let list = async || {
        let (ok, text) = run(carillon(["dead", "list", "--nats"]).arg(nats.url())).await;
        assert!(ok, "{text}");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let letter = wait::until("the refused signal", LIMIT, async || list().await.pop()).await;
    drop(dev);
    let owner = "rt.lease.publisher.0";
    wait::until_true("no publisher", LIMIT, async || {
        client.request(owner, "".into()).await.is_err()
    })
    .await;
    let replay = async || run(carillon(["dead", "replay", "--all", "--nats"]).arg(nats.url())).await;
    let (ok, text) = replay().await;
    assert!(
        !ok && text.contains("no publisher takes the signal now"),
        "{text}"
    );
    assert_eq!(list().await, std::slice::from_ref(&letter));
    let _dev = Dev::over(&nats).await;
    wait::until_true("a publisher takes it", LIMIT, async || replay().await.0).await;
    // It is as bad as before, so it comes again under another number.
    wait::until_true("the letter to come again", LIMIT, async || {
        list().await.iter().any(|other| *other != letter)
    })
    .await;
}

#[tokio::test]
async fn what_is_no_event_is_not_published() {
    for (arguments, expected) in [
        (["", "a", "1"], "a room has 1 to 256 bytes"),
        (
            ["r", "", "1"],
            "this is no event: bad_event: an event name has 1 to 128 bytes\n",
        ),
        (["r", "a", "{"], "not JSON"),
        (["r", "connect", "1"], "reserved by Socket.IO"),
        // A negative number is data, so this gets as far as the connection.
        (["r", "a", "-5"], "the cluster cannot be reached"),
    ] {
        let builder = arguments
            .iter()
            .fold(carillon(["publish"]), |builder, argument| builder.arg(*argument));
        let (ok, text) = run(builder.arg("--nats").arg("nats://127.0.0.1:1")).await;
        assert!(!ok && text.contains(expected), "{arguments:?} {text}");
    }
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_told() {
    let (ok, text) = run(carillon(["who", "a", "--nats", "nats://127.0.0.1:1"])).await;
    assert!(!ok && text.contains("the cluster cannot be reached"), "{text}");
    let nats = Server::start().await;
    let (ok, text) = run(carillon(["who", "a", "--nats"]).arg(nats.url())).await;
    assert!(!ok && text.contains("no router answers"), "{text}");
    let (ok, text) = run(carillon(["publish", "a", "b", "--nats"]).arg(nats.url())).await;
    assert!(!ok && text.contains("no stream takes rt.pub.main.a"), "{text}");
}
