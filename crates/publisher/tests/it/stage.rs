//! A nats-server, publishers that can be killed, and what tests ask them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use carillon_auth::{Authorizer, Verifier};
use carillon_bus::{Bus, Layout, Limit, StoredMessage};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::{Namespace, Room};
use carillon_publisher::{Config, Server, Setup};
use carillon_service::settings;
use carillon_testkit::{http, nats, wait};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const KEY: &str = "test-key";

/// What differs between tests.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) config: Config,
    pub(crate) history: settings::History,
    pub(crate) events: settings::Events,
    pub(crate) partitions: u32,
}

impl Default for Options {
    fn default() -> Self {
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            lease: Duration::from_secs(2),
            ..Config::default()
        };
        Self {
            config,
            history: settings::History::default(),
            events: settings::Events::default(),
            partitions: 2,
        }
    }
}

/// A server, or a cluster, with a client of the test's own.
pub(crate) struct Stage<N = nats::Server> {
    pub(crate) nats: N,
    pub(crate) bus: Bus,
    pub(crate) options: Options,
    settings: settings::Nats,
}

/// A publisher in a runtime of its own, as if it were a process.
pub(crate) struct Publisher {
    runtime: Option<Runtime>,
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::on(nats::Server::start().await, options).await
    }

    pub(crate) async fn on(nats: nats::Server, options: Options) -> Self {
        let settings = settings::Nats {
            url: nats.url(),
            ..settings::Nats::default()
        };
        let bus = Bus::connect(&settings, "test").await.unwrap();
        Self {
            nats,
            bus,
            options,
            settings,
        }
    }
}

impl Stage<nats::Cluster> {
    /// Three servers, and three copies of every stream.
    pub(crate) async fn cluster(options: Options) -> Self {
        let nats = nats::Cluster::three().await;
        let settings = settings::Nats {
            url: nats.url(),
            replicas: 3,
            ..settings::Nats::default()
        };
        let bus = Bus::connect(&settings, "test").await.unwrap();
        Self {
            nats,
            bus,
            options,
            settings,
        }
    }
}

impl<N> Stage<N> {
    /// Starts a publisher and waits until it listens.
    pub(crate) async fn publisher(&self) -> Publisher {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (options, nats) = (self.options.clone(), self.settings.clone());
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let (bound, addresses) = tokio::sync::oneshot::channel();
        let ended = runtime.spawn(async move {
            let server = bind(options, &nats).await;
            let _ = bound.send((server.local_addr(), server.admin_addr()));
            server.run(stop).await.unwrap();
        });
        let (addr, admin) = addresses.await.unwrap();
        Publisher {
            runtime: Some(runtime),
            addr,
            admin,
            shutdown,
            ended,
        }
    }

    /// Publishes as a team does, with JetStream's acknowledgement.
    pub(crate) async fn publish(&self, subject: &str, body: &str) {
        self.publish_with(subject, &Headers::new(), body).await;
    }

    pub(crate) async fn publish_with(&self, subject: &str, headers: &Headers, body: &str) {
        self.bus
            .store(subject, headers, Bytes::copy_from_slice(body.as_bytes()))
            .await
            .unwrap();
    }

    /// Reads all that a subject of a stream has.
    pub(crate) async fn read(&self, stream: &str, subject: &str) -> Vec<StoredMessage> {
        let last = wait::until("the stream can be read", LIMIT, async || {
            self.bus.last(stream, &[subject.to_owned()], 0).await.ok()
        });
        let last = last.await;
        let Some(last) = last.first() else {
            return Vec::new();
        };
        self.bus
            .read(stream, subject, 0, last.sequence, Limit::NONE)
            .await
            .unwrap()
            .messages
    }

    /// Waits until a room of the main namespace has so many events, and returns them.
    pub(crate) async fn room(&self, room: &str, count: usize) -> Vec<StoredMessage> {
        let subject = event_subject(&self.bus, room);
        wait::until(format!("{count} events in {room}"), LIMIT, async || {
            let stored = self.read("RT_EVENTS", &subject).await;
            (stored.len() >= count).then_some(stored)
        })
        .await
    }

