use std::collections::VecDeque;

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use carillon_service::settings::Nats;
use carillon_testkit::nats::{STRANGE_HEADERS, Server};
use carillon_testkit::wait;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const STREAM: &str = "QUEUE";

async fn connect(server: &Server) -> Bus {
    connect_with(server, RetentionPolicy::WorkQueue).await
}

async fn connect_with(server: &Server, retention: RetentionPolicy) -> Bus {
    let settings = Nats {
        url: server.url(),
        ..Nats::default()
    };
    let bus = Bus::connect(&settings, "test").await.unwrap();
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["queue.>".to_owned()],
        retention,
        ..Default::default()
    };
    bus.inner.jetstream.get_or_create_stream(config).await.unwrap();
    bus
}

async fn open(bus: &Bus, name: &str, memory: Memory) -> Result<Durable, DurableError> {
    Durable::open(bus, STREAM, name, vec!["queue.>".to_owned()], Start::All, memory).await
}

async fn store(bus: &Bus, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let body = number.to_string();
        bus.store("queue.a", &Headers::new(), body.into()).await.unwrap();
    }
}

async fn read(durable: &mut Durable, numbers: std::ops::Range<usize>) -> VecDeque<Delivered> {
    let mut read = VecDeque::new();
    for number in numbers {
        let next = tokio::time::timeout(LIMIT, durable.next()).await;
        let message = next.unwrap().unwrap();
        assert_eq!(message.body, number.to_string());
        read.push_back(message);
    }
    read
}

#[test]
fn a_reply_subject_tells_of_the_message() {
    let place = Place {
        stream_sequence: 20,
        consumer_sequence: 10,
        nanoseconds: 1_600_000_000_000_000_000,
        pending: 7,
    };
    for reply in [
        "$JS.ACK.S.C.1.20.10.1600000000000000000.7",
        "$JS.ACK._.hash.S.C.1.20.10.1600000000000000000.7",
        "$JS.ACK.hub.hash.S.C.1.20.10.1600000000000000000.7.token.more",
    ] {
        assert_eq!(Place::read(reply).as_ref(), Some(&place), "{reply}");
    }
    for reply in [
        "",
        "_INBOX.a",
        "$JS.ACK.S.C.1.20.10.1600000000000000000",
        "$JS.ACK.S.C.1.20.10.x.7",
        "$JS.ACK._.S.C.1.20.10.1600000000000000000.7",
    ] {
        assert_eq!(Place::read(reply), None, "{reply}");
    }
}

#[tokio::test]
async fn messages_come_in_order_and_go_when_they_are_acknowledged() {
    let server = Server::start().await;
    let bus = connect(&server).await;
    store(&bus, 0..3).await;
    let mut durable = open(&bus, "first", Memory::Server).await.unwrap();
    let started = crate::history::now();
    let messages = read(&mut durable, 0..3).await;
    for (index, message) in messages.iter().enumerate() {
        assert_eq!(
            (message.sequence, message.pending),
            (index as u64 + 1, 2 - index as u64)
        );
        assert_eq!(message.subject, "queue.a");
        assert!(message.time <= started && message.time + 60_000 > started);
    }
    // More than one request brings, while the reader is ahead of the writer.
    let writing = tokio::spawn({
        let bus = bus.clone();
        async move { store(&bus, 3..2000).await }
    });
    for message in read(&mut durable, 3..2000).await.iter().chain(&messages) {
        message.ack().await.unwrap();
    }
    writing.await.unwrap();
    wait::until_true("an empty queue", LIMIT, async || {
        let mut stream = bus.inner.jetstream.get_stream(STREAM).await.unwrap();
        stream.info().await.unwrap().state.messages == 0
    })
    .await;
}

