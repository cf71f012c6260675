//! Which fault comes when: decks with every kind in them, shuffled by a seed.

use std::time::Duration;

use crate::fault::{Blow, Fault, Step, Victim};
use crate::stage::{NatsKind, Service};

/// Longer than an edge's lease of 12 s and a publisher's of 8 s.
const BEYOND_LEASES: u64 = 15;

/// An endless row of steps.
pub(crate) struct Schedule {
    rng: fastrand::Rng,
    kinds: Vec<Fault>,
    deck: Vec<Fault>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, kinds: Vec<Fault>) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            kinds,
            deck: Vec::new(),
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.deck);
        }
        Some(Step {
            fault: self.deck.pop()?,
            index: self.rng.usize(..6),
            away: Duration::from_millis(self.rng.u64(200..4_000)),
        })
    }
}

/// Everything that is done in a long run.
pub(crate) fn all(nats: NatsKind) -> Vec<Fault> {
    let mut kinds = few(nats);
    for service in [Service::Edge, Service::Publisher, Service::Router] {
        kinds.push(fault(Victim::Service(service), Blow::Pause(BEYOND_LEASES)));
    }
    kinds.push(fault(Victim::Service(Service::Router), Blow::Stop));
    kinds.push(fault(Victim::Service(Service::Publisher), Blow::Pause(3)));
    match nats {
        NatsKind::One => kinds.push(fault(Victim::Nats, Blow::Pause(4))),
        NatsKind::Three => {
            // The leader is what this variant is about.
            kinds.push(fault(Victim::Leader, Blow::Kill));
            kinds.push(fault(Victim::NatsNode, Blow::Kill));
            kinds.push(fault(Victim::Leader, Blow::Pause(4)));
        }
    }
    kinds
}

/// What a short run has time for.
pub(crate) fn few(nats: NatsKind) -> Vec<Fault> {
    let service = |service, blow| fault(Victim::Service(service), blow);
    let mut kinds = vec![
        service(Service::Edge, Blow::Kill),
        service(Service::Edge, Blow::Pause(3)),
        service(Service::Edge, Blow::Stop),
        service(Service::Publisher, Blow::Kill),
        service(Service::Publisher, Blow::Stop),
        service(Service::Router, Blow::Kill),
    ];
    kinds.extend(match nats {
        NatsKind::One => [fault(Victim::Nats, Blow::Kill), fault(Victim::Nats, Blow::Stop)],
        NatsKind::Three => [
            fault(Victim::Leader, Blow::Kill),
            fault(Victim::NatsNode, Blow::Stop),
        ],
    });
    kinds
}

/// The least that shows that three servers lose nothing.
pub(crate) fn leader_and_edge() -> Vec<Fault> {
    vec![
        fault(Victim::Leader, Blow::Kill),
        fault(Victim::Service(Service::Edge), Blow::Kill),
    ]
}

fn fault(victim: Victim, blow: Blow) -> Fault {
    Fault { victim, blow }
}

#[test]
fn a_seed_repeats_its_schedule_and_a_deck_has_every_kind() {
    let row = |seed| -> Vec<String> {
        let schedule = Schedule::new(seed, all(NatsKind::Three));
        schedule.take(40).map(|step| format!("{step:?}")).collect()
    };
    assert_eq!(row(7), row(7));
    assert_ne!(row(7), row(8));
    let kinds = all(NatsKind::One);
    let mut deck: Vec<String> = Schedule::new(1, kinds.clone())
        .take(kinds.len())
        .map(|step| step.fault.to_string())
        .collect();
    let mut expected: Vec<String> = kinds.iter().map(Fault::to_string).collect();
    deck.sort();
    expected.sort();
    assert_eq!(deck, expected);
}
