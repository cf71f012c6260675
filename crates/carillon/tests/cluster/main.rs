//! A cluster of real processes under load, while its parts are killed, stopped and restarted.
//!
//! [`stage`] starts the processes, [`crowd`] the clients and [`load`] the publishers of numbered events;
//! [`fault`] and [`schedule`] say what is done to whom, [`report`] what came of it. The tests stand in
//! [`chaos`] and in the modules named after one behaviour each.
//!
//! `CARILLON_CHAOS_MINUTES` makes the chaos last, `CARILLON_CHAOS_SEED` repeats a schedule,
//! `CARILLON_CHAOS_CLIENTS` sets the size of the crowd and `CARILLON_POLLING_CLIENTS` that of each fleet behind the
//! balancer, `CARILLON_CHAOS_LOG` is the services' log filter and `CARILLON_CHAOS_PROGRAM` another build of the
//! program. For the rolling restart `CARILLON_ROLLING_CLIENTS`, `CARILLON_ROLLING_ACCEPT_RATE` and
//! `CARILLON_ROLLING_SHARED_MS`, `CARILLON_ROLLING_PERSONAL_MS` (the time between two events of a room) do the same.

#![allow(
    clippy::print_stdout,
    reason = "seed and report are printed for who watches the run"
)]

mod chaos;
mod crowd;
mod fault;
mod load;
mod plain_publish;
mod poison;
mod polling;
mod presence;
mod report;
mod rolling;
mod schedule;
mod stage;

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

/// Long enough for a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);

/// One cluster at a time: each of them wants the whole machine.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
