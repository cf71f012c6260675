//! A NATS server, routers, and edges as far as routers see them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use carillon_auth::{ApiKeyConfig, Authorizer, Verifier};
use carillon_bus::{Bucket, Bus, Layout, Limit, StoredMessage, Streams, Table, history, streams};
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::message::{Answer, Answers, Ask, Ended, Order, Ordered};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::{Lease, Record, State, Transport};
use carillon_router::{Config, Server, Setup};
use carillon_service::settings::{self, PresenceEvents, RoomRule};
use carillon_testkit::{nats, wait};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

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

async fn connect(url: &str) -> Bus {
    let settings = settings::Nats {
        url: url.to_owned(),
        ..settings::Nats::default()
    };
    Bus::connect(&settings, "test").await.unwrap()
}

/// What routers see of an edge: its lease, its records, its answers.
pub(crate) struct Edge {
    pub(crate) id: EdgeId,
    pub(crate) records: Table,
    pub(crate) orders: Arc<Mutex<Vec<Value>>>,
    /// How many connections a revocation ends here.
    pub(crate) ends: Arc<AtomicUsize>,
    /// What its clients answer; `None` is silence.
    pub(crate) answer: Arc<Mutex<Option<Value>>>,
    bus: Bus,
    life: Option<DropGuard>,
}