#[tokio::test]
async fn large_messages_come_a_few_at_a_time() {
    const COUNT: usize = 60;
    let server = Server::start().await;
    let bus = connect(&server).await;
    let body = |number: usize| format!("{number} {}", "x".repeat(900_000));
    for number in 0..COUNT {
        let stored = bus.store("queue.a", &Headers::new(), body(number).into()).await;
        stored.unwrap();
    }
    let mut durable = open(&bus, "first", Memory::Server).await.unwrap();
    assert_eq!(durable.max_bytes, 4 * carillon_testkit::nats::MAX_PAYLOAD);
    durable.max_bytes = BATCH_BYTES;
    let mut next = async || {
        let next = tokio::time::timeout(LIMIT, durable.next()).await;
        next.unwrap().unwrap()
    };
    assert_eq!(next().await.body, body(0));
    // The request ends though it was for more messages.
    let under_way = wait::until("the end of the request", LIMIT, async || {
        let stream = bus.inner.jetstream.get_stream(STREAM).await.ok()?;
        let mut consumer: PullConsumer = stream.get_consumer("first").await.ok()?;
        let info = consumer.info().await.ok()?;
        (info.num_waiting == 0).then_some(info.num_ack_pending)
    });
    let most = BATCH_BYTES / 900_000;
    let under_way = under_way.await;
    assert!((1..=most).contains(&under_way), "{under_way} of {most}");
    for number in 1..COUNT {
        assert_eq!(next().await.body, body(number));
    }
}

