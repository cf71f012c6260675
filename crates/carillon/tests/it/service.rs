use std::time::Duration;

use carillon_testkit::nats::Server;
use carillon_testkit::process::{Carillon, Signal};
use carillon_testkit::{http, net};

use crate::{LIMIT, carillon};

/// Settings of one service at a free address.
fn config(nats: &Server, service: &str, more: &str) -> (String, std::net::SocketAddr) {
    let admin = net::free_addr();
    let text = format!(
        "[nats]\nurl = \"{}\"\n[auth]\nsecret = \"s\"\n{more}\n[{service}]\nlisten = \"127.0.0.1:0\"\nadmin = \"{admin}\"\ndrain = \"4s\"\n",
        nats.url()
    );
    let text = match service {
        "edge" => text + "drain_delay = \"0s\"\n",
        "publisher" => text.replace("drain = \"4s\"\n", ""),
        _ => text,
    };
    (text, admin)
}

#[tokio::test]
async fn a_service_waits_for_nats_and_stops_on_a_signal() {
    let mut nats = Server::start().await;
    for service in ["router", "publisher", "edge"] {
        let (config, admin) = config(&nats, service, "");
        nats.stop().await;
        let process = carillon([service]).config(config).start();
        process.wait_log("waiting for NATS", LIMIT).await;
        process.wait_readyz(admin, 503, LIMIT).await;
        let health = http::client()
            .get(format!("http://{admin}/healthz"))
            .send()
            .await
            .unwrap();
        assert_eq!(health.status(), 200);
        nats.restart().await;
        process.wait_ready(admin, LIMIT).await;
        let status = process.terminate(Duration::from_secs(15)).await;
        assert!(status.success(), "{service}: {status}");
    }
}

#[tokio::test]
async fn a_signal_ends_the_wait_for_nats() {
    let mut nats = Server::start().await;
    nats.stop().await;
    let (config, _) = config(&nats, "router", "");
    let process = carillon(["router"]).config(config).start();
    process.wait_log("waiting for NATS", LIMIT).await;
    assert!(process.terminate(Duration::from_secs(5)).await.success());
}

#[tokio::test]
async fn a_running_edge_takes_new_rules_and_keeps_the_old_for_bad_ones() {
    let nats = Server::start().await;
    let rules = |when: &str| format!("[[namespaces.\"/\".rooms]]\npattern = \"a\"\njoin = {when:?}\n");
    let (text, admin) = config(&nats, "edge", &rules("true"));
    let mut process: Carillon = carillon(["edge"]).config(&text).start();
    process.wait_ready(admin, LIMIT).await;

    process.rewrite_config(text.replace(&rules("true"), &rules("false")));
    process.wait_log("the rules are loaded again", LIMIT).await;
    process.rewrite_config(text.replace(&rules("true"), &rules("nobody ==")));
    let line = process
        .wait_log("the settings are wrong, the rules stay as they were", LIMIT)
        .await;
    assert!(
        line.contains("namespaces.\\\"/\\\".rooms[0].join") || line.contains("rooms[0].join"),
        "{line}"
    );
    process.log().clear();
    process.rewrite_config(text);
    process.wait_log("the rules are loaded again", LIMIT).await;
    process.log().clear();
    process.signal(Signal::HUP);
    process.wait_log("SIGHUP", LIMIT).await;
    assert!(process.is_running());
}
