use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use carillon_testkit::clients::{Driver, SioOptions};
use carillon_testkit::nats::Server;
use carillon_testkit::process::{Builder, Carillon, Signal};
use carillon_testkit::{http, net, tokens, wait};
use serde_json::json;

use crate::token::{claims, secret};
use crate::{LIMIT, carillon, run};

/// Every address is any that is free.
pub(crate) const ANYWHERE: &str = "
[nats]
url = \"nats://127.0.0.1:0\"
[edge]
listen = \"127.0.0.1:0\"
[router]
listen = \"127.0.0.1:0\"
[publisher]
listen = \"127.0.0.1:0\"
";

/// A cluster that is ready.
pub(crate) struct Dev {
    pub(crate) process: Carillon,
    pub(crate) printed: String,
}

impl Dev {
    pub(crate) async fn start(builder: Builder) -> Self {
        let process = builder.start();
        process.wait_log("/v1/events", LIMIT).await;
        let printed = process.log().text();
        assert!(printed.contains("carillon dev: ready"), "{printed}");
        Self { process, printed }
    }

    /// A cluster of one edge over a server of the test.
    pub(crate) async fn over(nats: &Server) -> Self {
        let builder = carillon(["dev", "--edges", "1", "--nats"]).arg(nats.url());
        let services = ["EDGE", "ROUTER", "PUBLISHER"].into_iter();
        Self::start(services.fold(builder, |builder, service| {
            builder.env(format!("CARILLON_{service}__LISTEN"), "127.0.0.1:0")
        }))
        .await
    }

    /// The addresses in the lines that begin with a service's name.
    pub(crate) fn addresses(&self, name: &str) -> Vec<SocketAddr> {
        let lines = self
            .printed
            .lines()
            .filter(|line| line.split_whitespace().next() == Some(name));
        let urls = lines.filter_map(|line| line.split_whitespace().nth(1)?.split_once("://"));
        urls.map(|(_, address)| address.parse().unwrap()).collect()
    }

    fn nats_pid(&self) -> String {
        let pid = self.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children
            .split_whitespace()
            .next()
            .unwrap_or_else(|| panic!("dev has no child"))
            .to_owned()
    }

    /// All that must be gone with the process.
    fn everything(&self) -> (Vec<SocketAddr>, String) {
        let names = ["edge", "router", "publisher", "nats"];
        let addresses: Vec<SocketAddr> = names.iter().flat_map(|name| self.addresses(name)).collect();
        assert_eq!(addresses.len(), 5, "{}", self.printed);
        assert!(addresses.iter().all(answers));
        (addresses, self.nats_pid())
    }
}

/// An edge in a process of its own.
pub(crate) struct Edge {
    pub(crate) process: Carillon,
    pub(crate) listen: SocketAddr,
    admin: SocketAddr,
}

impl Edge {
    pub(crate) async fn over(nats: &Server) -> Self {
        let (listen, admin) = (net::free_addr(), net::free_addr());
        let process = carillon(["edge"])
            .env("NATS_URL", nats.url())
            .env("JWT_SECRET", tokens::DEV_SECRET)
            .env("CARILLON_EDGE__LISTEN", listen.to_string())
            .env("CARILLON_EDGE__ADMIN", admin.to_string())
            .start();
        process.wait_ready(admin, LIMIT).await;
        Self {
            process,
            listen,
            admin,
        }
    }

    /// Adds up the values of a metric, whatever its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = http::text(&format!("http://{}/metrics", self.admin)).await;
        let of_it = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        };
        let values = text.lines().filter(of_it);
        values
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}

fn answers(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, Duration::from_secs(5)).is_ok()
}

fn is_alive(pid: &str) -> bool {
    // A child that nobody has waited for yet is not alive.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|state| !state.contains(") Z "))
}

async fn assert_gone((addresses, nats): (Vec<SocketAddr>, String)) {
    wait::until("the end of nats-server", Duration::from_secs(5), async || {
        (!is_alive(&nats)).then_some(())
    })
    .await;
    for address in addresses {
        // Another test's process may have been given the port in the meantime, and goes too.
        let what = format_args!("nobody at {address}");
        wait::until_true(what, Duration::from_secs(60), async || !answers(&address)).await;
    }
}

