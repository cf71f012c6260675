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
            service_name: None,
            sample_ratio: 1.0,
        }
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
        .is_ok_and(|uri| uri.scheme_str() == Some("http"));
    if !is_http {
        let expected = "an address such as \"http://127.0.0.1:4317\"";
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