    /// Waits for the first dead letter below a subject.
    pub(crate) async fn dead(&self, subject: &str) -> StoredMessage {
        wait::until(format!("a dead letter on {subject}"), LIMIT, async || {
            self.read("RT_DEAD", subject).await.into_iter().next()
        })
        .await
    }

    /// Waits until nothing waits in INGEST.
    pub(crate) async fn ingest_is_empty(&self) {
        let all = ["rt.ingest.>".to_owned(), "rt.pub.>".to_owned()];
        wait::until_true("an empty INGEST", LIMIT, async || {
            self.bus
                .last("RT_INGEST", &all, 0)
                .await
                .is_ok_and(|waiting| waiting.is_empty())
        })
        .await;
    }
}

impl Publisher {
    /// Ends everything at once, as SIGKILL does.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Ends as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        tokio::time::timeout(LIMIT, &mut self.ended)
            .await
            .unwrap()
            .unwrap();
        self.kill();
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.post_with(path, &[], body.to_string()).await
    }

    pub(crate) async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: String) -> (u16, Value) {
        let mut request = http::client()
            .post(format!("http://{}{path}", self.addr))
            .body(body);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {KEY}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    /// Waits until this publisher owns every partition.
    pub(crate) async fn owns_all<N>(&self, stage: &Stage<N>) {
        for partition in 0..stage.options.partitions {
            let subject = format!("rt.lease.publisher.{partition}");
            wait::until_true("an owner of the partition", LIMIT, async || {
                let limit = Duration::from_secs(1);
                stage
                    .bus
                    .request(&subject, &Headers::new(), Bytes::new(), limit)
                    .await
                    .is_ok()
            })
            .await;
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn bind(options: Options, nats: &settings::Nats) -> Server {
    let bus = Bus::connect(nats, "publisher").await.unwrap();
    let mut auth: carillon_auth::Config = serde_json::from_value(serde_json::json!({
        "secret": carillon_testkit::tokens::DEV_SECRET,
        "api_keys": [
            { "name": "all", "key": KEY, "scopes": ["publish"] },
            { "name": "chat", "key": "chat-key", "scopes": ["publish"], "namespaces": ["/chat"] },
            { "name": "reader", "key": "read-key", "scopes": ["read"] },
        ],
    }))
    .unwrap();
    auth.leeway = Duration::from_secs(1);
    let authorizer = Authorizer::new(&auth, Verifier::new(&auth).unwrap()).unwrap();
    let namespaces = vec![
        (Namespace::main(), "events".to_owned()),
        (Namespace::new("/chat").unwrap(), "events".to_owned()),
    ];
    let layout = Layout {
        history: options.history,
        namespaces,
        partitions: options.partitions,
    };
    let setup = Setup {
        bus,
        layout,
        events: options.events,
        authorizer,
    };
    Server::bind(options.config, setup).await.unwrap()
}

pub(crate) fn event_subject(bus: &Bus, room: &str) -> String {
    bus.subjects()
        .event(&Namespace::main(), &Room::new(room).unwrap())
}

/// The data of stored events, as text.
pub(crate) fn data(events: &[StoredMessage]) -> Vec<String> {
    events
        .iter()
        .map(|event| String::from_utf8(event.body.to_vec()).unwrap())
        .collect()
}

pub(crate) fn header<'a>(event: &'a StoredMessage, name: &str) -> &'a str {
    event.headers.get(name).unwrap_or("")
}

/// Checks that events are numbered without gap, repetition or disorder.
pub(crate) fn is_numbered(events: &[StoredMessage], count: usize) {
    let places: Vec<(usize, u64, u64)> = events
        .iter()
        .zip(data(events))
        .map(|(event, text)| {
            let ingest = header(event, name::INGEST).parse().unwrap();
            (text.parse().unwrap(), event.sequence, ingest)
        })
        .collect();
    let wrong: Vec<_> = places
        .windows(2)
        .filter(|pair| pair[1].0 != pair[0].0 + 1 || pair[1].2 < pair[0].2)
        .collect();
    assert!(
        wrong.is_empty(),
        "(number, sequence, sequence in INGEST): {wrong:?}"
    );
    let ends = (places.first().map(|first| first.0), places.len());
    assert_eq!(ends, (Some(0), count));
}
