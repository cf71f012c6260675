use std::collections::BTreeMap;

use carillon_protocol::session::State;

use super::*;

fn sid(number: u8) -> Sid {
    Sid::from_random([number; 20])
}

fn edge(number: u8) -> EdgeId {
    EdgeId::from_random([number; 10])
}

fn room(name: &str) -> Room {
    Room::new(name).unwrap()
}

fn record(user: Option<&str>, rooms: &[&str]) -> Record {
    Record {
        owner: edge(1),
        term: 1,
        state: State::Live,
        user: user.map(Into::into),
        namespace: Namespace::main(),
        transport: Transport::Ws,
        rooms: rooms
            .iter()
            .map(|name| (room(name), 7))
            .collect::<BTreeMap<_, _>>(),
        ordered: Vec::new(),
        automatic: Vec::new(),
        left: Vec::new(),
        stays: None,
        epoch: 1,
        start: 5,
        since: 3,
        gone: None,
        complete: None,
        late: Vec::new(),
        unsure: Vec::new(),
        lifecycle: false,
    }
}

fn away(user: &str, gone: u64) -> Record {
    Record {
        state: State::Away,
        gone: Some(gone),
        ..record(Some(user), &[])
    }
}

fn table() -> Table {
    let without = HashSet::from([Namespace::new("/brief").unwrap()]);
    Table::new(Windows {
        default: Duration::from_secs(120),
        without,
        margin: Duration::from_secs(2),
    })
}

fn members(table: &Table, name: &str) -> Vec<Sid> {
    let room = room(name);
    let page = table.page(&Namespace::main(), &room, None, 1000);
    let mut all: Vec<Sid> = table
        .members(&Namespace::main(), &room)
        .map(|(sid, _)| sid)
        .collect();
    all.sort();
    let sids: Vec<Sid> = page.members.iter().map(|(sid, _)| *sid).collect();
    assert_eq!((page.count, &sids), (all.len(), &all), "{name}");
    sids
}

#[test]
fn rooms_have_their_live_members() {
    let mut table = table();
    table.put(sid(1), 1, record(Some("42"), &["chat"]), 0);
    table.put(
        sid(2),
        2,
        Record {
            left: vec![Room::all()],
            ..record(Some("42"), &["user:7"])
        },
        0,
    );
    table.put(
        sid(3),
        3,
        Record {
            left: vec![room("user:7")],
            ..record(Some("7"), &["chat"])
        },
        0,
    );
    table.put(sid(4), 4, record(None, &[]), 0);
    table.put(sid(5), 5, away("42", 9), 0);
    assert_eq!(members(&table, "chat"), [sid(1), sid(3)]);
    assert_eq!(members(&table, "all"), [sid(1), sid(3), sid(4)]);
    assert_eq!(members(&table, "user:42"), [sid(1), sid(2)]);
    assert_eq!(members(&table, "user:7"), [sid(2)]);
    assert_eq!(members(&table, &format!("session:{}", sid(4))), [sid(4)]);
    assert!(members(&table, "session:nobody").is_empty());
    assert_eq!(
        table.union(&Namespace::main(), &[room("chat"), room("user:42")]),
        (2, 3)
    );
    assert_eq!(
        table.totals(),
        Totals {
            live: 4,
            away: 1,
            users: 2,
            edges: 1
        }
    );
}

#[test]
fn everything_is_gone_with_the_last_session() {
    let mut table = table();
    table.put(sid(1), 1, record(Some("42"), &["chat"]), 0);
    table.put(sid(2), 2, away("42", 9), 0);
    table.put(
        sid(1),
        3,
        Record {
            state: State::Ended,
            ..record(Some("42"), &["chat"])
        },
        0,
    );
    assert!(table.remove(sid(2)).is_some());
    assert!(table.remove(sid(2)).is_none());
    assert!(table.sessions.is_empty() && table.namespaces.is_empty());
    assert!(table.edges.is_empty() && table.deadlines.is_empty());
}

