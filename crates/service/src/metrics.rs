//! The process's one Prometheus recorder.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// How often samples are moved into their histograms, which bounds what lies between two scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Bounds of every histogram whose name ends in `_seconds`.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0,
];

/// Bounds of every histogram whose name ends in `_bytes`.
const BYTES: &[f64] = &[
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
];

/// The recorder that this process installed, if any; services that share a process share it.
static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Why metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the metrics recorder")]
pub struct InstallError(#[from] BuildError);

/// Renders what all services of this process recorded.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// Installs the recorder, or returns the one that another service of this process installed.
pub fn install() -> Result<Metrics, InstallError> {
    let mut installed = INSTALLED.lock();
    if let Some(handle) = &*installed {
        return Ok(Metrics {
            handle: handle.clone(),
        });
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), BYTES)?
        .install_recorder()?;
    *installed = Some(handle.clone());
    Ok(Metrics { handle })
}

impl Metrics {
    /// The text of a scrape.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Does the recorder's housekeeping until the process stops.
    pub async fn run_upkeep(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.handle.run_upkeep();
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn services_of_one_process_share_a_recorder() {
        let (first, second) = (install().unwrap(), install().unwrap());
        ::metrics::histogram!("test_latency_seconds").record(0.003);
        ::metrics::counter!("test_errors_total", "code" => "rate_limited").increment(2);
        assert_eq!(first.render(), second.render());
        let text = first.render();
        assert!(
            text.contains("test_latency_seconds_bucket{le=\"0.005\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("test_latency_seconds_bucket{le=\"0.002\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("test_errors_total{code=\"rate_limited\"} 2"),
            "{text}"
        );

        let shutdown = CancellationToken::new();
        let upkeep = tokio::spawn(first.run_upkeep(shutdown.clone()));
        shutdown.cancel();
        upkeep.await.unwrap();
    }
}
