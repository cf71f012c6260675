//! A NATS server, routers, and edges as far as routers see them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use carillon_auth::{ApiKeyConfig, Authorizer, Verifier};
use carillon_bus::{Bucket, Bus, Layout, Limit, StoredMessage, Streams, history, streams};
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::Sid;
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::{Record, State};
use carillon_router::{Config, Server, Setup};
use carillon_service::settings::{self, PresenceEvents, RoomRule};
use carillon_testkit::{nats, wait};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::edge::Edge;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const RECOVERY: Duration = Duration::from_secs(3);
pub(crate) const LEASE: Duration = Duration::from_secs(3);
pub(crate) const RENEWAL: Duration = Duration::from_millis(300);

/// How the routers of a cluster are configured.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) router: Config,
    pub(crate) session: settings::Session,
    layout: Layout,
    namespaces: settings::Namespaces,
    auth: carillon_auth::Config,
}

impl Settings {
    fn setup(&self, bus: Bus) -> Setup {
        let verifier = Verifier::new(&self.auth).unwrap();
        Setup {
            bus,
            layout: self.layout.clone(),
            session: self.session.clone(),
            namespaces: self.namespaces.clone(),
            authorizer: Authorizer::new(&self.auth, verifier).unwrap(),
        }
    }
}

pub(crate) fn settings() -> Settings {
    let main = settings::Namespace {
        rooms: vec![
            RoomRule {
                presence: Some(PresenceEvents {
                    joined: Some("desk:joined".to_owned()),
                    left: Some("desk:left".to_owned()),
                    ..PresenceEvents::default()
                }),
                ..RoomRule::open("desk:{id}")
            },
            RoomRule::open("{room*}"),
        ],
        ..settings::Namespace::open()
    };
    let brief = settings::Namespace {
        recovery: false,
        ..settings::Namespace::open()
    };
    let namespaces = BTreeMap::from([("/".to_owned(), main), ("/brief".to_owned(), brief)]);
    let key = |name: &str, scopes: Value, namespaces: Value| -> ApiKeyConfig {
        let key = json!({ "name": name, "key": name, "scopes": scopes, "namespaces": namespaces });
        serde_json::from_value(key).unwrap()
    };
    Settings {
        router: Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Config::default()
        },
        session: settings::Session {
            recovery: RECOVERY,
            lease: LEASE,
            renewal: RENEWAL,
        },
        layout: Layout {
            history: settings::History::default(),
            namespaces: namespaces
                .iter()
                .map(|(name, rules)| (Namespace::new(name).unwrap(), rules.stream.clone()))
                .collect(),
            partitions: 4,
        },
        namespaces,
        auth: carillon_auth::Config {
            secret: Some(carillon_auth::Secret::from(carillon_testkit::tokens::DEV_SECRET)),
            api_keys: vec![
                key("admin", json!(["admin"]), json!([])),
                key("reader", json!(["read"]), json!([])),
                key("publisher", json!(["publish"]), json!([])),
                key("brief-admin", json!(["admin"]), json!(["/brief"])),
            ],
            ..carillon_auth::Config::default()
        },
    }
}

/// A router that runs until it is dropped or stopped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: CancellationToken,
    kill: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _guard: DropGuard,
}

impl Running {
    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.task)
            .await
            .expect("the router stops")
            .unwrap();
    }

    /// Drops everything it does where it stands; its own tasks end with its runtime's next step.
    pub(crate) fn kill(self) {
        self.kill.cancel();
    }

    pub(crate) async fn readyz(&self) -> u16 {
        let answer = carillon_testkit::http::client()
            .get(format!("http://{}/readyz", self.admin))
            .send()
            .await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }
}