impl Edge {
    async fn start(nats: &nats::Server) -> Self {
        let bus = connect(&nats.url()).await;
        let life = CancellationToken::new();
        let edge = Self {
            id: EdgeId::from_random(std::array::from_fn(|_| fastrand::u8(..))),
            records: bus.table(Bucket::Sessions),
            orders: Arc::default(),
            ends: Arc::default(),
            answer: Arc::new(Mutex::new(Some(json!("yes")))),
            bus: bus.clone(),
            life: Some(life.clone().drop_guard()),
        };
        edge.renew(0).await;
        let subject = bus.subjects().edge(edge.id);
        let mut orders = bus.subscribe(&format!("{subject}.order"), None).await.unwrap();
        let mut asks = bus.subscribe(&format!("{subject}.ask"), None).await.unwrap();
        let mut revocations = bus.subscribe(&format!("{subject}.revoked"), None).await.unwrap();
        let ends = Arc::clone(&edge.ends);
        bus.flush().await;
        let (taken, answer, table, leases, id) = (
            Arc::clone(&edge.orders),
            Arc::clone(&edge.answer),
            edge.records.clone(),
            bus.table(Bucket::Edges),
            edge.id,
        );
        let work = async move {
            let mut renewal = 1;
            let mut ticks = tokio::time::interval(RENEWAL);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {
                        let lease = Lease { renewal, address: String::new(), connections: 0, draining: false };
                        renewal += 1;
                        let value = serde_json::to_vec(&lease).unwrap();
                        let _ = leases.put(id.as_str(), value.into(), Some(LEASE)).await;
                    }
                    Some(request) = orders.next() => {
                        let order: Order = serde_json::from_slice(&request.body).unwrap();
                        taken.lock().push(serde_json::from_slice(&request.body).unwrap());
                        let done = carry_out(&table, id, &order).await;
                        let body = serde_json::to_vec(&Ordered { done }).unwrap();
                        bus.publish(&request.reply.unwrap(), &Headers::new(), body.into()).await.unwrap();
                    }
                    Some(request) = revocations.next() => {
                        let ended = Ended { connections: ends.load(Ordering::Relaxed) };
                        let body = serde_json::to_vec(&ended).unwrap();
                        bus.publish(&request.reply.unwrap(), &Headers::new(), body.into()).await.unwrap();
                    }
                    Some(request) = asks.next() => {
                        let ask: Ask = serde_json::from_slice(&request.body).unwrap();
                        let answer = answer.lock().clone();
                        let Some(answer) = answer else { continue };
                        let data = serde_json::value::to_raw_value(&json!([ask.event, ask.payload, answer])).unwrap();
                        let one = |sid: &Sid| Answer { sid: *sid, user: None, data: Some(data.clone()), error: None };
                        let answers = Answers { answers: ask.sids.iter().map(one).collect() };
                        let body = serde_json::to_vec(&answers).unwrap();
                        bus.publish(&request.reply.unwrap(), &Headers::new(), body.into()).await.unwrap();
                    }
                }
            }
        };
        tokio::spawn(async move { life.run_until_cancelled(work).await });
        edge
    }

    async fn renew(&self, renewal: u64) {
        let lease = Lease {
            renewal,
            address: String::new(),
            connections: 0,
            draining: false,
        };
        let value = serde_json::to_vec(&lease).unwrap();
        self.bus
            .table(Bucket::Edges)
            .put(self.id.as_str(), value.into(), Some(LEASE))
            .await
            .unwrap();
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.life = None;
    }

    /// Ends it as if all its sessions had been marked.
    pub(crate) async fn give_back(&mut self) {
        self.kill();
        self.bus
            .table(Bucket::Edges)
            .delete(self.id.as_str(), None)
            .await
            .unwrap();
    }

    pub(crate) fn record(&self, user: Option<&str>, rooms: &[&str]) -> Record {
        Record {
            owner: self.id,
            term: 1,
            state: State::Live,
            user: user.map(Into::into),
            namespace: Namespace::main(),
            transport: Transport::Ws,
            rooms: rooms.iter().map(|room| (Room::new(room).unwrap(), 0)).collect(),
            automatic: Vec::new(),
            left: Vec::new(),
            epoch: 1,
            start: 0,
            ordered: Vec::new(),
            since: history::now(),
            gone: None,
            complete: None,
            late: Vec::new(),
            unsure: Vec::new(),
            lifecycle: false,
        }
    }

    /// Writes the record of a new connection.
    pub(crate) async fn connect(&self, user: Option<&str>, rooms: &[&str]) -> Sid {
        self.open(self.record(user, rooms)).await
    }

    pub(crate) async fn open(&self, record: Record) -> Sid {
        let sid = Sid::from_random(std::array::from_fn(|_| fastrand::u8(..)));
        self.records
            .create(sid.as_str(), serde_json::to_vec(&record).unwrap().into(), None)
            .await
            .unwrap();
        sid
    }

    /// Changes a record as its owner would.
    pub(crate) async fn change(&self, sid: Sid, change: impl Fn(&mut Record)) {
        loop {
            let entry = self.records.get(sid.as_str()).await.unwrap().unwrap();
            let mut record: Record = serde_json::from_slice(&entry.value).unwrap();
            change(&mut record);
            let value = serde_json::to_vec(&record).unwrap();
            if self
                .records
                .update(sid.as_str(), value.into(), entry.revision, None)
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    /// Marks a session away, as on the close of its transport.
    pub(crate) async fn away(&self, sid: Sid) {
        let gone = history::now();
        self.change(sid, |record| {
            (record.state, record.gone) = (State::Away, Some(gone))
        })
        .await;
    }
}

/// Does to the record what an edge does.
async fn carry_out(table: &Table, id: EdgeId, order: &Order) -> bool {
    use carillon_protocol::message::OrderKind;
    let Some(entry) = table.get(order.sid.as_str()).await.unwrap() else {
        return false;
    };
    let mut record: Record = serde_json::from_slice(&entry.value).unwrap();
    if record.owner != id || record.state != State::Live {
        return false;
    }
    match (order.order, &order.room) {
        (OrderKind::Join, Some(room)) => {
            record.rooms.insert(room.clone(), 1);
        }
        (OrderKind::Leave, Some(room)) => {
            record.rooms.remove(room);
        }
        _ => (record.state, record.gone) = (State::Ended, Some(history::now())),
    }
    let value = serde_json::to_vec(&record).unwrap();
    table
        .update(order.sid.as_str(), value.into(), entry.revision, None)
        .await
        .is_ok()
}
