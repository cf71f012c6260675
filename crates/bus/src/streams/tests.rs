use bytes::Bytes;
use carillon_protocol::headers::Headers;
use carillon_service::settings::Nats;
use carillon_testkit::nats::Server;

use super::*;

fn config() -> Config {
    Config {
        name: "S".into(),
        subjects: vec!["a".into()],
        max_age: Duration::from_secs(60),
        ..Config::default()
    }
}

#[test]
fn what_grows_is_updated_and_what_shrinks_is_refused() {
    let found = Config {
        duplicate_window: Duration::from_secs(60),
        ..config()
    };
    assert!(grow(&found, &config()).unwrap().is_none());
    let longer = Config {
        max_age: Duration::from_secs(90),
        ..config()
    };
    assert_eq!(
        grow(&found, &longer).unwrap().unwrap().max_age,
        Duration::from_secs(90)
    );
    let shorter = Config {
        max_age: Duration::from_secs(30),
        ..config()
    };
    assert!(matches!(
        grow(&found, &shorter),
        Err(EnsureError::Disagrees { field: "max_age", .. })
    ));
    let other = Config {
        subjects: vec!["b".into()],
        ..config()
    };
    assert_eq!(grow(&found, &other).unwrap().unwrap().subjects, ["a", "b"]);
}

async fn start(prefix: &str) -> (Server, Bus) {
    let server = Server::start().await;
    let settings = Nats {
        url: server.url(),
        prefix: prefix.to_owned(),
        ..Nats::default()
    };
    let bus = Bus::connect(&settings, "test").await.unwrap();
    (server, bus)
}

fn layout(partitions: u32) -> Layout {
    Layout {
        history: History::default(),
        namespaces: vec![(Namespace::main(), "events".to_owned())],
        partitions,
    }
}

#[tokio::test]
async fn ids_are_forgotten_everywhere_at_once() {
    let (_server, bus) = start("rt").await;
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    for (dedupe, max_age, expected) in [(10, 2, 2), (10, 60, 10)] {
        let mut layout = layout(2);
        layout.history.dedupe = minutes(dedupe);
        layout.history.max_age = minutes(max_age);
        let streams = ensure(&bus, &layout).await.unwrap();
        for name in [&streams.ingest, &streams.events[&Namespace::main()].name] {
            let stream = bus.inner.jetstream.get_stream(name).await.unwrap();
            let window = stream.cached_info().config.duplicate_window;
            assert_eq!(window, minutes(expected), "{name}");
        }
    }
}

#[tokio::test]
async fn partitions_stay_while_events_wait_in_them() {
    let (_server, bus) = start("rt").await;
    let streams = ensure(&bus, &layout(4)).await.unwrap();
    let body = Bytes::from_static(b"{}");
    let later = Headers::new()
        .with("Nats-Schedule", "@at 2100-01-01T00:00:00Z")
        .with("Nats-Schedule-Target", "rt.pub.main.a");
    bus.store("rt.ingest.at.1", &later, body.clone()).await.unwrap();
    let stored = bus.store("rt.pub.main.a", &Headers::new(), body).await.unwrap();
    for partitions in [2, 8] {
        let error = ensure(&bus, &layout(partitions)).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("publisher.partitions 4") && text.contains(&format!("asks for {partitions}")),
            "{text}"
        );
    }
    ensure(&bus, &layout(4)).await.unwrap();
    assert!(bus.remove(&streams.ingest, stored.sequence).await.unwrap());
    for number in [2, 8] {
        ensure(&bus, &layout(number)).await.unwrap();
        let stream = bus.inner.jetstream.get_stream(&streams.ingest).await.unwrap();
        let found = partitions(&stream.cached_info().config);
        assert_eq!(found, Some(number.to_string()));
    }
}

#[test]
fn names_carry_the_prefix() {
    assert_eq!(stream_name("rt", "EVENTS"), "RT_EVENTS");
    assert_eq!(stream_name("a-b", "EVENTS"), "A_B_EVENTS");
}