#[tokio::test]
async fn every_device_of_a_user_hears_what_is_published() {
    let dev = Dev::start(carillon(["dev"]).config(ANYWHERE)).await;
    let edges = dev.addresses("edge");
    let driver = Driver::start().await;
    let client = |edge: usize, user: &str| {
        driver.sio(
            format!("http://{}", edges[edge]),
            SioOptions::websocket(tokens::dev(user)),
        )
    };
    let (one, two, other) = (client(0, "42"), client(1, "42"), client(1, "43"));
    for client in [&one, &two, &other] {
        client.connected().await;
    }

    let nats = format!("nats://{}", dev.addresses("nats")[0]);
    let publish = carillon(["publish", "user:42", "a", "{\"n\":1}", "--nats"]).arg(&nats);
    let (ok, text) = run(publish).await;
    assert!(ok, "{text}");
    let request = http::client()
        .post(format!("http://{}/v1/events", dev.addresses("publisher")[0]))
        .bearer_auth("dev-key")
        .json(&json!({ "rooms": ["user:42"], "event": "b", "data": 2 }));
    assert_eq!(request.send().await.unwrap().status(), 202);
    let (ok, text) = run(carillon(["publish", "user:42", "c", "--signal", "--nats"]).arg(&nats)).await;
    assert!(ok, "{text}");
    for client in [&one, &two] {
        assert_eq!(client.next_event("a").await.data(), &json!({ "n": 1 }));
        assert_eq!(client.next_event("b").await.data(), &json!(2));
        client.next_event("c").await;
    }

    let (ok, text) = run(carillon(["who", "user:42", "--nats"]).arg(&nats)).await;
    assert!(ok && text.contains("\"count\":2"), "{text}");
    for client in [&one, &two, &other] {
        client.disconnect();
    }
}

#[tokio::test]
async fn an_interrupt_leaves_nothing_behind() {
    let dev = Dev::start(carillon(["dev"]).config(ANYWHERE)).await;
    let everything = dev.everything();
    dev.process.signal(Signal::INT);
    let status = dev.process.wait_exit(Duration::from_secs(10)).await;
    assert!(status.success(), "{status}");
    assert_gone(everything).await;
}

#[tokio::test]
async fn a_kill_leaves_nothing_behind() {
    let dev = Dev::start(carillon(["dev"]).config(ANYWHERE)).await;
    let everything = dev.everything();
    dev.process.kill9();
    assert_gone(everything).await;
}

#[tokio::test]
async fn a_nats_server_that_dies_is_started_again() {
    let dev = Dev::start(carillon(["dev", "--edges", "1"]).config(ANYWHERE)).await;
    let (router, first) = (dev.addresses("router")[0], dev.nats_pid());
    let pid = rustix::process::Pid::from_raw(first.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    dev.process
        .wait_log("the nats-server ended, it is started again", LIMIT)
        .await;
    let nats = format!("nats://{}", dev.addresses("nats")[0]);
    let answer = async || {
        run(carillon(["publish", "user:1", "a", "--nats"]).arg(&nats))
            .await
            .0
            .then_some(())
    };
    wait::until("an event that is stored", LIMIT, answer).await;
    assert!(is_alive(&dev.nats_pid()) && answers(&router));
}

#[tokio::test]
async fn what_is_printed_can_be_used_as_it_stands() {
    let dev = Dev::start(carillon(["dev", "--edges", "1"]).config(ANYWHERE)).await;
    let token = dev
        .printed
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("eyJ"))
        .unwrap();
    assert_eq!(claims(token, secret("dev-secret")).await["sub"], "42");
    assert!(dev.printed.contains("Bearer dev-key"), "{}", dev.printed);
    assert!(dev.printed.contains("token --config") && dev.printed.contains("--secret dev-secret"));
    let health = dev
        .printed
        .lines()
        .filter_map(|line| line.split_once("health and metrics "));
    for (_, url) in health {
        let response = http::client().get(format!("{url}/readyz")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{url}");
    }
}

#[tokio::test]
async fn a_secret_that_is_set_is_the_one_that_counts() {
    let dev = Dev::start(
        carillon(["dev", "--edges", "1"])
            .config(ANYWHERE)
            .env("JWT_SECRET", "mine"),
    )
    .await;
    let token = dev
        .printed
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("eyJ"))
        .unwrap();
    assert_eq!(claims(token, secret("mine")).await["sub"], "42");
    assert!(!dev.printed.contains("dev-secret"), "{}", dev.printed);
}

#[tokio::test]
async fn a_taken_address_is_one_clear_sentence() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    for (service, key) in [
        ("edge", "listen"),
        ("router", "listen"),
        ("publisher", "listen"),
        ("nats-server", "url"),
    ] {
        let value = match service {
            "nats-server" => format!("nats://{taken}"),
            _ => taken.to_string(),
        };
        let section = if service == "nats-server" { "nats" } else { service };
        let admin = if service == "nats-server" {
            ""
        } else {
            "admin = \"127.0.0.1:0\"\n"
        };
        let config = without(section) + &format!("[{section}]\n{key} = \"{value}\"\n{admin}");
        let (ok, text) = run(carillon(["dev"]).config(config)).await;
        let expected = format!("error: the {service} cannot listen on {taken}: address already in use");
        assert!(
            !ok && text.lines().any(|line| line == expected),
            "{service}: {text}"
        );
    }
}

