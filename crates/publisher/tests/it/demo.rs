use std::time::{Duration, Instant};

use carillon_publisher::Demo;
use serde_json::{Value, json};

use crate::stage::{LIMIT, Options, Stage};

#[tokio::test]
async fn a_demonstration_signal_comes_once_for_the_cluster() {
    let demo: Demo = serde_json::from_value(json!({ "room": "metricas/demo", "interval": "100ms" })).unwrap();
    let mut options = Options::default();
    options.config.demo.push(demo);
    let stage = Stage::with(options).await;
    let mut deliveries = stage
        .bus
        .subscribe("rt.out.main.r.metricas/demo", None)
        .await
        .unwrap();
    let publishers = [stage.publisher().await, stage.publisher().await];
    let mut next = async || {
        tokio::time::timeout(LIMIT, deliveries.next())
            .await
            .unwrap()
            .unwrap()
    };
    next().await;
    let begun = Instant::now();
    for _ in 0..12 {
        let delivery = next().await;
        let data: Value = serde_json::from_slice(&delivery.body).unwrap();
        assert!(
            data["value"].as_f64().is_some_and(|value| value.abs() <= 1.1),
            "{data}"
        );
        assert_eq!(delivery.headers.get("Carillon-Event"), Some("value"));
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(1000),
        "{:?}",
        begun.elapsed()
    );
    let [first, second] = publishers;
    first.stop().await;
    next().await;
    next().await;
    second.stop().await;
}
