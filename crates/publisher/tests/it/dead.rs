use bytes::Bytes;
use carillon_protocol::headers::{Headers, name};
use carillon_testkit::{nats, wait};

use crate::stage::{LIMIT, Options, Stage, data, header};

#[tokio::test]
async fn refused_bodies_become_dead_letters_and_the_next_event_is_stored() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let large = format!(r#"{{"event":"e","data":"{}"}}"#, "x".repeat(256 * 1024));
    let cases = [
        ("rt.pub.main.json", "nonsense", "rt.dead.main.json", "not_json"),
        ("rt.pub.main.array", "[1]", "rt.dead.main.array", "no_event"),
        ("rt.pub.main.none", "{}", "rt.dead.main.none", "no_event"),
        (
            "rt.pub.main.name",
            r#"{"event":""}"#,
            "rt.dead.main.name",
            "bad_event",
        ),
        (
            "rt.pub.main.type",
            r#"{"event":7}"#,
            "rt.dead.main.type",
            "bad_field",
        ),
        (
            "rt.pub.main.at",
            r#"{"event":"e","at":"soon"}"#,
            "rt.dead.main.at",
            "bad_field",
        ),
        (
            "rt.pub.main.ttl",
            r#"{"event":"e","ttl":0}"#,
            "rt.dead.main.ttl",
            "bad_field",
        ),
        (
            "rt.pub.nobody.a",
            r#"{"event":"e"}"#,
            "rt.dead.nobody.a",
            "unknown_namespace",
        ),
        (
            "rt.pub.main.%zz",
            r#"{"event":"e"}"#,
            "rt.dead.main.%zz",
            "bad_subject",
        ),
        (
            "rt.pub.main.a.b",
            r#"{"event":"e"}"#,
            "rt.dead.main.a%2Eb",
            "bad_subject",
        ),
        (
            "rt.pub.main",
            r#"{"event":"e"}"#,
            "rt.dead.main.%none",
            "bad_subject",
        ),
        ("rt.pub.main.large", &large, "rt.dead.main.large", "too_large"),
        (
            "rt.pub.main.%list",
            r#"{"event":"e","rooms":"a"}"#,
            "rt.dead.main.%list",
            "bad_rooms",
        ),
    ];
    for (subject, body, dead, code) in cases {
        let headers = Headers::new().with("X-Team", "orders");
        stage.publish_with(subject, &headers, body).await;
        let letter = stage.dead(dead).await;
        assert_eq!(letter.body, body.as_bytes(), "{subject}");
        assert!(
            header(&letter, name::REASON).starts_with(&format!("{code}: ")),
            "{:?}",
            letter.headers
        );
        assert_eq!(header(&letter, name::SUBJECT), subject);
        assert_eq!(header(&letter, "X-Team"), "orders");
    }
    stage
        .publish("rt.pub.main.json", r#"{"event":"e","data":"good"}"#)
        .await;
    assert_eq!(data(&stage.room("json", 1).await), ["\"good\""]);
    stage.ingest_is_empty().await;
    publisher.stop().await;
}

#[tokio::test]
async fn a_body_too_large_for_a_letter_is_cut_and_told_by_size_and_hash() {
    let max_payload = 512 * 1024;
    let nats = nats::Server::start_with(nats::Options {
        max_payload,
        ..nats::Options::default()
    })
    .await;
    let stage = Stage::on(nats, Options::default()).await;
    let publisher = stage.publisher().await;
    // The largest body that gets in leaves no place for the reason.
    let body = "x".repeat(max_payload);
    stage
        .bus
        .publish("rt.pub.main.huge", &Headers::new(), Bytes::from(body.clone()))
        .await
        .unwrap();
    let letter = stage.dead("rt.dead.main.huge").await;
    assert_eq!(letter.body, body.as_bytes()[..64 * 1024]);
    assert_eq!(header(&letter, "Carillon-Size"), max_payload.to_string());
    // sha256 of 524288 times "x"
    assert_eq!(header(&letter, "Carillon-SHA256").len(), 64);
    assert!(header(&letter, name::REASON).starts_with("too_large: "));
    stage.ingest_is_empty().await;
    publisher.stop().await;
}

#[tokio::test]
async fn refused_signals_become_dead_letters() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let body = Bytes::from_static(b"\xff\xfe");
    stage
        .bus
        .publish("rt.signal.main.a%2Eb", &Headers::new(), body.clone())
        .await
        .unwrap();
    let letter = stage.dead("rt.dead.main.a%2Eb").await;
    assert_eq!(letter.body, body);
    assert_eq!(header(&letter, name::SUBJECT), "rt.signal.main.a%2Eb");
    assert!(header(&letter, name::REASON).starts_with("not_json: "));
    publisher.stop().await;
}

#[tokio::test]
async fn strange_subjects_block_nobody() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    publisher.owns_all(&stage).await;
    for (room, dead) in [
        (&b"\xff\xfe"[..], "rt.dead.main.%EF%BF%BD%EF%BF%BD"),
        ("a\u{a0}b".as_bytes(), "rt.dead.main.a%C2%A0b"),
        (b"a\x0cb", "rt.dead.main.a%0Cb"),
    ] {
        for kind in ["pub", "signal"] {
            let subject = [format!("rt.{kind}.main.").as_bytes(), room].concat();
            let body = format!("{{\"event\":\"{kind}\"}}");
            stage
                .nats
                .publish_raw(&subject, nats::STRANGE_HEADERS[0], body.as_bytes())
                .await;
            let letter = wait::until("the dead letter", LIMIT, async || {
                let letters = stage.read("RT_DEAD", dead).await;
                letters.into_iter().find(|letter| letter.body == body)
            })
            .await;
            assert!(header(&letter, name::REASON).starts_with("bad_subject: "));
            assert_eq!(header(&letter, "X-Team"), "\u{fffd}\u{fffd}");
        }
    }
    stage
        .publish("rt.pub.main.a", r#"{"event":"e","data":"good"}"#)
        .await;
    assert_eq!(data(&stage.room("a", 1).await), ["\"good\""]);
    stage.ingest_is_empty().await;
    publisher.stop().await;
}

#[tokio::test]
async fn strange_headers_block_nobody() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    publisher.owns_all(&stage).await;
    let mut signals = stage.bus.subscribe("rt.out.main.r.s", None).await.unwrap();
    stage.bus.flush().await;
    for (number, headers) in nats::STRANGE_HEADERS.into_iter().enumerate() {
        let body = format!(r#"{{"event":"e","data":{number}}}"#);
        for subject in [b"rt.pub.main.a", &b"rt.signal.main.s"[..]] {
            stage.nats.publish_raw(subject, headers, body.as_bytes()).await;
        }
        // The event is one, whatever stands beside it.
        let stored = stage.room("a", number + 1).await;
        assert_eq!(stored[number].body, number.to_string());
        let signal = tokio::time::timeout(LIMIT, signals.next()).await.unwrap();
        assert_eq!(signal.unwrap().body, number.to_string());
    }
    // What is refused is kept with the headers that can be read.
    for headers in nats::STRANGE_HEADERS {
        stage
            .nats
            .publish_raw(b"rt.pub.main.dead", headers, b"\xff")
            .await;
    }
    wait::until_true("a dead letter of each", LIMIT, async || {
        stage.read("RT_DEAD", "rt.dead.main.dead").await.len() == nats::STRANGE_HEADERS.len()
    })
    .await;
    stage.ingest_is_empty().await;
    publisher.stop().await;
}