#[tokio::test]
async fn addresses_that_clash_are_told_with_their_place() {
    for (config, message) in [
        (
            "[publisher]\nlisten = \"127.0.0.1:7001\"",
            "carillon.toml:2: publisher.listen: expected an address for the publisher that the edge does not have, got \
             127.0.0.1:7001",
        ),
        (
            "[edge]\nadmin = \"127.0.0.1:7200\"",
            "carillon.toml:2: edge.admin: expected an address for the router that the edge admin listener does not \
             have, got 127.0.0.1:7200",
        ),
        (
            "[edge]\nlisten = \"127.0.0.1:64535\"",
            "carillon.toml:2: edge.listen: expected a port that leaves one for edge 2, got 127.0.0.1:64535",
        ),
    ] {
        let (ok, text) = run(carillon(["dev"]).config(config)).await;
        assert!(!ok && text.lines().any(|line| line.ends_with(message)), "{text}");
    }
}

/// [`ANYWHERE`] without a section.
fn without(section: &str) -> String {
    let sections = ANYWHERE
        .split("\n[")
        .filter(|part| !part.starts_with(&format!("{section}]")));
    sections
        .filter(|part| !part.trim().is_empty())
        .map(|part| format!("[{}\n", part.trim()))
        .collect()
}

#[tokio::test]
async fn a_nats_server_that_cannot_be_used_is_one_clear_sentence() {
    let dev = || carillon(["dev"]).config(ANYWHERE);
    let (ok, text) = run(dev().env("CARILLON_NATS_SERVER", "/nonexistent/nats-server")).await;
    let expected = "error: cannot run the nats-server /nonexistent/nats-server: No such file or directory";
    assert!(!ok && text.contains(expected), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let old = program(folder.path(), "echo 'nats-server: v2.9.10'");
    let (ok, text) = run(dev().arg("--nats-server").arg(&old)).await;
    let expected = format!("error: nats-server 2.9.10 at {old} is too old: 2.12.0 or newer is needed");
    assert!(!ok && text.contains(&expected), "{text}");

    let failing = program(
        folder.path(),
        "case $1 in --version) echo 'nats-server: v2.15.1';; *) echo no luck; exit 3;; esac",
    );
    let (ok, text) = run(dev().arg("--nats-server").arg(&failing)).await;
    let expected = "error: the nats-server ended at its start (exit status: 3): no luck";
    assert!(!ok && text.contains(expected), "{text}");
}

fn program(folder: &Path, script: &str) -> String {
    let path = folder.join("nats-server");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_store_is_kept_and_is_for_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        carillon(["dev", "--edges", "1", "--store"])
            .arg(folder.path())
            .config(ANYWHERE)
    };
    let dev = Dev::start(start()).await;
    let nats = format!("nats://{}", dev.addresses("nats")[0]);
    assert!(
        run(carillon(["publish", "kept", "a", "1", "--nats"]).arg(&nats))
            .await
            .0
    );

    let (ok, text) = run(start()).await;
    let expected = format!(
        "error: the store directory {} is in use by another carillon dev",
        folder.path().display()
    );
    assert!(!ok && text.lines().any(|line| line == expected), "{text}");

    dev.process.terminate(LIMIT).await;
    let dev = Dev::start(start()).await;
    let nats = format!("nats://{}", dev.addresses("nats")[0]);
    let tail = carillon(["tail", "kept", "--since", "0", "--nats"])
        .arg(&nats)
        .start();
    tail.wait_log("\"payload\":1", LIMIT).await;
}

#[tokio::test]
async fn another_nats_is_used_where_one_is_named() {
    let (ok, text) = run(carillon(["dev", "--nats", "nats://127.0.0.1:1"]).config(ANYWHERE)).await;
    assert!(
        !ok && text.contains("cannot connect to NATS at nats://127.0.0.1:1"),
        "{text}"
    );
    let nats = Server::start().await;
    let dev = Dev::start(
        carillon(["dev", "--edges", "3", "--nats"])
            .arg(nats.url())
            .config(ANYWHERE),
    )
    .await;
    assert_eq!(dev.addresses("edge").len(), 3);
    let status = dev.process.terminate(LIMIT).await;
    assert!(status.success() && nats.is_running());
}