#[test]
fn who_ended_a_session_has_heard_what_came_before() {
    let mut table = table();
    let covered = |table: &Table, sequence| table.covered(&Namespace::main(), "42", 1, sequence, 9);
    table.put(sid(1), 1, record(Some("42"), &[]), 100);
    assert!(covered(&table, 6) && covered(&table, 8));
    table.put(
        sid(1),
        2,
        Record {
            state: State::Ended,
            complete: Some(7),
            ..record(Some("42"), &[])
        },
        100,
    );
    assert!(covered(&table, 6) && covered(&table, 7));
    assert!(!covered(&table, 5) && !covered(&table, 8));
    // Of an end that the client did not ask for nothing is known.
    table.put(
        sid(2),
        3,
        Record {
            state: State::Ended,
            ..record(Some("43"), &[])
        },
        100,
    );
    assert!(!table.covered(&Namespace::main(), "43", 1, 6, 9));
    // It is not remembered for longer than somebody who was away then may be.
    table.put(
        sid(3),
        4,
        Record {
            state: State::Ended,
            complete: Some(7),
            ..record(Some("44"), &[])
        },
        180_101,
    );
    assert!(!covered(&table, 6));
    assert!(table.covered(&Namespace::main(), "44", 1, 6, 9));
}

#[test]
fn an_older_record_changes_nothing() {
    let mut table = table();
    table.put(sid(1), 5, record(Some("42"), &["chat"]), 0);
    assert!(table.put(sid(1), 4, record(Some("42"), &[]), 0).is_none());
    assert_eq!(members(&table, "chat"), [sid(1)]);
}

#[test]
fn a_new_snapshot_drops_what_it_lacks() {
    let mut table = table();
    table.put(sid(1), 5, record(Some("42"), &["chat"]), 0);
    table.put(sid(2), 6, record(Some("42"), &["chat"]), 0);
    table.restart();
    // A bucket made anew counts from 1 again.
    table.put(sid(1), 1, record(Some("42"), &["team"]), 0);
    let dropped = table.complete();
    assert_eq!(dropped.iter().map(|(sid, _)| *sid).collect::<Vec<_>>(), [sid(2)]);
    assert!(members(&table, "chat").is_empty());
    assert_eq!(members(&table, "team"), [sid(1)]);
}

#[test]
fn pages_follow_each_other() {
    let mut table = table();
    for number in 0..10 {
        table.put(
            sid(number),
            u64::from(number) + 1,
            record(Some("42"), &["chat"]),
            0,
        );
    }
    for name in ["chat", "all", "user:42"] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = table.page(&Namespace::main(), &room(name), after, 3);
            assert_eq!(page.count, 10);
            seen.extend(page.members.into_iter().map(|(sid, _)| sid));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut all: Vec<Sid> = (0..10).map(sid).collect();
        all.sort();
        assert_eq!(seen, all, "{name}");
    }
}

#[test]
fn sessions_are_due_after_their_window() {
    let mut table = table();
    table.put(sid(1), 1, away("42", 1_000), 0);
    table.put(sid(2), 2, away("42", 2_000), 0);
    let brief = Record {
        namespace: Namespace::new("/brief").unwrap(),
        ..away("42", 5_000)
    };
    table.put(sid(3), 3, brief, 0);
    assert_eq!(table.due(5_001, 10), [(5_000, sid(3))]);
    assert_eq!(table.due(121_001, 10), [(5_000, sid(3)), (121_000, sid(1))]);
    assert!(table.outlives(&Namespace::main(), "42", sid(1), 1_000));
    assert!(!table.outlives(&Namespace::main(), "42", sid(2), 2_000));
    table.put(sid(4), 4, record(Some("42"), &[]), 0);
    assert!(table.outlives(&Namespace::main(), "42", sid(2), 2_000));
}

