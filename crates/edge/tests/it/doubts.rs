//! Events that may never have been delivered, and clients that come back without the edge that could tell.

use carillon_bus::Bucket;
use carillon_protocol::doubt::Findings;
use carillon_testkit::clients::{SioClient, SioOptions, WsOptions};
use carillon_testkit::{tokens, wait};
use serde_json::json;

use crate::mortal::Mortal;
use crate::stage::{Edge, PATIENCE, Stage};

impl Stage {
    async fn sio_at(&self, edge: &Mortal) -> SioClient {
        let url = format!("http://{}", edge.address);
        let client = self.driver.sio(url, SioOptions::websocket(tokens::dev("42")));
        client.connected().await;
        client
    }

    /// Stores an event that is never delivered, and returns its sequence.
    async fn publish_undelivered(&self, room: &str, event: &str) -> u64 {
        let republish = self.without_republish().await;
        let sequence = self.publish(room, event, json!({})).await;
        self.with_republish(republish).await;
        sequence
    }

    /// Sends a client a later event than one that it lacks, whose sequence is returned.
    async fn pass_over(&self, client: &SioClient) -> u64 {
        let sequence = self.publish_undelivered("user:42", "undelivered").await;
        self.publish("all", "later", json!({})).await;
        client.next_event("later").await;
        sequence
    }

    /// Nothing of that name comes before the next event.
    async fn ends_without(&self, client: &SioClient, event: &str) {
        self.publish("user:42", "end", json!({})).await;
        client.next_event("end").await;
        client.assert_no_event(event);
    }

    /// Waits until both edges have written down that they looked at a doubt.
    async fn looked_at(&self, doubt: u64) {
        wait::until_true("the edges looked at the doubt", PATIENCE, async || {
            let entries = self.bus.table(Bucket::Cluster).all("findings.*.*").await.unwrap();
            let findings = entries
                .iter()
                .filter_map(|entry| serde_json::from_slice::<Findings>(&entry.value).ok());
            findings.filter(|findings| findings.through >= doubt).count() == 2
        })
        .await;
    }
}

/// Recovers the client's session at another edge.
async fn move_to(client: &SioClient, edge: &Edge) {
    client.set_patience(PATIENCE);
    client.set_url(&edge.url()).await;
    client.cut();
    assert!(client.connected().await.recovered);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edge_found_in_order_is_not_sent_again_after_its_death() {
    let stage = Stage::start().await;
    let (first, second) = (Mortal::start(&stage).await, stage.edge().await);
    let client = stage.sio_at(&first).await;
    let sequence = stage.publish("user:42", "doubted", json!({})).await;
    client.next_event("doubted").await;
    stage.publish("all", "later", json!({})).await;
    client.next_event("later").await;
    let doubt = stage.doubt("user:42", sequence - 1).await;
    stage.looked_at(doubt).await;
    first.kill();
    move_to(&client, &second).await;
    stage.ends_without(&client, "doubted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_late_is_not_sent_again_after_the_edges_death() {
    let stage = Stage::start().await;
    let (first, second) = (Mortal::start(&stage).await, stage.edge().await);
    let client = stage.sio_at(&first).await;
    let sequence = stage.pass_over(&client).await;
    stage.doubt("user:42", sequence - 1).await;
    client.next_event("undelivered").await;
    first.kill();
    move_to(&client, &second).await;
    stage.ends_without(&client, "undelivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_edge_did_not_look_at_is_read_by_the_next() {
    let stage = Stage::start().await;
    let (first, second) = (Mortal::start(&stage).await, stage.edge().await);
    let client = stage.sio_at(&first).await;
    let sequence = stage.pass_over(&client).await;
    first.kill();
    stage.doubt("user:42", sequence - 1).await;
    move_to(&client, &second).await;
    client.next_event("undelivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_comes_after_the_recovery_counts_as_well() {
    let stage = Stage::start().await;
    let (first, second) = (Mortal::start(&stage).await, stage.edge().await);
    let client = stage.sio_at(&first).await;
    let sequence = stage.pass_over(&client).await;
    first.kill();
    move_to(&client, &second).await;
    stage.doubt("user:42", sequence - 1).await;
    client.next_event("undelivered").await;
    stage.ends_without(&client, "undelivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changed_its_edge_before_a_doubt_gets_nothing_twice() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let client = stage.sio(&first, "42").await;
    let (plain, _) = stage.ws(&first, "42").await;
    let sequence = stage.publish("user:42", "doubted", json!({})).await;
    stage.publish("all", "later", json!({})).await;
    client.next_event("doubted").await;
    client.next_event("later").await;
    plain.next_event("doubted").await;
    let since = plain.next_event("later").await["offset"].clone();
    move_to(&client, &second).await;
    let url = format!(
        "ws://{}/ws?token={}&since={}",
        second.address,
        tokens::dev("42"),
        since.as_str().unwrap()
    );
    let plain = stage.driver.ws(url, WsOptions::new());
    assert_eq!(plain.next_of_type("welcome").await["recovered"], true);
    stage.doubt("user:42", sequence - 1).await;
    stage.ends_without(&client, "doubted").await;
    plain.next_event("end").await;
    plain.assert_no_message("another copy", |message| message["event"] == "doubted");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changed_its_edge_before_a_doubt_gets_what_the_former_one_lacked() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let client = stage.sio(&first, "42").await;
    let sequence = stage.pass_over(&client).await;
    move_to(&client, &second).await;
    stage.doubt("user:42", sequence - 1).await;
    client.next_event("undelivered").await;
    // A publisher may doubt the same event again.
    let doubt = stage.doubt("user:42", sequence - 1).await;
    stage.looked_at(doubt).await;
    stage.ends_without(&client, "undelivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_gets_what_its_dead_edge_did_not_look_at() {
    let stage = Stage::start().await;
    let first = Mortal::start(&stage).await;
    let url = |address| format!("ws://{address}/ws?token={}", tokens::dev("42"));
    let client = stage.driver.ws(url(first.address), WsOptions::new());
    client.next_of_type("welcome").await;
    let sequence = stage.publish_undelivered("user:42", "undelivered").await;
    stage.publish("all", "later", json!({})).await;
    let offset = client.next_event("later").await["offset"].clone();
    first.kill();
    stage.doubt("user:42", sequence - 1).await;
    let second = stage.edge().await;
    let since = offset.as_str().unwrap();
    let resumed = stage
        .driver
        .ws(format!("{}&since={since}", url(second.address)), WsOptions::new());
    assert_eq!(resumed.next_of_type("welcome").await["recovered"], true);
    resumed.next_event("undelivered").await;
    stage.publish("user:42", "end", json!({})).await;
    resumed.next_event("end").await;
    resumed.assert_no_message("another copy", |message| {
        message["event"] == "undelivered" || message["event"] == "later"
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn doubts_that_come_together_hold_their_room_once() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let client = stage.sio(&edge, "42").await;
    let sequence = stage.publish("user:42", "doubted", json!({})).await;
    client.next_event("doubted").await;
    let doubts = (0..20).map(|_| stage.doubt("user:42", sequence - 1));
    futures_util::future::join_all(doubts).await;
    stage.ends_without(&client, "doubted").await;
}
