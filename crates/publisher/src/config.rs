//! The `[publisher]` section of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use carillon_auth::Secret;
use carillon_protocol::names::{self, Namespace, Room};
use carillon_service::config::{bytes, duration};
use serde::Deserialize;

use crate::mqtt::template::Template;

/// How events come in.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the HTTP interface listens.
    pub listen: SocketAddr,
    /// Where health and metrics are served; the port of `listen` + 1000 if unset.
    pub admin: Option<SocketAddr>,
    /// Partitions of INGEST, the same for every service of a cluster.
    pub partitions: u32,
    /// How long an HTTP request waits for NATS.
    #[serde(with = "duration")]
    pub ingest_timeout: Duration,
    /// How long an HTTP request with `receipt` waits for the store.
    #[serde(with = "duration")]
    pub receipt_timeout: Duration,
    /// Largest body of an HTTP request.
    #[serde(with = "bytes")]
    pub max_body: u64,
    /// Most rooms of one event, at most 1000.
    pub max_rooms: usize,
    /// Most events of one batch request.
    pub max_batch: usize,
    /// HTTP connections at once; the next ones wait.
    pub max_connections: usize,
    /// Age at which the lease of a publisher that hangs counts as lost.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// MQTT brokers to read from.
    pub mqtt: Vec<Mqtt>,
    /// Demonstration signals.
    pub demo: Vec<Demo>,
}

/// `[[publisher.mqtt]]`: what comes from one broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// `mqtt://host:port` or `mqtts://host:port`.
    pub url: String,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// The name under which the broker keeps the session; made from the other settings if unset.
    pub client_id: Option<String>,
    /// The topic filter, with `+` and `#`.
    pub topic: String,
    /// 0, 1 or 2.
    #[serde(default = "at_least_once")]
    pub qos: u8,
    #[serde(default = "Namespace::main")]
    pub namespace: Namespace,
    /// The room; `{1}` is what the first wildcard of the filter stands for, `{topic}` the whole topic.
    pub room: Template,
    /// The event's name, with the same placeholders.
    pub event: Template,
    /// Signals instead of durable events.
    #[serde(default)]
    pub ephemeral: bool,
    /// PEM file of the authority for `mqtts`; the system's are used otherwise.
    pub ca: Option<std::path::PathBuf>,
}

/// `[[publisher.demo]]`: a sine with noise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demo {
    pub room: Room,
    #[serde(default = "value")]
    pub event: String,
    #[serde(default = "Namespace::main")]
    pub namespace: Namespace,
    #[serde(with = "duration", default = "second")]
    pub interval: Duration,
    /// Time of one wave.
    #[serde(with = "duration", default = "minute")]
    pub period: Duration,
    #[serde(default = "amplitude")]
    pub amplitude: f64,
    #[serde(default)]
    pub offset: f64,
    /// Largest deviation from the wave.
    #[serde(default = "noise")]
    pub noise: f64,
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The path of the setting.
    pub key: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 7100).into(),
            admin: None,
            partitions: 4,
            ingest_timeout: Duration::from_secs(10),
            receipt_timeout: Duration::from_secs(10),
            max_body: 1 << 20,
            max_rooms: MOST_ROOMS,
            max_batch: 1000,
            max_connections: 1024,
            lease: Duration::from_secs(8),
            mqtt: Vec::new(),
            demo: Vec::new(),
        }
    }
}

/// One atomic batch of JetStream has at most this many messages.
pub(crate) const MOST_ROOMS: usize = 1000;

impl Config {
    /// Returns where health and metrics are served.
    pub fn admin(&self) -> SocketAddr {
        self.admin.unwrap_or_else(|| match self.listen.port() {
            0 => SocketAddr::new(self.listen.ip(), 0),
            port => SocketAddr::new(self.listen.ip(), port.wrapping_add(1000)),
        })
    }

    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: &str| {
            Err(ConfigError {
                key: format!("publisher.{key}"),
                problem: problem.to_owned(),
            })
        };
        if !(1..=256).contains(&self.partitions) {
            return wrong("partitions", "expected 1 to 256");
        }
        if !(1..=MOST_ROOMS).contains(&self.max_rooms) {
            return wrong("max_rooms", "expected 1 to 1000");
        }
        for (key, is_zero) in [
            ("max_batch", self.max_batch == 0),
            ("max_connections", self.max_connections == 0),
            ("max_body", self.max_body == 0),
        ] {
            if is_zero {
                return wrong(key, "expected more than zero");
            }
        }
        if self.lease < Duration::from_secs(2) {
            return wrong("lease", "expected at least 2s");
        }
        for (index, mqtt) in self.mqtt.iter().enumerate() {
            if let Err(problem) = mqtt.check() {
                return wrong(&format!("mqtt[{index}].{}", problem.0), &problem.1);
            }
        }
        for (index, demo) in self.demo.iter().enumerate() {
            if let Err(problem) = demo.check() {
                return wrong(&format!("demo[{index}].{}", problem.0), problem.1);
            }
        }
        Ok(())
    }
}

