use carillon_testkit::clients::{SioOptions, WsOptions};
use carillon_testkit::tokens;
use serde_json::json;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_recovered_at_another_edge_more_than_once() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let client = stage
        .driver
        .sio(first.url(), SioOptions::websocket(tokens::dev("42")));
    let sid = client.connected().await.sid;
    stage.publish("user:42", "tick", json!({ "n": 0 })).await;
    client.next_event("tick").await;
    let mut n = 1;
    for edge in [&second, &first, &first, &second] {
        client.set_url(&edge.url()).await;
        client.cut();
        for _ in 0..3 {
            stage.publish("user:42", "tick", json!({ "n": n })).await;
            n += 1;
        }
        let connected = client.connected().await;
        assert!(connected.recovered);
        assert_eq!(connected.sid, sid);
    }
    for expected in 1..n {
        assert_eq!(client.next_event("tick").await.data()["n"], expected);
    }
    stage.publish("user:42", "end", json!(0)).await;
    client.next_event("end").await;
    client.assert_no_event("tick");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_session_does_not_get_the_events_of_its_own_room_again() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let client = stage
        .driver
        .sio(first.url(), SioOptions::websocket(tokens::dev("42")));
    let room = format!("session:{}", client.connected().await.sid);
    for n in 0..3 {
        stage.publish(&room, "tick", json!(n)).await;
        assert_eq!(client.next_event("tick").await.data(), n);
    }
    client.set_url(&second.url()).await;
    client.cut();
    assert!(client.connected().await.recovered);
    for n in 3..6 {
        stage.publish(&room, "tick", json!(n)).await;
        assert_eq!(client.next_event("tick").await.data(), n);
    }
    stage.publish("user:42", "end", json!(0)).await;
    client.next_event("end").await;
    client.assert_no_event("tick");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_session_is_recovered_too_and_another_user_recovers_nothing() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let client = stage
        .driver
        .sio(edge.url(), SioOptions::websocket(tokens::dev("42")));
    let sid = client.connected().await.sid;
    client.cut();
    let again = client.connected().await;
    assert_eq!((again.recovered, &again.sid), (true, &sid));
    client.set_auth(json!({ "token": tokens::dev("43") })).await;
    client.cut();
    let other = client.connected().await;
    assert!(!other.recovered);
    assert_ne!(other.sid, sid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_resumes_its_automatic_rooms() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let (client, _) = stage.ws(&first, "42").await;
    stage.publish("user:42", "tick", json!(0)).await;
    let offset = client.next_event("tick").await["offset"]
        .as_str()
        .unwrap()
        .to_owned();
    for n in 1..=3 {
        stage.publish("user:42", "tick", json!(n)).await;
    }
    let url = format!(
        "ws://{}/ws?token={}&since={offset}",
        second.address,
        tokens::dev("42")
    );
    let resumed = stage.driver.ws(&url, WsOptions::new());
    assert_eq!(resumed.next_of_type("welcome").await["recovered"], true);
    for n in 1..=3 {
        assert_eq!(resumed.next_event("tick").await["payload"], n);
    }
    let url = format!(
        "ws://{}/ws?token={}&since=nonsense",
        second.address,
        tokens::dev("42")
    );
    let lost = stage.driver.ws(&url, WsOptions::new());
    assert_eq!(lost.next_of_type("welcome").await["recovered"], false);
    assert_eq!(lost.next_of_type("error").await["code"], "history_lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_inside_a_list_skips_the_other_copies() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    stage
        .store("user:42", "both", json!(1), crate::stage::copy_of_list(0, 2))
        .await;
    stage
        .store("all", "both", json!(1), crate::stage::copy_of_list(1, 2))
        .await;
    let offset = client.next_event("both").await["offset"]
        .as_str()
        .unwrap()
        .to_owned();
    stage.publish("all", "end", json!(2)).await;
    let url = format!(
        "ws://{}/ws?token={}&since={offset}",
        edge.address,
        tokens::dev("42")
    );
    let resumed = stage.driver.ws(&url, WsOptions::new());
    resumed.next_event("end").await;
    resumed.assert_no_message("second copy", |message| message["event"] == "both");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_drains_lets_its_clients_recover_elsewhere() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let client = stage
        .driver
        .sio(first.url(), SioOptions::websocket(tokens::dev("42")));
    client.connected().await;
    client.set_url(&second.url()).await;
    first.stop().await;
    stage.publish("user:42", "tick", json!(1)).await;
    assert!(client.connected().await.recovered);
    client.next_event("tick").await;
}
