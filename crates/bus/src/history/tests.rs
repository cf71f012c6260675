use std::sync::atomic::{AtomicBool, Ordering};

use carillon_service::settings::Nats;
use carillon_testkit::nats::{Options, Server};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const NOTHING: &str = "NATS/1.0 404 Message Not Found\r\n\r\n";

/// Answers direct gets of a stream as a replica that has nothing yet.
async fn lag_behind(server: &Server, stream: &str) {
    let (reading, mut writing) = TcpStream::connect(server.addr()).await.unwrap().into_split();
    let mut lines = BufReader::new(reading).lines();
    let begin = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB $JS.API.DIRECT.GET.{stream} 1\r\nPING\r\n"
    );
    writing.write_all(begin.as_bytes()).await.unwrap();
    while lines.next_line().await.unwrap().unwrap() != "PONG" {}
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            // The line of a message: MSG, subject, subscription, reply, size.
            if let ["MSG", _, _, reply, _] = line.split(' ').collect::<Vec<_>>()[..] {
                let size = NOTHING.len();
                let answer = format!("HPUB {reply} {size} {size}\r\n{NOTHING}\r\n");
                writing.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_does_not_have_yet_is_read_from_the_leader() {
    let server = Server::start().await;
    let settings = Nats {
        url: server.url(),
        ..Nats::default()
    };
    let bus = Bus::connect(&settings, "test").await.unwrap();
    // Without direct gets of its own, so that nobody but the stand-in answers them.
    let config = json!({ "name": "LAG", "subjects": ["lag.*"], "storage": "memory" }).to_string();
    let none = Headers::new();
    let created = bus.request("$JS.API.STREAM.CREATE.LAG", &none, config.into(), LIMIT);
    created.await.unwrap();
    lag_behind(&server, "LAG").await;
    for n in 0..3 {
        for subject in ["lag.a", "lag.b"] {
            let headers = Headers::new().with("Number", n.to_string());
            bus.store(subject, &headers, "x".into()).await.unwrap();
        }
    }
    let read = async |after, up_to, messages| {
        let limit = Limit {
            messages,
            ..Limit::NONE
        };
        let page = bus.read("LAG", "lag.a", after, up_to, limit).await.unwrap();
        let number = |message: &StoredMessage| (message.sequence, message.headers.number("Number").unwrap());
        (page.messages.iter().map(number).collect::<Vec<_>>(), page.reached)
    };
    assert_eq!(read(0, 5, 100).await, (vec![(1, 0), (3, 1), (5, 2)], 5));
    assert_eq!(read(1, u64::MAX, 100).await, (vec![(3, 1), (5, 2)], u64::MAX));
    assert_eq!(read(0, 4, 100).await, (vec![(1, 0), (3, 1)], 4));
    assert_eq!(read(0, 5, 1).await, (vec![(1, 0)], 1));
    assert_eq!(read(5, 9, 100).await, (vec![], 9));
    let none = bus.read("NONE", "lag.a", 0, 5, Limit::NONE).await;
    assert_eq!(none.unwrap_err(), HistoryError::Away);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_at_its_size() {
    let server = Server::start().await;
    let settings = Nats {
        url: server.url(),
        ..Nats::default()
    };
    let bus = Bus::connect(&settings, "test").await.unwrap();
    let none = Headers::new();
    let config = json!({ "name": "BIG", "subjects": ["big"], "allow_direct": true }).to_string();
    let created = bus.request("$JS.API.STREAM.CREATE.BIG", &none, config.into(), LIMIT);
    created.await.unwrap();
    let body = Bytes::from(vec![b'x'; 200_000]);
    for _ in 0..50 {
        bus.store("big", &none, body.clone()).await.unwrap();
    }
    for (bytes, most) in [(1, 1), (1 << 20, 7), (usize::MAX, 50)] {
        let limit = Limit { bytes, ..Limit::NONE };
        let mut sequences = Vec::new();
        let mut reached = 0;
        while reached < 50 {
            let page = bus.read("BIG", "big", reached, 50, limit).await.unwrap();
            assert!(
                (1..=most).contains(&page.messages.len()),
                "{}",
                page.messages.len()
            );
            sequences.extend(page.messages.iter().map(|message| message.sequence));
            reached = page.reached;
        }
        assert!(sequences.into_iter().eq(1..=50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_messages_come_in_as_many_answers_as_they_need() {
    const SUBJECTS: usize = 80;
    // As without the setting.
    let options = Options {
        extra: "max_pending: 64MB\n".to_owned(),
        ..Options::default()
    };
    let server = Server::start_with(options).await;
    let settings = Nats {
        url: server.url(),
        ..Nats::default()
    };
    let bus = Bus::connect(&settings, "test").await.unwrap();
    let none = Headers::new();
    // As a bucket: what is replaced is gone.
    let config = json!({
        "name": "MANY", "subjects": ["many.*"], "allow_direct": true, "max_msgs_per_subject": 1,
    });
    let created = bus.request(
        "$JS.API.STREAM.CREATE.MANY",
        &none,
        config.to_string().into(),
        LIMIT,
    );
    created.await.unwrap();
    let subjects: Vec<String> = (0..SUBJECTS).map(|subject| format!("many.{subject}")).collect();
    // Together more than the server puts into one answer.
    let body = Bytes::from(vec![b'x'; 900_000]);
    for subject in &subjects {
        bus.store(subject, &none, body.clone()).await.unwrap();
    }
    let last = bus.last("MANY", &subjects, SUBJECTS as u64).await.unwrap();
    assert!(last.iter().map(|message| &message.subject).eq(&subjects));

    let reading = AtomicBool::new(true);
    let write = async {
        let mut random = fastrand::Rng::with_seed(7);
        while reading.load(Ordering::Relaxed) {
            let subject = &subjects[random.usize(..SUBJECTS)];
            bus.store(subject, &none, body.slice(..500_000)).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..5 {
            let last = bus.last("MANY", &subjects, 0).await.unwrap();
            assert!(last.is_sorted_by_key(|message| message.sequence));
            let found: HashSet<&String> = last.iter().map(|message| &message.subject).collect();
            assert_eq!((found.len(), last.len()), (SUBJECTS, SUBJECTS));
        }
        reading.store(false, Ordering::Relaxed);
    };
    tokio::join!(write, read);
}
