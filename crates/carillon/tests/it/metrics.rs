//! What `/metrics` shows from the start.

use carillon_testkit::{http, nats::Server};

use crate::dev::Dev;

/// The names in the sources of the services that end like those of counters.
fn counters() -> Vec<String> {
    let crates = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut names = Vec::new();
    for service in ["edge", "publisher", "router"] {
        let source = std::fs::read_to_string(format!("{crates}/{service}/src/metrics.rs")).unwrap();
        let constants = source.split(": &str = \"").skip(1);
        let literals = constants.filter_map(|rest| rest.split('"').next());
        names.extend(
            literals
                .filter(|name| name.ends_with("_total"))
                .map(str::to_owned),
        );
    }
    names
}

/// To Prometheus a counter that first shows 500 has not risen, so a rate or an alert would not tell of the first storm.
#[tokio::test(flavor = "multi_thread")]
async fn every_counter_is_there_before_it_counts() {
    let nats = Server::start().await;
    let dev = Dev::over(&nats).await;
    let names = counters();
    assert!(names.len() > 20, "{names:?}");
    let mut shown = String::new();
    for line in dev.printed.lines() {
        if let Some((_, admin)) = line.split_once("health and metrics ") {
            shown += &http::text(&format!("{}/metrics", admin.trim())).await;
        }
    }
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !shown.contains(&format!("\n# TYPE {name} counter\n")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
