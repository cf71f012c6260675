use carillon_testkit::process::{Builder, Carillon, Signal};
use carillon_testkit::wait;

use crate::SOON;

/// A shell stands in for the program: this crate knows no binary.
fn shell(script: &str) -> Builder {
    // "$2" is the config file, behind --config.
    Carillon::command("/bin/sh", ["-c", script, "shell"])
}

#[tokio::test]
async fn prints_are_kept_and_signals_arrive() {
    let script =
        "trap 'echo reload; cat \"$2\"' HUP; trap 'echo bye; exit 3' TERM; cat \"$2\"; echo started $X >&2
        while :; do sleep 0.05; done";
    let mut process = shell(script).config("first = 1\n").env("X", "with x").start();
    assert_eq!(process.wait_log("started", SOON).await, "started with x");
    assert!(process.log().find("first = 1").is_some());

    process.rewrite_config("second = 2\n");
    process.signal(Signal::HUP);
    process.wait_log("second = 2", SOON).await;

    process.pause();
    process.signal(Signal::TERM);
    assert!(process.is_running());
    process.resume();
    let status = process.wait_exit(SOON).await;
    assert_eq!(status.code(), Some(3));
    assert_eq!(process.log().count("bye"), 1);
}

#[tokio::test]
async fn a_killed_process_starts_again() {
    let mut process = shell("echo up; exec sleep 600").start();
    process.wait_log("up", SOON).await;
    let first = process.pid();
    process.kill9();
    assert!(!process.is_running());
    process.restart();
    wait::until_true("the second start", SOON, async || process.log().count("up") == 2).await;
    assert_ne!(process.pid(), first);
}

#[tokio::test]
async fn a_run_returns_all_that_was_printed() {
    let (status, text) = shell("for i in 1 2 3; do echo line $i; done; exit 7")
        .run(SOON)
        .await;
    assert_eq!(status.code(), Some(7));
    assert_eq!(text, "line 1\nline 2\nline 3\n");
}

#[tokio::test]
#[should_panic(expected = "ended (exit status: 5) while the test waited for never")]
async fn waiting_for_a_dead_process_fails_at_once() {
    shell("exit 5").start().wait_log("never", SOON).await;
}