impl Mqtt {
    fn check(&self) -> Result<(), (&'static str, String)> {
        crate::mqtt::broker(&self.url).map_err(|problem| ("url", problem.to_owned()))?;
        if self.client_id.as_deref() == Some("") {
            return Err((
                "client_id",
                "expected a name, or nothing for one that is made".to_owned(),
            ));
        }
        if self.qos > 2 {
            return Err(("qos", "expected 0, 1 or 2".to_owned()));
        }
        if !rumqttc::valid_filter(&self.topic) {
            return Err(("topic", "expected an MQTT topic filter".to_owned()));
        }
        let wildcards = self
            .topic
            .split('/')
            .filter(|level| matches!(*level, "+" | "#"))
            .count();
        for (key, template) in [("room", &self.room), ("event", &self.event)] {
            if template.highest() > wildcards {
                return Err((
                    key,
                    format!("expected placeholders up to {{{wildcards}}}, as the topic has wildcards"),
                ));
            }
        }
        Ok(())
    }
}

impl Demo {
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if names::check_event(&self.event).is_err() {
            return Err(("event", "expected 1 to 128 bytes"));
        }
        if self.interval < Duration::from_millis(10) {
            return Err(("interval", "expected at least 10ms"));
        }
        if self.period.is_zero() {
            return Err(("period", "expected more than zero"));
        }
        for (key, number) in [
            ("amplitude", self.amplitude),
            ("offset", self.offset),
            ("noise", self.noise),
        ] {
            // JSON has no other numbers; a sum of three has to be one too.
            if number.abs() > LARGEST || number.is_nan() {
                return Err((key, "expected a number between -1e100 and 1e100"));
            }
        }
        Ok(())
    }
}

/// Largest number of a demonstration signal.
const LARGEST: f64 = 1e100;

fn at_least_once() -> u8 {
    1
}

fn value() -> String {
    "value".to_owned()
}

fn second() -> Duration {
    Duration::from_secs(1)
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn amplitude() -> f64 {
    1.0
}

fn noise() -> f64 {
    0.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config {
            mqtt: vec![],
            ..Config::default()
        }
        .with(text)
    }

    impl Config {
        fn with(mut self, mqtt: &str) -> Self {
            self.mqtt.push(serde_json::from_str(mqtt).unwrap());
            self
        }
    }

    #[test]
    fn an_mqtt_source_is_checked() {
        let good = r#"{"url":"mqtt://127.0.0.1:1883","topic":"s/+/t","room":"sensor:{1}","event":"t"}"#;
        assert_eq!(config(good).check(), Ok(()));
        for (text, key) in [
            (
                r#"{"url":"http://x","topic":"s","room":"r","event":"t"}"#,
                "publisher.mqtt[0].url",
            ),
            (
                r#"{"url":"mqtt://x","client_id":"","topic":"s","room":"r","event":"t"}"#,
                "publisher.mqtt[0].client_id",
            ),
            (
                r#"{"url":"mqtt://x","topic":"s/#/t","room":"r","event":"t"}"#,
                "publisher.mqtt[0].topic",
            ),
            (
                r#"{"url":"mqtt://x","topic":"s","qos":3,"room":"r","event":"t"}"#,
                "publisher.mqtt[0].qos",
            ),
            (
                r#"{"url":"mqtt://x","topic":"s/+","room":"{2}","event":"t"}"#,
                "publisher.mqtt[0].room",
            ),
        ] {
            assert_eq!(config(text).check().unwrap_err().key, key);
        }
    }

    #[test]
    fn the_admin_port_follows_the_listener() {
        assert_eq!(Config::default().admin().port(), 8100);
    }
}