#[tokio::test]
async fn a_message_that_is_larger_than_what_is_asked_for_comes_nevertheless() {
    let server = Server::start().await;
    let bus = connect(&server).await;
    let mut durable = open(&bus, "first", Memory::Server).await.unwrap();
    durable.max_bytes = 1000;
    let sizes = [10, 5000, 10, 900, 900, 5000, 5000, 10];
    for size in sizes {
        let body = vec![b'x'; size];
        bus.store("queue.a", &Headers::new(), body.into()).await.unwrap();
    }
    for size in sizes {
        let message = tokio::time::timeout(LIMIT, durable.next()).await;
        assert_eq!(message.unwrap().unwrap().body.len(), size);
    }
    store(&bus, 0..2000).await;
    for message in read(&mut durable, 0..2000).await {
        message.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_request_whose_bytes_are_used_up_is_followed_by_the_next() {
    let server = Server::start().await;
    let bus = connect(&server).await;
    let headers = Headers::new().with("Some", "header");
    for _ in 0..8 {
        let body = vec![b'x'; 900];
        bus.store("queue.a", &headers, body.into()).await.unwrap();
    }
    let mut durable = open(&bus, "first", Memory::Server).await.unwrap();
    let sizes = [
        "queue.a",
        "$JS.ACK.QUEUE.first.1.1.1.1700000000000000000.7",
        "NATS/1.0\r\nSome: header\r\n\r\n",
    ];
    durable.max_bytes = 2 * (sizes.map(str::len).iter().sum::<usize>() + 900);
    for _ in 0..8 {
        let message = tokio::time::timeout(LIMIT, durable.next()).await;
        message.unwrap().unwrap();
        assert!(durable.asked < 2 * BATCH && durable.requests.len() <= 2);
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_to_the_next_owner() {
    let server = Server::start().await;
    let bus = connect(&server).await;
    store(&bus, 0..5).await;
    let mut first = open(&bus, "first", Memory::Server).await.unwrap();
    let messages = read(&mut first, 0..5).await;
    messages[0].ack().await.unwrap();
    bus.flush().await;
    wait::until_true("the acknowledgement", LIMIT, async || {
        let mut stream = bus.inner.jetstream.get_stream(STREAM).await.unwrap();
        stream.info().await.unwrap().state.messages == 4
    })
    .await;
    Durable::delete(&bus, STREAM, "first").await.unwrap();
    let lost = tokio::time::timeout(LIMIT, first.next()).await.unwrap();
    assert!(matches!(lost, Err(DurableError::Lost)));
    Durable::delete(&bus, STREAM, "first").await.unwrap();
    let mut second = open(&bus, "second", Memory::Server).await.unwrap();
    read(&mut second, 1..5).await;
}

#[tokio::test]
async fn a_break_ends_the_reading_and_loses_nothing() {
    for memory in [Memory::Server, Memory::Reader] {
        let mut server = Server::start().await;
        let bus = connect_with(&server, RetentionPolicy::Limits).await;
        store(&bus, 0..3).await;
        let mut durable = open(&bus, "first", memory).await.unwrap();
        read(&mut durable, 0..2).await;
        server.restart().await;
        let away = async {
            loop {
                if let Err(error) = durable.next().await {
                    return error;
                }
            }
        };
        let away = tokio::time::timeout(LIMIT, away).await.unwrap();
        assert!(matches!(away, DurableError::Away), "{away}");
        let mut again = wait::until("a consumer", LIMIT, async || {
            Durable::delete(&bus, STREAM, "first").await.ok()?;
            open(&bus, "first", memory).await.ok()
        })
        .await;
        read(&mut again, 0..3).await;
    }
}

#[tokio::test]
async fn a_message_that_goes_astray_ends_the_reading_and_comes_again() {
    // What comes after it tells of it, or a heartbeat.
    for (memory, count) in [(Memory::Server, 3), (Memory::Reader, 3), (Memory::Server, 1)] {
        let server = Server::start().await;
        let bus = connect_with(&server, RetentionPolicy::Limits).await;
        store(&bus, 0..count).await;
        let mut durable = open(&bus, "first", memory).await.unwrap();
        let elsewhere = bus.inbox();
        let mut astray = Subscription::new(&bus.inner.intake, &elsewhere, None, Span::OneConnection);
        let link = bus.inner.intake.link();
        link.publish(&durable.next, Some(&elsewhere), &Headers::new(), b"1")
            .unwrap();
        let message = tokio::time::timeout(LIMIT, astray.next_raw()).await.unwrap();
        assert_eq!(message.unwrap().message.body, "0");
        let next = tokio::time::timeout(LIMIT, durable.next()).await.unwrap();
        assert!(matches!(next, Err(DurableError::Server(_))));
        Durable::delete(&bus, STREAM, "first").await.unwrap();
        read(&mut open(&bus, "first", memory).await.unwrap(), 0..count).await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_away() {
    let server = Server::start().await;
    let bus = connect(&server).await;
    store(&bus, 0..1).await;
    let mut durable = open(&bus, "first", Memory::Server).await.unwrap();
    read(&mut durable, 0..1).await;
    server.pause();
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let away = async {
        loop {
            // Whoever reads does other things in between.
            tokio::select! {
                next = durable.next() => return next.err(),
                _ = looks.tick() => {}
            }
        }
    };
    let away = tokio::time::timeout(LIMIT, away).await.unwrap();
    assert!(matches!(away, Some(DurableError::Away)));
    server.resume();
}

#[tokio::test]
async fn strange_messages_come_like_any_other() {
    let server = Server::start().await;
    let bus = connect(&server).await;
    let mut durable = open(&bus, "first", Memory::Server).await.unwrap();
    for headers in STRANGE_HEADERS {
        server.publish_raw(b"queue.a", headers, b"strange").await;
        let message = tokio::time::timeout(LIMIT, durable.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(message.body, "strange");
        message.ack().await.unwrap();
    }
    for (subject, read) in [
        (&b"queue.\xff"[..], "queue.\u{fffd}"),
        ("queue.\u{a0}".as_bytes(), "queue.\u{a0}"),
    ] {
        server.publish_raw(subject, STRANGE_HEADERS[0], b"").await;
        let message = tokio::time::timeout(LIMIT, durable.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(message.subject, read);
        message.ack().await.unwrap();
    }
    assert_eq!(bus.link_state().borrow().generation, 1);
}
