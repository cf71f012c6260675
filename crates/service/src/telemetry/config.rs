use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error, Unexpected};
use tracing_subscriber::EnvFilter;

/// `[telemetry]`: logs and traces.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is logged, in the form of `RUST_LOG`.
    pub log: LogFilter,
    /// The form of a log line.
    pub format: Format,
    /// Where traces go, over gRPC; without it none are exported.
    #[serde(deserialize_with = "endpoint")]
    pub otlp_endpoint: Option<String>,
    /// PEM file of the authority of an `https` collector, instead of those that the system trusts.
    pub otlp_ca: Option<PathBuf>,
    /// `service.name` in traces, instead of the service's own.
    pub service_name: Option<String>,
    /// Share of the traces that begin here which are exported, 0 to 1.
    #[serde(deserialize_with = "ratio")]
    pub sample_ratio: f64,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For collectors: an object a line.
    Json,
}

/// Levels for all targets or for some: `info`, or `info,carillon_edge=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: LogFilter("info".to_owned()),
            format: Format::default(),
            otlp_endpoint: None,
            otlp_ca: None,
            service_name: None,
            sample_ratio: 1.0,
        }
    }
}

impl Config {
    /// Returns whether traces go to a collector that speaks TLS.
    pub(super) fn is_exported_over_tls(&self) -> bool {
        let endpoint = self.otlp_endpoint.as_deref().unwrap_or_default();
        endpoint
            .get(..6)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }

    /// Returns the setting that contradicts another: its key, and what was expected.
    pub fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        (self.otlp_ca.is_some() && !self.is_exported_over_tls()).then_some((
            "otlp_ca",
            "expected telemetry.otlp_endpoint to begin with https:// beside it",
        ))
    }
}

impl<'de> Deserialize<'de> for LogFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match EnvFilter::builder().parse(&text) {
            Ok(_) => Ok(Self(text)),
            Err(_) => {
                let expected = "a log filter such as \"info,carillon_edge=debug\"";
                Err(D::Error::invalid_value(Unexpected::Str(&text), &expected))
            }
        }
    }
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let is_http = text
        .parse::<axum::http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    if !is_http {
        let expected = "an address such as \"http://127.0.0.1:4317\" or \"https://collector:4317\"";
        return Err(D::Error::invalid_value(Unexpected::Str(&text), &expected));
    }
    Ok(Some(text))
}

fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(deserializer)?;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(D::Error::invalid_value(
            Unexpected::Float(ratio),
            &"a number from 0 to 1",
        ));
    }
    Ok(ratio)
}
