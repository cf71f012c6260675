//! Logs, traces, and the trace context that travels in headers.

mod config;
mod context;

use std::path::PathBuf;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

pub use config::{Config, Format, LogFilter};
pub use context::{TRACEPARENT, TRACESTATE, adopt, context_of, current, extract, inject};

/// Longest time that one export to the collector may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Libraries that tell of normal things as news; the configured filter can still ask for more.
const QUIET: &str = "notify=warn";

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The exporter refuses the endpoint.
    #[error("cannot export traces to the OTLP endpoint")]
    Exporter(#[from] ExporterBuildError),
    /// The file of the collector's authority cannot be read.
    #[error("telemetry.otlp_ca: {} cannot be read", path.display())]
    Authority { path: PathBuf, source: std::io::Error },
    /// This process has a subscriber already.
    #[error("telemetry is started once in a process")]
    Twice(#[from] TryInitError),
}

/// Telemetry that is running; shut it down last, so that the last spans are exported.
#[derive(Debug)]
pub struct Telemetry {
    provider: SdkTracerProvider,
}

/// Starts logs and traces for the whole process; must be called within a runtime.
///
/// Logs go to standard error. A collector that is away costs spans, never anything else: they are
/// batched on a thread of their own and dropped when its queue is full.
pub fn start(config: &Config, service: &str) -> Result<Telemetry, StartError> {
    let provider = provider(config, service)?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("carillon"))
        .with_location(false)
        .with_threads(false)
        .with_filter(filter_fn(is_traced(config.otlp_endpoint.is_some())));
    tracing_subscriber::registry()
        .with(traces)
        .with(logs(config))
        .try_init()?;
    Ok(Telemetry { provider })
}

/// Without an endpoint contexts are still continued, but only a caller's sampled trace costs anything.
fn provider(config: &Config, service: &str) -> Result<SdkTracerProvider, StartError> {
    let name = config.service_name.clone().unwrap_or_else(|| service.to_owned());
    let builder =
        SdkTracerProvider::builder().with_resource(Resource::builder().with_service_name(name).build());
    let Some(endpoint) = &config.otlp_endpoint else {
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        return Ok(builder.with_sampler(sampler).build());
    };
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT);
    if config.is_exported_over_tls() {
        exporter = exporter.with_tls_config(trusted(config)?);
    }
    let exporter = exporter.build()?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    Ok(builder
        .with_sampler(sampler)
        .with_batch_exporter(exporter)
        .build())
}

/// Whose certificates a collector may show.
fn trusted(config: &Config) -> Result<ClientTlsConfig, StartError> {
    let tls = ClientTlsConfig::new();
    let Some(path) = &config.otlp_ca else {
        return Ok(tls.with_native_roots());
    };
    let pem = std::fs::read(path).map_err(|source| StartError::Authority {
        path: path.clone(),
        source,
    })?;
    Ok(tls.ca_certificate(Certificate::from_pem(pem)))
}

/// The exporter's own requests must not become spans that are exported in turn.
///
/// Spans of what is too frequent for anyone but a collector are at DEBUG, and without one they are not even made.
fn is_traced(exported: bool) -> impl Fn(&Metadata<'_>) -> bool + use<> {
    move |metadata| {
        let frequent = exported && metadata.is_span() && *metadata.level() == Level::DEBUG;
        is_ours(metadata) && (*metadata.level() <= Level::INFO || frequent)
    }
}

fn logs<S>(config: &Config) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let filter = filter(config);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match config.format {
        Format::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            layer.with_ansi(is_terminal).with_filter(filter).boxed()
        }
        Format::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

fn filter<S: Subscriber>(config: &Config) -> impl Filter<S> + use<S> {
    let configured = EnvFilter::builder().parse_lossy(format!("{QUIET},{}", config.log.as_str()));
    filter_fn(is_logged).and(configured)
}

/// Below INFO async-nats prints all that it reads and writes, and with it tokens; others may.
fn is_logged(metadata: &Metadata<'_>) -> bool {
    is_ours(metadata) || *metadata.level() <= Level::INFO
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("carillon")
}

impl Telemetry {
    /// Exports what is left, as far as that is possible in this time.
    pub async fn shutdown(self, within: Duration) {
        let (done, finished) = tokio::sync::oneshot::channel();
        // A thread of its own: the runtime would wait for a blocking task that outlives the time.
        let flush = std::thread::Builder::new()
            .name("telemetry-flush".to_owned())
            .spawn(move || {
                let _ = done.send(self.provider.shutdown_with_timeout(within));
            });
        if let Err(error) = flush {
            tracing::warn!(%error, "cannot flush traces");
            return;
        }
        match tokio::time::timeout(within, finished).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans were not exported"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the last spans were not exported in time"),
        }
    }
}

#[cfg(test)]
mod tests;
