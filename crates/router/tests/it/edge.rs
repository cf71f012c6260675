//! An edge as far as routers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use carillon_bus::{Bucket, Bus, Table, history};
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::message::{Answer, Answers, Ask, Ended, Order, Ordered};
use carillon_protocol::names::{Namespace, Room};
use carillon_protocol::session::{Lease, Record, State, Transport};
use carillon_testkit::nats;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::{LEASE, RENEWAL, connect};

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
    pub(crate) async fn start(nats: &nats::Server) -> Self {
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
            stays: None,
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
            let before = record.clone();
            change(&mut record);
            record.note_moves(&before, sid);
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
