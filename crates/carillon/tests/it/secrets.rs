use carillon_testkit::{http, tokens};
use serde_json::{Value, json};

use crate::carillon;
use crate::dev::{ANYWHERE, Dev};

#[tokio::test]
async fn no_log_level_shows_a_token() {
    let config = format!("{ANYWHERE}[telemetry]\nlog = \"trace\"\n");
    let dev = Dev::start(carillon(["dev"]).config(config)).await;
    let edges = dev.addresses("edge");
    let polling = |edge: usize, query: &str| {
        format!("http://{}/socket.io/?EIO=4&transport=polling{query}", edges[edge])
    };
    let http = http::client();
    let get = async |url: String| http.get(url).send().await.unwrap().text().await.unwrap();
    let shown = ["connect", "query", "header"].map(tokens::dev);
    let [connect, query, header] = &shown;

    // The packet goes from the edge that got it to the one that has the session.
    let open = get(polling(0, "")).await;
    let open: Value = serde_json::from_str(&open[1..]).unwrap();
    let session = format!("&sid={}", open["sid"].as_str().unwrap());
    let packet = format!("40{}", json!({ "token": connect }));
    let posted = http.post(polling(1, &session)).body(packet).send().await;
    assert_eq!(posted.unwrap().status(), 200);
    let connected = get(polling(1, &session)).await;
    assert!(connected.starts_with("40{"), "{connected}");

    get(polling(0, &format!("&token={query}"))).await;
    let api = format!("http://{}/v1/rooms/a", dev.addresses("router")[0]);
    let refused = http.get(api).bearer_auth(header).send().await.unwrap();
    assert_eq!(refused.status(), 403);

    let log = dev.process.log().text();
    assert!(log.contains("carillon"), "the log is read");
    for token in &shown {
        let (_, secret) = token.split_once('.').unwrap();
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}
