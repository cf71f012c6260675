//! Signals reach a whole process, so these tests start this test binary again as a child.

use std::process::Stdio;
use std::time::Duration;

use carillon_service::reload::{self, Reload};
use carillon_service::shutdown;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use crate::wire::soon;

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    async fn start(test: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self { child, lines };
        process.says("started").await;
        process
    }

    /// Waits for a line that ends so; the harness may write before it on the same line.
    async fn says(&mut self, wanted: &str) {
        loop {
            let line = soon(self.lines.next_line())
                .await
                .unwrap()
                .expect("the child says more");
            if line.ends_with(wanted) {
                return;
            }
        }
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().expect("the child runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(soon(sent).await.unwrap().success());
    }

    async fn exit_code(&mut self) -> Option<i32> {
        soon(self.child.wait()).await.unwrap().code()
    }
}

#[tokio::test]
async fn the_first_signal_stops_and_the_second_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let mut process = Process::start("signal::child_that_never_stops").await;
        process.signal(first).await;
        process.says("stopping").await;
        process.signal(second).await;
        assert_eq!(process.exit_code().await, Some(130));
    }
}

#[tokio::test]
#[ignore = "started by another test"]
async fn child_that_never_stops() {
    let stop = shutdown::on_signal().unwrap();
    println!("started");
    stop.cancelled().await;
    println!("stopping");
    // Longer than the other test waits, and an end should that test be gone.
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_hangup_asks_for_a_reload() {
    let mut process = Process::start("signal::child_that_reloads").await;
    process.signal("HUP").await;
    process.says("reload").await;
    process.signal("HUP").await;
    process.says("reload").await;
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test]
#[ignore = "started by another test"]
async fn child_that_reloads() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut requests = reload::watch(file.path(), CancellationToken::new()).unwrap();
    println!("started");
    for _ in 0..2 {
        assert_eq!(soon(requests.recv()).await, Some(Reload::Signal));
        println!("reload");
    }
}
