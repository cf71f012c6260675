//! What every test here starts from: a nats-server, edges in process, and clients.

use std::net::SocketAddr;
use std::time::Duration;

use carillon_auth::Verifier;
use carillon_bus::{Bus, Layout, StoreError, Stored, Streams, streams};
use carillon_edge::{Config, Server, Shared};
use carillon_protocol::doubt::Doubt;
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::headers::{Headers, name};
use carillon_protocol::names::{Namespace, Room};
use carillon_service::readiness::Readiness;
use carillon_service::settings;
use carillon_testkit::clients::{Driver, SioClient, SioOptions, WsClient, WsOptions};
use carillon_testkit::{nats, tokens};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a state may take to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A nats-server with what edges need, and a Node process for clients.
pub(crate) struct Stage {
    pub nats: nats::Server,
    pub bus: Bus,
    pub streams: Streams,
    pub driver: Driver,
    pub plan: Plan,
}

/// The settings of the edges of a stage.
#[derive(Clone)]
pub(crate) struct Plan {
    pub nats: nats::Options,
    pub edge: Config,
    pub session: settings::Session,
    pub history: settings::History,
    pub events: settings::Events,
    pub namespaces: settings::Namespaces,
    pub auth: carillon_auth::Config,
}

impl Default for Plan {
    fn default() -> Self {
        let mut edge = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..Config::default()
        };
        edge.drain_delay = Duration::ZERO;
        edge.drain = Duration::from_secs(4);
        let auth = carillon_auth::Config {
            secret: Some(tokens::DEV_SECRET.into()),
            ..carillon_auth::Config::default()
        };
        Self {
            nats: nats::Options::default(),
            edge,
            session: settings::Session::default(),
            history: settings::History::default(),
            events: settings::Events::default(),
            namespaces: [("/".to_owned(), settings::Namespace::open())].into(),
            auth,
        }
    }
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::with(Plan::default()).await
    }

    pub(crate) async fn with(plan: Plan) -> Self {
        let nats = nats::Server::start_with(plan.nats.clone()).await;
        let settings = settings::Nats {
            url: nats.url(),
            ..settings::Nats::default()
        };
        let bus = Bus::connect(&settings, "stage").await.unwrap();
        let streams = streams::ensure(&bus, &plan.layout()).await.unwrap();
        let driver = Driver::start().await;
        Self {
            nats,
            bus,
            streams,
            driver,
            plan,
        }
    }

    /// Starts an edge and waits until it is ready.
    pub(crate) async fn edge(&self) -> Edge {
        self.set_up().start().await
    }

    /// Returns what an edge of this stage needs.
    pub(crate) fn set_up(&self) -> SetUp {
        SetUp {
            nats: self.nats.url(),
            streams: self.streams.clone(),
            plan: self.plan.clone(),
        }
    }

    /// Stores an event for a room, as a publisher does, and returns its sequence.
    pub(crate) async fn publish(&self, room: &str, event: &str, data: Value) -> u64 {
        self.store(room, event, data, Headers::new()).await
    }

    pub(crate) async fn store(&self, room: &str, event: &str, data: Value, more: Headers) -> u64 {
        let room = Room::new(room).unwrap();
        let payload = Payload::One(data.to_string().into());
        let time = carillon_bus::history::now();
        let event = Event {
            name: event.to_owned(),
            payload,
            id: None,
            except: None,
            time,
        };
        let mut headers = event.headers();
        for (name, value) in more.iter() {
            headers.push(name, value);
        }
        let subject = self.bus.subjects().event(&Namespace::main(), &room);
        self.bus
            .store(&subject, &headers, event.payload.json().clone())
            .await
            .unwrap()
            .sequence
    }

    /// Stores a publisher's doubt about what came to a room after a sequence, and returns its own sequence.
    pub(crate) async fn doubt(&self, room: &str, after: u64) -> u64 {
        let rooms = [(Room::new(room).unwrap(), after)].into();
        let body = serde_json::to_vec(&Doubt { rooms }).unwrap();
        let subject = self.bus.subjects().doubts(&Namespace::main());
        let stored = self.bus.store(&subject, &Headers::new(), body.into()).await;
        stored.unwrap().sequence
    }

    /// Publishes a durable event as one of many; its acknowledgement can be awaited later.
    pub(crate) async fn burst(
        &self,
        room: &str,
        event: &str,
        data: Value,
    ) -> impl Future<Output = Result<Stored, StoreError>> + use<> {
        let room = Room::new(room).unwrap();
        let headers = Headers::new().with(name::EVENT, event).with(name::TIME, "1");
        let subject = self.bus.subjects().event(&Namespace::main(), &room);
        let stored = self.bus.store_later(&subject, &headers, data.to_string().into());
        stored.await.unwrap()
    }

    /// Sends an ephemeral event to whoever is in the room now.
    pub(crate) async fn signal(&self, room: &str, event: &str, data: Value) {
        let room = Room::new(room).unwrap();
        let payload = Payload::One(data.to_string().into());
        let event = Event {
            name: event.to_owned(),
            payload,
            id: None,
            except: None,
            time: 1,
        };
        let subject = self.bus.subjects().delivery(&Namespace::main(), &room);
        self.bus
            .publish(&subject, &event.headers(), event.payload.json().clone())
            .await
            .unwrap();
    }

    /// Sends one copy of a signal for a list of rooms.
    pub(crate) async fn signal_copy(&self, room: &str, event: &str, set: &str) {
        let room = Room::new(room).unwrap();
        let headers = Headers::new().with(name::EVENT, event).with(name::SET, set);
        let subject = self.bus.subjects().delivery(&Namespace::main(), &room);
        self.bus.publish(&subject, &headers, "1".into()).await.unwrap();
    }

    /// Connects a stock Socket.IO client over WebSocket and waits until it is in.
    pub(crate) async fn sio(&self, edge: &Edge, user: &str) -> SioClient {
        let client = self
            .driver
            .sio(edge.url(), SioOptions::websocket(tokens::dev(user)));
        client.connected().await;
        client
    }

    /// Connects a plain WebSocket client and waits for its welcome.
    pub(crate) async fn ws(&self, edge: &Edge, user: &str) -> (WsClient, Value) {
        let url = format!("ws://{}/ws?token={}", edge.address, tokens::dev(user));
        let client = self.driver.ws(&url, WsOptions::new());
        let welcome = client.next_of_type("welcome").await;
        (client, welcome)
    }
}

