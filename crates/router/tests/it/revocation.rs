use std::sync::atomic::Ordering;

use carillon_bus::Bucket;
use carillon_protocol::message::Revoked;
use serde_json::json;

use crate::cluster::{Cluster, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_kept_and_told_to_all_edges() {
    let cluster = Cluster::start().await;
    let router = cluster.router().await;
    let (first, second) = (cluster.edge().await, cluster.edge().await);
    for edge in [&first, &second] {
        edge.connect(Some("a.b"), &[]).await;
    }
    first.ends.store(1, Ordering::Relaxed);
    second.ends.store(2, Ordering::Relaxed);
    let mut told = cluster.bus.subscribe("rt.edge.all.revoked", None).await.unwrap();
    cluster.bus.flush().await;

    let answer = cluster
        .ask("rt.ctl.main.revoke", json!({ "user": "a.b", "ttl": 60 }))
        .await;
    assert_eq!(answer, json!({ "connections": 3 }));
    let message = tokio::time::timeout(LIMIT, told.next()).await.unwrap().unwrap();
    let revoked: Revoked = serde_json::from_slice(&message.body).unwrap();
    assert_eq!((revoked.user.as_deref(), revoked.jti), (Some("a.b"), None));
    let kept = cluster
        .bus
        .table(Bucket::Revoked)
        .get("user.YS5i")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.value, message.body);

    let url = format!("http://{}/v1/revocations", router.address);
    let request = carillon_testkit::http::client()
        .post(url)
        .bearer_auth("admin")
        .json(&json!({ "jti": "t1", "ttl": 60 }));
    assert_eq!(request.send().await.unwrap().status(), 204);
    let message = tokio::time::timeout(LIMIT, told.next()).await.unwrap().unwrap();
    let revoked: Revoked = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(revoked.jti.as_deref(), Some("t1"));
    assert!(
        cluster
            .bus
            .table(Bucket::Revoked)
            .get("jti.dDE")
            .await
            .unwrap()
            .is_some()
    );
}