pub(crate) struct Cluster {
    pub(crate) nats: nats::Server,
    pub(crate) bus: Bus,
    pub(crate) streams: Streams,
    pub(crate) settings: Settings,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(settings()).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        let nats = nats::Server::start().await;
        let bus = connect(&nats.url()).await;
        let streams = streams::ensure(&bus, &settings.layout).await.unwrap();
        Self {
            nats,
            bus,
            streams,
            settings,
        }
    }

    /// Starts a router and waits until it is ready.
    pub(crate) async fn router(&self) -> Running {
        let (settings, nats) = (self.settings.clone(), self.nats.url());
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (stopping, killing) = (stop.clone(), kill.clone());
        let (bound, addresses) = tokio::sync::oneshot::channel();
        // A runtime of its own, so that a killed router leaves no task and no connection behind.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let task = tokio::task::spawn_blocking(move || {
            let run = async move {
                let server = Server::bind(settings.router.clone(), settings.setup(connect(&nats).await))
                    .await
                    .unwrap();
                bound.send((server.local_addr(), server.admin_addr())).unwrap();
                server.run(stopping).await.unwrap();
            };
            runtime.block_on(killing.run_until_cancelled(run));
            runtime.shutdown_background();
        });
        let (address, admin) = addresses.await.unwrap();
        let _guard = kill.clone().drop_guard();
        let running = Running {
            address,
            admin,
            stop,
            kill,
            task,
            _guard,
        };
        wait::until_true("the router is ready", LIMIT, async || {
            running.readyz().await == 200
        })
        .await;
        running
    }

    pub(crate) async fn edge(&self) -> Edge {
        Edge::start(&self.nats).await
    }

    pub(crate) async fn ask(&self, subject: &str, body: Value) -> Value {
        let answer = self
            .bus
            .request(subject, &Headers::new(), body.to_string().into(), LIMIT)
            .await;
        serde_json::from_slice(&answer.unwrap().body).unwrap()
    }

    pub(crate) async fn presence(&self, room: &str) -> Value {
        let room = Room::new(room).unwrap();
        self.ask(
            &self.bus.subjects().presence(&Namespace::main(), &room),
            json!({}),
        )
        .await
    }

    pub(crate) async fn count(&self, room: &str) -> u64 {
        self.presence(room).await["count"].as_u64().unwrap()
    }

    pub(crate) async fn record(&self, sid: Sid) -> Option<Record> {
        let entry = self
            .bus
            .table(Bucket::Sessions)
            .get(sid.as_str())
            .await
            .unwrap()?;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    pub(crate) async fn state(&self, sid: Sid) -> Option<State> {
        self.record(sid).await.map(|record| record.state)
    }

    /// Stores an event as a publisher would, and returns its sequence.
    pub(crate) async fn publish(&self, room: &str, name: &str, data: Value) -> u64 {
        let payload = Payload::One(data.to_string().into());
        let event = Event {
            name: name.to_owned(),
            payload,
            id: None,
            except: None,
            time: history::now(),
        };
        let subject = self
            .bus
            .subjects()
            .event(&Namespace::main(), &Room::new(room).unwrap());
        let headers = event.headers();
        self.bus
            .store(&subject, &headers, event.payload.json().clone())
            .await
            .unwrap()
            .sequence
    }

    /// Returns what a stream has on a subject.
    pub(crate) async fn stored(&self, stream: &str, subject: &str) -> Vec<StoredMessage> {
        let subject = subject.to_owned();
        let Some(last) = self
            .bus
            .last(stream, std::slice::from_ref(&subject), 0)
            .await
            .unwrap()
            .pop()
        else {
            return Vec::new();
        };
        self.bus
            .read(stream, &subject, 0, last.sequence, Limit::NONE)
            .await
            .unwrap()
            .messages
    }

    /// Returns the data of the events that are kept for an offline user.
    pub(crate) async fn kept(&self, user: &str) -> Vec<Value> {
        let subject = self.bus.subjects().offline(&Namespace::main(), user);
        let kept = self.stored(&self.streams.offline, &subject).await;
        kept.iter()
            .map(|event| serde_json::from_slice::<Value>(&event.body).unwrap()["data"].clone())
            .collect()
    }

    /// The sequence that a session which begins now starts from.
    pub(crate) async fn now(&self) -> u64 {
        self.publish("tick", "tick", json!(null)).await
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.streams.of(&Namespace::main()).unwrap().epoch
    }
}

pub(crate) async fn connect(url: &str) -> Bus {
    let settings = settings::Nats {
        url: url.to_owned(),
        ..settings::Nats::default()
    };
    Bus::connect(&settings, "test").await.unwrap()
}
