//! Tasks without which a process is of no use: one that ends too early is noticed.

use std::future::Future;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Notices the first task that ends although nobody told it to; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    ended_early: watch::Sender<Option<&'static str>>,
}

/// Tasks that are told to stop together; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    supervisor: Supervisor,
}

impl Supervisor {
    /// Returns a group of tasks, still empty, that this token tells to stop.
    pub fn tasks(&self, stop: CancellationToken) -> Tasks {
        Tasks {
            tracker: TaskTracker::new(),
            stop,
            supervisor: self.clone(),
        }
    }

    /// Waits until a task panics or returns before it is told to stop, and returns the name of the first that did.
    pub async fn ended_early(&self) -> &'static str {
        let mut ended_early = self.ended_early.subscribe();
        loop {
            if let Some(name) = *ended_early.borrow_and_update() {
                return name;
            }
            ended_early.changed().await.expect("self is a sender");
        }
    }
}

impl Tasks {
    /// Spawns a task that ends by itself once it is told to stop.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let watched = Watched {
            name,
            stop: self.stop.clone(),
            supervisor: self.supervisor.clone(),
        };
        self.tracker.spawn(async move {
            let _watched = watched;
            task.await;
        });
    }

    /// Spawns a task that knows no end, and is dropped where it waits once it is told to stop.
    pub fn spawn_endless(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(name, async move {
            stop.run_until_cancelled_owned(task).await;
        });
    }

    /// Tells the tasks to stop, and waits until they have.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Lives as long as its task, also through a panic.
struct Watched {
    name: &'static str,
    stop: CancellationToken,
    supervisor: Supervisor,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        self.supervisor.ended_early.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(self.name);
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> (Supervisor, Tasks) {
        let supervisor = Supervisor::default();
        let tasks = supervisor.tasks(CancellationToken::new());
        (supervisor, tasks)
    }

    #[tokio::test]
    async fn a_task_that_panics_is_noticed() {
        let (supervisor, tasks) = supervisor();
        tasks.spawn_endless("other", std::future::pending());
        tasks.spawn("broken", async { panic!("as the test wants it") });
        assert_eq!(supervisor.ended_early().await, "broken");
        tasks.stop().await;
        assert_eq!(supervisor.ended_early().await, "broken");
    }

    #[tokio::test]
    async fn a_task_that_returns_too_early_is_noticed_by_who_waits_already() {
        let (supervisor, tasks) = supervisor();
        let (end, ended) = tokio::sync::oneshot::channel();
        tasks.spawn_endless("first", async { ended.await.unwrap() });
        let (name, sent) = tokio::join!(supervisor.ended_early(), async { end.send(()) });
        assert_eq!((name, sent), ("first", Ok(())));
    }

    #[tokio::test]
    async fn a_task_that_is_told_to_stop_is_not_missed() {
        let (supervisor, tasks) = supervisor();
        let stop = tasks.stop.clone();
        tasks.spawn("itself", async move { stop.cancelled().await });
        tasks.spawn_endless("dropped", std::future::pending());
        tasks.stop().await;
        assert_eq!(*supervisor.ended_early.borrow(), None);
    }
}
