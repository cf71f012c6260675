//! The examples in `examples/`: backends in three languages, and a React hook.

use std::path::PathBuf;
use std::process::Stdio;

use carillon_testkit::optional;
use carillon_testkit::wait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::stage::{LIMIT, Stage, root, token};

/// Makes an example ready; where that is not possible the test is counted as not run.
async fn ready(name: &str) -> bool {
    let script = root().join("deploy/tools/fetch-examples");
    let output = Command::new("bash").arg(script).arg(name).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What the compilers say of the example is a failure; a missing language or network is not.
    assert!(
        !said.contains("compiler refused") && !said.contains("go build failed: "),
        "{said}"
    );
    if !output.status.success() {
        optional::not_run(
            said.trim()
                .lines()
                .last()
                .unwrap_or("the example could not be made ready"),
        );
    }
    output.status.success()
}

/// An example that runs.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stdin: Option<ChildStdin>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
        }
    }

    async fn next_line(&mut self) -> String {
        let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await.unwrap();
        line.unwrap().unwrap_or_else(|| panic!("the example ended"))
    }

    /// The next line that `wanted` accepts, as JSON.
    async fn next_state(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next_line().await;
            let state = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
            if wanted(&state) {
                return state;
            }
        }
    }

    async fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}

/// What every backend does, whatever its language.
async fn serves(mut command: Command) {
    // Without a configuration any room may be joined and every event goes to the backend.
    let stage = Stage::config(String::new(), &[]).await;
    command.env("NATS_URL", &stage.nats);
    let mut backend = Running::start(command);
    assert_eq!(backend.next_line().await, "ready");
    let (phone, _) = stage.user(0, "/", json!({ "sub": "ana.maría" })).await;
    let (laptop, _) = stage.user(1, "/", json!({ "sub": "ana.maría" })).await;

    let answer = phone
        .emit_ack("notification:mark_read", json!([{ "notificationId": "n1" }]))
        .await;
    assert_eq!(answer, [json!({ "success": true, "notificationId": "n1" })]);
    for device in [&phone, &laptop] {
        assert_eq!(
            device.next_event("notification:read").await.data(),
            &json!({ "notificationId": "n1" })
        );
    }
    let answer = laptop
        .emit_ack("who", json!([{ "room": "user:ana.maría" }]))
        .await;
    assert_eq!(
        answer,
        [json!({ "count": 2, "users": ["ana.maría", "ana.maría"] })]
    );
    // The same again is told once: the id is the same.
    phone
        .emit_ack("notification:mark_read", json!([{ "notificationId": "n1" }]))
        .await;
    phone
        .emit_ack("notification:mark_read", json!([{ "notificationId": "n2" }]))
        .await;
    assert_eq!(
        phone.next_event("notification:read").await.data(),
        &json!({ "notificationId": "n2" })
    );

    let pid = backend.child.id().unwrap().to_string();
    Command::new("kill").arg(pid).status().await.unwrap();
    let status = tokio::time::timeout(LIMIT, backend.child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
}

fn tools(name: &str) -> PathBuf {
    root().join(".tools").join(name)
}

#[tokio::test]
async fn the_backend_in_typescript_serves() {
    if ready("typescript").await {
        let mut command = Command::new("node");
        command
            .arg("build/backend.js")
            .current_dir(root().join("examples/typescript"));
        serves(command).await;
    }
}

#[tokio::test]
async fn the_backend_in_python_serves() {
    if ready("python").await {
        let mut command = Command::new(tools("example-python/bin/python"));
        command.arg(root().join("examples/python/backend.py"));
        serves(command).await;
    }
}

#[tokio::test]
async fn the_backend_in_go_serves() {
    if ready("go").await {
        serves(Command::new(tools("example-go"))).await;
    }
}

#[tokio::test]
async fn the_react_hook_comes_back_and_misses_nothing() {
    if !ready("react").await {
        return;
    }
    let stage = Stage::of("guide").await;
    let mut command = Command::new("node");
    command
        .arg("build/test/room.js")
        .arg(format!("http://{}/", stage.edges[0]))
        .arg(token(json!({ "sub": "ana" })))
        .current_dir(root().join("examples/react"));
    let mut page = Running::start(command);
    page.next_state(|state| state["status"] == "connected").await;
    assert_eq!(
        page.next_state(|state| state["joined"].is_u64()).await["joined"],
        1
    );
    stage
        .backend
        .publish("main.lobby", "note", json!({ "text": "one" }))
        .await;
    page.next_state(|state| state["messages"] == json!(["one"])).await;

    page.tell("cut").await;
    page.next_state(|state| state["status"] == "reconnecting").await;
    stage
        .backend
        .publish("main.lobby", "note", json!({ "text": "two" }))
        .await;
    let back = page
        .next_state(|state| state["messages"] == json!(["one", "two"]))
        .await;
    assert_eq!(back["error"], Value::Null);
    let state = match back["status"] == "connected" {
        true => back,
        false => {
            let wanted = |state: &Value| state["status"] == "connected" || state["joined"].is_u64();
            page.next_state(wanted).await
        }
    };
    // A recovered session is in its rooms already.
    assert_eq!(
        (&state["recovered"], &state["joined"]),
        (&json!(true), &Value::Null)
    );

    page.tell("unmount").await;
    wait::until("the end of the connection", LIMIT, async || {
        let user = stage.get("/v1/users/ana").await;
        (user["online"] == false).then_some(())
    })
    .await;
}