#[test]
fn who_comes_after_the_time_away_heard_nothing_of_it() {
    let mut table = table();
    table.put(sid(1), 1, away("42", 1_000), 0);
    let came = |since| Record {
        since,
        start: 8,
        ..record(Some("42"), &[])
    };
    let outlives = |table: &Table| table.outlives(&Namespace::main(), "42", sid(1), 1_000);
    let covered = |table: &Table, sequence, time| {
        table.covered_by_others(&Namespace::main(), "42", sid(1), (1, sequence, time))
    };
    table.put(sid(2), 2, came(121_000), 0);
    assert!(outlives(&table));
    table.put(sid(2), 3, came(121_001), 0);
    assert!(!outlives(&table));
    assert!(!covered(&table, 8, 121_000) && !covered(&table, 9, 121_000));
    assert!(covered(&table, 9, 121_001));
}

#[test]
fn what_sessions_heard_that_have_ended_is_not_missed() {
    let mut table = table();
    table.put(sid(1), 1, away("42", 1_000), 1_000);
    let ended = |since, gone, complete| Record {
        state: State::Ended,
        since,
        complete,
        ..away("42", gone)
    };
    table.put(sid(2), 2, ended(10_000, 20_000, Some(9)), 20_000);
    table.put(sid(3), 3, ended(30_000, 40_000, None), 40_000);
    // Too brief for anything to be known.
    table.put(sid(4), 4, ended(50_000, 51_000, None), 51_000);
    let covered = |table: &Table, sequence, time| {
        table.covered_by_others(&Namespace::main(), "42", sid(1), (1, sequence, time))
    };
    assert!(!table.outlives(&Namespace::main(), "42", sid(1), 1_000));
    assert!(!covered(&table, 7, 9_999) && covered(&table, 8, 10_000) && covered(&table, 9, 19_000));
    assert!(!covered(&table, 10, 20_000) && !covered(&table, 11, 29_999));
    // Without a word of the client the last of it may not have arrived.
    assert!(covered(&table, 12, 30_000) && covered(&table, 13, 38_000) && !covered(&table, 14, 38_001));
    assert!(!covered(&table, 15, 50_500));
}

#[test]
fn a_session_covers_what_came_after_its_start() {
    let mut table = table();
    table.put(sid(1), 1, away("42", 1_000), 0);
    let covered =
        |table: &Table, epoch, sequence| table.covered(&Namespace::main(), "42", epoch, sequence, 3);
    assert!(!table.covered(&Namespace::main(), "42", 1, 6, 2));
    assert!(covered(&table, 1, 6));
    assert!(!covered(&table, 1, 5));
    assert!(!covered(&table, 2, 6));
    table.put(
        sid(1),
        2,
        Record {
            left: vec![room("user:42")],
            ..away("42", 1_000)
        },
        0,
    );
    assert!(covered(&table, 1, 6), "the user had a connection");
    table.put(
        sid(1),
        3,
        Record {
            left: vec![room("user:42")],
            state: State::Ended,
            ..away("42", 1_000)
        },
        1_000,
    );
    let covered = |time| table.covered(&Namespace::main(), "42", 1, 6, time);
    assert!(covered(1_000) && !covered(1_001));
}

#[test]
fn heard_rooms_are_those_of_the_record() {
    let record = Record {
        automatic: vec![room("team"), room("old")],
        left: vec![room("old"), Room::all()],
        ..record(Some("42"), &["chat", "team"])
    };
    let expected: Vec<Room> = record.heard(sid(1)).collect();
    let session = Session::of(sid(1), record);
    assert_eq!(session.heard(sid(1)), expected);
    assert_eq!(session.joined(sid(1), &room("chat")), Some(7));
    assert_eq!(session.joined(sid(1), &room("user:42")), Some(5));
    assert_eq!(session.joined(sid(1), &room("old")), None);
    assert_eq!(session.joined(sid(1), &Room::all()), None);
}
