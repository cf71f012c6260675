//! What every process of Carillon needs: settings, telemetry, metrics, health, listeners and shutdown.
//!
//! This crate knows neither clients nor the bus. Its modules, in reading order:
//!
//! - [`config`] loads settings from a file and variables, with messages that name the place;
//! - [`settings`] holds the sections that several services share;
//! - [`telemetry`] starts logs and traces, and carries trace context in headers;
//! - [`metrics`] installs the Prometheus recorder;
//! - [`readiness`] says why a service is not ready, and [`admin`] serves that with health and metrics;
//! - [`listen`] binds and serves plain HTTP, and [`problem`] is the form of its errors;
//! - [`supervise`] notices tasks that end too early;
//! - [`shutdown`] turns signals into a stop under a deadline, and [`reload`] tells of changed settings.

pub mod admin;
pub mod config;
pub mod listen;
pub mod metrics;
pub mod problem;
pub mod readiness;
pub mod reload;
pub mod settings;
pub mod shutdown;
pub mod supervise;
pub mod telemetry;
