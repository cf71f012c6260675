//! What one client has told, until the test takes it.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use super::PATIENCE;

const REPORTS_SHOWN: usize = 50;

/// One line of a client.
pub(super) struct Report(Value);

impl Report {
    /// `connect`, `event`, `close` and so on.
    pub(super) fn kind(&self) -> &str {
        self.0["report"].as_str().unwrap_or_default()
    }

    pub(super) fn field(&self, name: &str) -> &Value {
        &self.0[name]
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.0[name].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn array(&self, name: &str) -> Vec<Value> {
        self.0[name].as_array().cloned().unwrap_or_default()
    }
}

pub(super) struct Inbox {
    id: String,
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    /// What the test has not taken yet, oldest first.
    reports: VecDeque<Report>,
    taken: VecDeque<String>,
    patience: Duration,
}

impl Inbox {
    pub(super) fn new(id: &str) -> Self {
        let state = State {
            reports: VecDeque::new(),
            taken: VecDeque::new(),
            patience: PATIENCE,
        };
        Self {
            id: id.to_owned(),
            state: Mutex::new(state),
            arrived: Notify::new(),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn patience(&self) -> Duration {
        self.state.lock().patience
    }

    pub(super) fn set_patience(&self, patience: Duration) {
        self.state.lock().patience = patience;
    }

    pub(super) fn put(&self, report: Value) {
        self.state.lock().reports.push_back(Report(report));
        self.arrived.notify_waiters();
    }

    /// Takes the first report that `pick` accepts, now or within the client's patience; others stay.
    pub(super) async fn take<T>(&self, what: &str, mut pick: impl FnMut(&Report) -> Option<T>) -> T {
        let patience = self.patience();
        let search = async {
            loop {
                let mut arrived = std::pin::pin!(self.arrived.notified());
                arrived.as_mut().enable();
                if let Some(found) = self.take_now(&mut pick) {
                    return found;
                }
                arrived.await;
            }
        };
        match tokio::time::timeout(patience, search).await {
            Ok(found) => found,
            Err(_) => panic!(
                "{}: waited {patience:?} in vain for {what}\n{}",
                self.id,
                self.story()
            ),
        }
    }

    /// Takes the first report that `pick` accepts, if it is there.
    pub(super) fn take_now<T>(&self, pick: &mut impl FnMut(&Report) -> Option<T>) -> Option<T> {
        let mut state = self.state.lock();
        if let Some(fault) = state
            .reports
            .iter()
            .find(|report| report.kind() == "driver_error")
        {
            panic!("{}: {}", self.id, fault.text("message"));
        }
        let (at, found) = state
            .reports
            .iter()
            .enumerate()
            .find_map(|(i, r)| Some((i, pick(r)?)))?;
        if let Some(report) = state.reports.remove(at) {
            if state.taken.len() == REPORTS_SHOWN {
                state.taken.pop_front();
            }
            state.taken.push_back(report.0.to_string());
        }
        Some(found)
    }

    /// Panics if a report that `unwanted` accepts is there.
    pub(super) fn assert_none(&self, what: &str, unwanted: impl Fn(&Report) -> bool) {
        let found = self
            .state
            .lock()
            .reports
            .iter()
            .find(|r| unwanted(r))
            .map(|r| r.0.to_string());
        if let Some(found) = found {
            panic!("{}: {what}, but there is {found}\n{}", self.id, self.story());
        }
    }

    /// How many reports that `pick` accepts are there.
    pub(super) fn count(&self, pick: impl Fn(&Report) -> bool) -> usize {
        self.state.lock().reports.iter().filter(|r| pick(r)).count()
    }

    fn story(&self) -> String {
        let state = self.state.lock();
        let mut text = String::from("taken before:\n");
        for line in &state.taken {
            text += &format!("    {line}\n");
        }
        text += "not taken:\n";
        for report in state.reports.iter().take(REPORTS_SHOWN) {
            text += &format!("    {}\n", report.0);
        }
        text
    }
}
