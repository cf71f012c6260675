mod arbitrary;
mod layers;
mod messages;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Root {
    edge: Edge,
    history: History,
    publisher: Publisher,
    namespaces: BTreeMap<String, Namespace>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Edge {
    listen: SocketAddr,
    #[serde(with = "duration")]
    ping_interval: Duration,
    #[serde(with = "duration::option")]
    idle: Option<Duration>,
    #[serde(with = "bytes")]
    queue: usize,
    #[serde(with = "bytes::option")]
    frame: Option<u32>,
    cors_origin: Vec<String>,
    connections: NonZeroU32,
    port: u16,
    compress: bool,
    ratio: f64,
    secret: String,
    path: Option<PathBuf>,
    storage: Storage,
    pair: (u8, u8),
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7000".parse().unwrap(),
            ping_interval: Duration::from_secs(25),
            idle: None,
            queue: 1 << 20,
            frame: None,
            cors_origin: Vec::new(),
            connections: NonZeroU32::MIN,
            port: 1,
            compress: false,
            ratio: 1.0,
            secret: String::new(),
            path: None,
            storage: Storage::File,
            pair: (0, 0),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Storage {
    File,
    Memory,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct History {
    #[serde(with = "duration")]
    max_age: Duration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Publisher {
    mqtt: Vec<Mqtt>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mqtt {
    url: String,
    #[serde(default)]
    qos: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Namespace {
    on: Vec<Rule>,
    pattern: Option<Pattern>,
    limit: Option<Limit>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    event: String,
    when: Option<String>,
    #[serde(flatten)]
    action: Action,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Join(String),
    Relay { to: String },
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number or a table")]
#[expect(dead_code, reason = "read by Debug alone")]
enum Limit {
    Number(u32),
    Table { most: u32 },
}

#[derive(Debug)]
struct Pattern;

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.contains('{') {
            Ok(Self)
        } else {
            Err(serde::de::Error::custom("expected a parameter in braces"))
        }
    }
}

const ALIASES: &[Alias] = &[
    Alias::with("WS_PORT", &["edge", "listen"], |current, port| {
        let mut address: SocketAddr = match current {
            Some(text) => text.parse().map_err(|_| "an address to change".to_owned())?,
            None => "127.0.0.1:7000".parse().expect("a valid address"),
        };
        address.set_port(
            port.parse()
                .map_err(|_| format!("expected a port, got {port:?}"))?,
        );
        Ok(address.to_string())
    }),
    Alias::new("CORS_ORIGIN", &["edge", "cors_origin"]),
    Alias::new("JWT_SECRET", &["edge", "secret"]),
    Alias::new("MQTT_URL", &["publisher", "mqtt", "*", "url"]),
];

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Loaded<Root>, ConfigError> {
    let environment = variables.iter().copied().collect();
    load(
        &Source::new(environment)
            .text("carillon.toml", text)
            .aliases(ALIASES),
    )
}

fn problem(text: &str, variables: &[(&str, &str)]) -> String {
    match read(text, variables) {
        Ok(loaded) => panic!("loaded {text:?} {variables:?} as {:?}", loaded.value),
        Err(error) => error.to_string(),
    }
}
