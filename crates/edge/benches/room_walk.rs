//! The walk over a room's members: one event, and a turn of 32, to real sockets.
//!
//! Per member and event it should cost little more than the `send` or `writev` in it.

use std::cell::RefCell;

use carillon_edge::bench::RoomWalk;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tokio::runtime::Runtime;

const MEMBERS: [usize; 3] = [1, 100, 1000];

fn main() {
    divan::main();
}

fn bench(bencher: Bencher<'_, '_>, members: usize, events: usize, is_json: bool, durable: bool) {
    let runtime = Runtime::new().expect("a runtime can be made");
    let _entered = runtime.enter();
    let room = RefCell::new(runtime.block_on(RoomWalk::new(members, is_json)));
    bencher
        .counter(ItemsCount::new(members * events))
        .with_inputs(|| room.borrow_mut().drain())
        .bench_local_values(|drained| {
            room.borrow_mut().deliver(black_box(events), durable);
            drained
        });
}

#[divan::bench(args = MEMBERS, sample_size = 8)]
fn signal_to_socket_io(bencher: Bencher<'_, '_>, members: usize) {
    bench(bencher, members, 1, false, false);
}

#[divan::bench(args = MEMBERS, sample_size = 8)]
fn durable_to_socket_io(bencher: Bencher<'_, '_>, members: usize) {
    bench(bencher, members, 1, false, true);
}

#[divan::bench(args = MEMBERS, sample_size = 8)]
fn durable_to_json(bencher: Bencher<'_, '_>, members: usize) {
    bench(bencher, members, 1, true, true);
}

#[divan::bench(args = MEMBERS, sample_size = 8)]
fn turn_of_32_to_socket_io(bencher: Bencher<'_, '_>, members: usize) {
    bench(bencher, members, 32, false, true);
}

#[divan::bench(args = MEMBERS, sample_size = 8)]
fn turn_of_32_to_json(bencher: Bencher<'_, '_>, members: usize) {
    bench(bencher, members, 32, true, true);
}
