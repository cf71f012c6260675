//! A cluster with one profile, its clients and its backend.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use carillon_testkit::clients::{Driver, SioClient, SioOptions, WsClient, WsOptions};
use carillon_testkit::process::Carillon;
use carillon_testkit::{http, net, tokens};
use serde_json::{Value, json};

use crate::backend::Backend;

/// Long enough for a machine that does much else.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const SECRET: &str = "profile-secret";

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}

/// The text of a profile.
pub(crate) fn profile(name: &str) -> String {
    let path = root().join("deploy/profiles").join(name).with_extension("toml");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A running cluster with two edges.
pub(crate) struct Stage {
    _process: Carillon,
    pub(crate) edges: Vec<SocketAddr>,
    pub(crate) publisher: SocketAddr,
    pub(crate) router: SocketAddr,
    pub(crate) nats: String,
    pub(crate) backend: Backend,
    pub(crate) driver: Driver,
}

impl Stage {
    /// Starts a profile as it stands.
    pub(crate) async fn of(name: &str) -> Self {
        Self::with(name, &[]).await
    }

    /// Starts a profile with variables set, as an installation would.
    pub(crate) async fn with(name: &str, env: &[(&str, &str)]) -> Self {
        Self::config(profile(name), env).await
    }

    /// Starts a configuration.
    pub(crate) async fn config(text: String, env: &[(&str, &str)]) -> Self {
        Self::start(text, env, None).await
    }

    /// Starts a configuration with a nats-server of the test's own, if there is one.
    pub(crate) async fn start(text: String, env: &[(&str, &str)], nats: Option<&str>) -> Self {
        let command = Carillon::command(env!("CARGO_BIN_EXE_carillon"), ["dev", "--edges", "2"]);
        let mut command = command.config(text).env("JWT_SECRET", SECRET);
        if let Some(url) = nats {
            command = command.arg("--nats").arg(url);
        }
        for (key, value) in [
            ("CARILLON_EDGE__LISTEN", "127.0.0.1:0"),
            ("CARILLON_ROUTER__LISTEN", "127.0.0.1:0"),
            ("CARILLON_PUBLISHER__LISTEN", "127.0.0.1:0"),
            ("NATS_URL", "nats://127.0.0.1:0"),
        ]
        .into_iter()
        .filter(|(key, _)| *key != "CARILLON_EDGE__LISTEN" || env.iter().all(|(set, _)| *set != "WS_PORT"))
        .chain(env.iter().copied())
        {
            command = command.env(key, value);
        }
        let (process, driver) = tokio::join!(
            async {
                let process = command.start();
                process.wait_log("/v1/events", LIMIT).await;
                process
            },
            Driver::start()
        );
        let printed = process.log().text();
        let edges = addresses(&printed, "edge");
        assert_eq!(edges.len(), 2, "{printed}");
        let nats = format!("nats://{}", addresses(&printed, "nats")[0]);
        Self {
            edges,
            publisher: addresses(&printed, "publisher")[0],
            router: addresses(&printed, "router")[0],
            backend: Backend::connect(&nats).await,
            nats,
            _process: process,
            driver,
        }
    }

    /// A stock client at an edge; `namespace` is the path of the address.
    pub(crate) fn sio(&self, edge: usize, namespace: &str, options: SioOptions) -> SioClient {
        let client = self
            .driver
            .sio(format!("http://{}{namespace}", self.edges[edge]), options);
        client.set_patience(LIMIT / 2);
        client
    }

    /// A stock client over WebSocket, with a token of these claims; it is connected.
    pub(crate) async fn user(&self, edge: usize, namespace: &str, claims: Value) -> (SioClient, String) {
        let client = self.sio(edge, namespace, SioOptions::websocket(token(claims)));
        let sid = client.connected().await.sid;
        (client, sid)
    }

    /// A plain WebSocket at `/ws?token=`; it is welcome.
    pub(crate) async fn plain(&self, edge: usize, claims: Value) -> (WsClient, Value) {
        let url = format!("ws://{}/ws?token={}", self.edges[edge], token(claims));
        let client = self.driver.ws(url, WsOptions::new());
        client.set_patience(LIMIT / 2);
        let welcome = client.next_of_type("welcome").await;
        (client, welcome)
    }

    /// Publishes over HTTP; the answer must be 202.
    pub(crate) async fn post(&self, event: Value) -> Value {
        let request = http::client()
            .post(format!("http://{}/v1/events", self.publisher))
            .bearer_auth("dev-key")
            .json(&event);
        let response = request.send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, 202, "{body}");
        body
    }

    /// Asks a router.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let request = http::client()
            .get(format!("http://{}{path}", self.router))
            .bearer_auth("dev-key");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }
}

/// A token with these claims.
pub(crate) fn token(claims: Value) -> String {
    tokens::hs256(SECRET, &claims)
}

/// A port such that the next one is free too, for the second edge.
pub(crate) fn two_ports() -> u16 {
    loop {
        let first = net::free_port();
        // Their health is at the ports plus 1000.
        let ports = [first + 1, first + 1000, first + 1001];
        if ports
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        {
            return first;
        }
    }
}

/// A refused action, as clients are told it.
pub(crate) fn error_of(event: &carillon_testkit::clients::Event) -> Value {
    let data = event.data();
    json!({ "code": data["code"], "message": data["message"], "event": data["event"] })
}

fn addresses(printed: &str, name: &str) -> Vec<SocketAddr> {
    let lines = printed
        .lines()
        .filter(|line| line.split_whitespace().next() == Some(name));
    let urls = lines.filter_map(|line| line.split_whitespace().nth(1)?.split_once("://"));
    urls.map(|(_, address)| address.parse().unwrap()).collect()
}
