//! Stock npm clients, many in one Node process, with a typed handle for each.

mod fleet;
mod inbox;
mod sio;
mod sse;
mod ws;

use std::collections::HashMap;
use std::io::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;

pub use self::fleet::{Acks, Fleet, FleetPlan, Kind, Ledger, Member, Status, StreamLedger, Trouble, Watch};
pub use self::sio::{Connected, Event, Refused, SioClient, SioOptions};
pub use self::sse::{SseClient, SseMessage};
pub use self::ws::{Closed, Rejected, WsClient, WsOptions};
use crate::checkout;
use crate::child::{Child, Log};
use inbox::Inbox;

/// How long a client waits for what is expected of it, unless it is told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

const START_LIMIT: Duration = Duration::from_secs(30);

/// A Node process with clients; it ends, with all of them, when the last handle is dropped.
#[derive(Clone)]
pub struct Driver(Arc<Shared>);

struct Shared {
    child: Child,
    commands: mpsc::Sender<String>,
    switchboard: Arc<Switchboard>,
    next: AtomicU64,
}

/// Brings each line of the driver to whom it concerns.
#[derive(Default)]
struct Switchboard {
    inboxes: Mutex<HashMap<String, Weak<Inbox>>>,
    answers: Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>,
}

impl Driver {
    /// Starts the driver, once the npm clients are installed.
    pub async fn start() -> Self {
        // Blocks while another process installs them; nothing else of this test can go on meanwhile.
        checkout::fetch("fetch-clients");
        let switchboard = Arc::new(Switchboard::default());
        let inbox = Arc::new(Inbox::new("driver"));
        switchboard
            .inboxes
            .lock()
            .insert(String::new(), Arc::downgrade(&inbox));

        let mut command = Command::new("node");
        command.arg("driver.mjs").current_dir(checkout::clients());
        let lines = switchboard.clone();
        let log = Arc::new(Log::default());
        let child = Child::spawn_reading("client driver", command, log, move |line| lines.deliver(&line));

        let stdin = child
            .take_stdin()
            .unwrap_or_else(|| panic!("the driver has no stdin"));
        let (commands, queue) = mpsc::channel::<String>();
        std::thread::spawn(move || {
            let mut stdin = stdin;
            for line in queue {
                // A driver that is gone shows in the waits of its clients.
                if stdin.write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let driver = Self(Arc::new(Shared {
            child,
            commands,
            switchboard,
            next: AtomicU64::new(1),
        }));
        inbox.set_patience(START_LIMIT);
        inbox
            .take("ready", |report| (report.kind() == "ready").then_some(()))
            .await;
        driver
    }

    /// Opens a `socket.io-client`; `url` ends with the namespace.
    pub fn sio(&self, url: impl AsRef<str>, options: SioOptions) -> SioClient {
        let inbox = self.open("sio", json!({ "url": url.as_ref(), "opts": options.into_json() }));
        SioClient::new(self.clone(), inbox)
    }

    /// Opens a plain WebSocket.
    pub fn ws(&self, url: impl AsRef<str>, options: WsOptions) -> WsClient {
        let mut fields = options.into_json();
        fields["url"] = url.as_ref().into();
        WsClient::new(self.clone(), self.open("ws", fields))
    }

    /// Opens an `EventSource` with these extra headers.
    pub fn sse(&self, url: impl AsRef<str>, headers: &[(&str, &str)]) -> SseClient {
        let headers: HashMap<_, _> = headers.iter().copied().collect();
        SseClient::new(
            self.clone(),
            self.open("sse", json!({ "url": url.as_ref(), "headers": headers })),
        )
    }

    /// Opens many clients from one template.
    pub fn fleet(&self, plan: FleetPlan) -> Fleet {
        Fleet::new(self.clone(), self.open("fleet", plan.into_json()))
    }

    /// What the Node process printed on stderr.
    pub fn log(&self) -> &Log {
        self.0.child.log()
    }

    fn open(&self, op: &str, mut fields: Value) -> Arc<Inbox> {
        let id = format!("{op}-{}", self.0.next.fetch_add(1, Ordering::Relaxed));
        let inbox = Arc::new(Inbox::new(&id));
        self.0
            .switchboard
            .inboxes
            .lock()
            .insert(id.clone(), Arc::downgrade(&inbox));
        fields["op"] = op.into();
        fields["id"] = id.into();
        self.write(&fields);
        inbox
    }

    /// Sends a command to a client, without an answer.
    fn tell(&self, id: &str, op: &str, mut fields: Value) {
        fields["op"] = op.into();
        fields["id"] = id.into();
        self.write(&fields);
    }

    /// Sends a command to a client and waits for the answer.
    async fn ask(&self, id: &str, op: &str, mut fields: Value, limit: Duration) -> Value {
        let req = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.0.switchboard.answers.lock().insert(req, sender);
        fields["req"] = req.into();
        self.tell(id, op, fields);
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Ok(Err(message))) => panic!("{op} of {id} failed: {message}"),
            _ => panic!("the driver did not answer {op} of {id} within {limit:?}"),
        }
    }

    fn write(&self, command: &Value) {
        // Without its writer the driver is gone, which shows in the waits of its clients.
        let _ = self.0.commands.send(format!("{command}\n"));
    }
}

impl Switchboard {
    fn deliver(&self, line: &str) {
        let Ok(mut line) = serde_json::from_str::<Value>(line) else {
            eprintln!("client driver said: {line}");
            return;
        };
        if let Some(req) = line["req"].as_u64() {
            let result = match line["message"].as_str() {
                Some(message) => Err(message.to_owned()),
                None => Ok(line["answer"].take()),
            };
            if let Some(sender) = self.answers.lock().remove(&req) {
                // Who asked may have lost patience.
                let _ = sender.send(result);
            }
            return;
        }
        let id = line["id"].as_str().unwrap_or_default();
        if let Some(inbox) = self.inboxes.lock().get(id).and_then(Weak::upgrade) {
            inbox.put(line);
        } else if line["report"] == "driver_error" {
            eprintln!("client driver failed: {line}");
        }
    }
}
