use carillon_protocol::headers::{Headers, name as header};
use carillon_protocol::names::{Namespace, Room};
use carillon_service::settings;
use carillon_testkit::clients::SioOptions;
use carillon_testkit::tokens;
use serde_json::json;

use crate::stage::{Plan, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn every_device_of_a_user_has_the_event_and_nobody_else() {
    let stage = Stage::start().await;
    let (first, second) = (stage.edge().await, stage.edge().await);
    let phone = stage.sio(&first, "42").await;
    let laptop = stage.sio(&second, "42").await;
    let (browser, _) = stage.ws(&second, "42").await;
    let other = stage.sio(&first, "43").await;

    stage.publish("user:42", "greeting", json!({ "n": 1 })).await;
    for client in [&phone, &laptop] {
        let event = client.next_event("greeting").await;
        assert_eq!(event.data(), &json!({ "n": 1 }));
        assert_eq!(event.offset().map(str::len), Some(20));
    }
    let event = browser.next_event("greeting").await;
    assert_eq!(
        (&event["topic"], &event["payload"]),
        (&json!("user:42"), &json!({ "n": 1 }))
    );

    stage.signal("user:42", "typing", json!({ "who": 7 })).await;
    assert_eq!(phone.next_event("typing").await.data(), &json!({ "who": 7 }));
    assert_eq!(laptop.next_event("typing").await.data(), &json!({ "who": 7 }));
    browser.next_event("typing").await;

    // What comes later the same way shows that nothing else came.
    stage.publish("user:43", "own", json!(1)).await;
    other.next_event("own").await;
    other.assert_no_event("greeting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_comes_whole_and_in_order_on_every_transport() {
    const EVENTS: u64 = 400;
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (socket, (plain, _)) = (stage.sio(&edge, "42").await, stage.ws(&edge, "42").await);
    let polling = stage
        .driver
        .sio(edge.url(), SioOptions::polling(tokens::dev("42")));
    polling.connected().await;
    for number in 0..EVENTS {
        // Runs of one room, of the other, and of both kinds; the strings are followed by each client's own offset.
        let room = if number / 16 % 3 == 0 { "user:42" } else { "all" };
        drop(stage.burst(room, "event", json!({ "n": number })).await);
        if number % 5 == 0 {
            stage.signal(room, "signal", json!(number.to_string())).await;
        }
    }
    for client in [&socket, &polling] {
        let mut before = String::new();
        for number in 0..EVENTS {
            let event = client.next_event("event").await;
            assert_eq!(event.data(), &json!({ "n": number }));
            let offset = event.offset().unwrap().to_owned();
            assert!(offset > before, "{offset} follows {before}");
            before = offset;
        }
        for number in (0..EVENTS).step_by(5) {
            assert_eq!(
                client.next_event("signal").await.data(),
                &json!(number.to_string())
            );
        }
        client.assert_stayed_connected();
    }
    let mut before = String::new();
    for number in 0..EVENTS {
        let event = plain.next_event("event").await;
        assert_eq!(event["payload"]["n"], number);
        let offset = event["offset"].as_str().unwrap().to_owned();
        assert!(offset > before, "{offset} follows {before}");
        before = offset;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_hears_the_room_all_and_a_list_comes_once() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    stage.publish("all", "news", json!(1)).await;
    client.next_event("news").await;
    // The same event for two of the client's rooms.
    stage
        .store("user:42", "both", json!(2), crate::stage::copy_of_list(0, 2))
        .await;
    stage
        .store("all", "both", json!(2), crate::stage::copy_of_list(1, 2))
        .await;
    stage.publish("all", "end", json!(3)).await;
    assert_eq!(client.next_event("both").await["topic"], "user:42");
    client.next_event("end").await;
    client.assert_no_message("second copy", |message| message["event"] == "both");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_left_out_and_a_session_room_has_one_member() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (one, welcome) = stage.ws(&edge, "42").await;
    let (two, _) = stage.ws(&edge, "42").await;
    let sid = welcome["sid"].as_str().unwrap();
    let except = carillon_protocol::headers::Headers::new().with("Carillon-Except", sid);
    stage.store("user:42", "not-for-one", json!(1), except).await;
    two.next_event("not-for-one").await;
    stage
        .publish(&format!("session:{sid}"), "for-one", json!(2))
        .await;
    one.next_event("for-one").await;
    stage.publish("user:42", "end", json!(3)).await;
    one.next_event("end").await;
    two.next_event("end").await;
    one.assert_no_message("event that it is left out of", |message| {
        message["event"] == "not-for-one"
    });
    two.assert_no_message("event of another session", |message| {
        message["event"] == "for-one"
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_hears_on_after_nats_was_stopped_and_started() {
    let mut stage = Stage::start().await;
    let edge = stage.edge().await;
    let phone = stage.sio(&edge, "42").await;
    let (browser, _) = stage.ws(&edge, "42").await;
    stage.publish("user:42", "before", json!(1)).await;
    phone.next_event("before").await;
    stage.nats.stop().await;
    carillon_testkit::wait::until_true("the edge is not ready", crate::stage::PATIENCE, async || {
        !edge.readiness.is_ready()
    })
    .await;
    stage.nats.restart().await;
    let bus = stage.bus.clone();
    carillon_testkit::wait::until_true("the stage is connected", crate::stage::PATIENCE, async || {
        bus.link_state().borrow().connected
    })
    .await;
    stage.publish("user:42", "after", json!(2)).await;
    phone.next_event("after").await;
    browser.next_event("after").await;
    phone.assert_stayed_connected();
    carillon_testkit::wait::until_true("the edge is ready", crate::stage::PATIENCE, async || {
        edge.readiness.is_ready()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_for_a_list_of_rooms_comes_once() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let (client, _) = stage.ws(&edge, "42").await;
    stage.signal_copy("user:42", "both", "list;0;2").await;
    stage.signal_copy("all", "both", "list;1;2").await;
    stage.signal_copy("all", "both", "other;0;1").await;
    stage.signal("all", "end", json!(1)).await;
    client.next_event("end").await;
    for topic in ["user:42", "all"] {
        assert_eq!(client.next_event("both").await["topic"], topic);
    }
    client.assert_no_message("second copy", |message| message["event"] == "both");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_cannot_read_is_not_passed_on_with_its_markup() {
    let mut plan = Plan::default();
    let mut namespace = settings::Namespace::open();
    namespace.sanitize_published = vec!["**".to_owned()];
    plan.namespaces = [("/".to_owned(), namespace)].into();
    let stage = Stage::with(plan).await;
    let edge = stage.edge().await;
    let client = stage.sio(&edge, "42").await;
    let subject = stage
        .bus
        .subjects()
        .event(&Namespace::main(), &Room::new("user:42").unwrap());
    for (name, body, shown) in [
        ("twice", r#"{"h":"<b onclick=x>","h":"<i onclick=x>"}"#, "<i></i>"),
        (
            "large",
            r#"{"n":1e999,"h":"\u003cb onclick=x>"}"#,
            "&lt;b onclick=x>",
        ),
    ] {
        let headers = Headers::new().with(header::EVENT, name).with(header::TIME, "1");
        stage.bus.store(&subject, &headers, body.into()).await.unwrap();
        let told = client.next_event(name).await;
        assert_eq!(told.data()["h"], shown, "{body}");
    }
}