/// What an edge is started with.
pub(crate) struct SetUp {
    nats: String,
    streams: Streams,
    plan: Plan,
}

impl SetUp {
    /// Starts an edge and waits until it is ready.
    pub(crate) async fn start(self) -> Edge {
        let nats = settings::Nats {
            url: self.nats,
            ..settings::Nats::default()
        };
        let bus = Bus::connect(&nats, "edge").await.unwrap();
        let shared = Shared {
            edge: self.plan.edge,
            session: self.plan.session,
            history: self.plan.history,
            events: self.plan.events,
            verifier: Verifier::new(&self.plan.auth).unwrap(),
            auth: self.plan.auth,
            namespaces: self.plan.namespaces,
            nats,
            bus,
            streams: self.streams,
        };
        let readiness = Readiness::new();
        let server = Server::bind(shared, readiness.clone()).await.unwrap();
        let address = server.local_addr();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone()));
        carillon_testkit::wait::until_true("the edge is ready", PATIENCE, async || {
            readiness.is_ready() && tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        Edge {
            address,
            readiness,
            stop,
            task,
        }
    }
}

impl Plan {
    fn layout(&self) -> Layout {
        let namespaces = self.namespaces.iter();
        let namespaces =
            namespaces.map(|(name, settings)| (Namespace::new(name).unwrap(), settings.stream.clone()));
        Layout {
            history: self.history.clone(),
            namespaces: namespaces.collect(),
            partitions: 4,
        }
    }
}

/// A running edge.
pub(crate) struct Edge {
    pub address: SocketAddr,
    pub readiness: Readiness,
    stop: CancellationToken,
    task: JoinHandle<Result<(), carillon_edge::RunError>>,
}

impl Edge {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets it drain, and waits for its end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Headers of one copy of an event for a list of rooms.
pub(crate) fn copy_of_list(index: u64, count: u64) -> Headers {
    Headers::new().with(name::SET, format!("list;{index};{count}"))
}
