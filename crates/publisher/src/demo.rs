//! Demonstration signals: a sine with noise, once for the cluster.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

use carillon_bus::{Bus, Lease};
use carillon_protocol::event::{Event, Payload};
use carillon_protocol::headers::Headers;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::config::Demo;
use crate::signal;

/// One signal that is made here.
pub(crate) struct Feed {
    pub(crate) index: usize,
    pub(crate) settings: Demo,
    pub(crate) bus: Bus,
    pub(crate) holder: Arc<str>,
    pub(crate) lease: Duration,
}

impl Feed {
    /// Publishes whenever this publisher holds the feed's lease, until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let name = format!("demo.{}", self.index);
        loop {
            let acquired = Lease::acquire(&self.bus, &name, &self.holder, self.lease);
            let Some(lease) = shutdown.run_until_cancelled(acquired).await else {
                return;
            };
            tokio::select! {
                () = self.publish() => {}
                () = lease.lost() => {}
                () = shutdown.cancelled() => {}
            }
            lease.release().await;
            if shutdown.is_cancelled() {
                return;
            }
        }
    }

    async fn publish(&self) {
        let mut ticks = tokio::time::interval(self.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let rooms = [self.settings.room.clone()];
        loop {
            ticks.tick().await;
            let time = carillon_bus::history::now();
            let value = self.settings.value(time, fastrand::f64() * 2.0 - 1.0);
            let event = Event {
                name: self.settings.event.clone(),
                payload: Payload::One(format!("{{\"value\":{value:.3}}}").into()),
                id: None,
                except: None,
                time,
            };
            let sent = signal::send(
                &self.bus,
                &self.settings.namespace,
                &rooms,
                &event,
                &Headers::new(),
                &Span::none(),
            )
            .await;
            if let Err(error) = sent {
                tracing::debug!(%error, "demonstration signal is not passed on");
            }
        }
    }
}

impl Demo {
    /// The wave follows the clock, so that another publisher goes on with it.
    fn value(&self, time: u64, noise: f64) -> f64 {
        let phase = (time as f64 / 1000.0) / self.period.as_secs_f64();
        self.offset + self.amplitude * (TAU * phase.fract()).sin() + self.noise * noise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wave_has_its_amplitude_and_offset() {
        let demo: Demo =
            serde_json::from_str(r#"{"room":"r","amplitude":2.0,"offset":10.0,"noise":0.5}"#).unwrap();
        assert!((demo.value(0, 0.0) - 10.0).abs() < 1e-9);
        assert!((demo.value(15_000, 0.0) - 12.0).abs() < 1e-9);
        assert!((demo.value(45_000, -1.0) - 7.5).abs() < 1e-9);
    }
}
