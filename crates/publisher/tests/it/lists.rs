use carillon_protocol::headers::name;
use carillon_testkit::wait;
use serde_json::json;

use crate::stage::{LIMIT, Stage, data, header};

#[tokio::test]
async fn a_list_is_stored_with_contiguous_sequences() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let rooms: Vec<String> = (0..1000).map(|user| format!("user:{user}")).collect();
    let body = json!({ "rooms": rooms, "event": "e", "data": "x".repeat(1000), "receipt": true });
    let (status, answer) = publisher.post("/v1/events", body).await;
    assert_eq!(status, 202, "{answer}");
    let mut sequences = Vec::new();
    for index in [0, 1, 2, 998, 999] {
        let stored = &stage.room(&rooms[index], 1).await[0];
        let set: Vec<&str> = header(stored, name::SET).split(';').collect();
        assert_eq!(set[1..], [index.to_string().as_str(), "1000"]);
        assert_eq!(set[0], header(stored, name::INGEST));
        sequences.push(stored.sequence - index as u64);
    }
    assert!(
        sequences.windows(2).all(|pair| pair[0] == pair[1]),
        "{sequences:?}"
    );
    let offset: carillon_protocol::offset::Offset = answer["offset"].as_str().unwrap().parse().unwrap();
    assert_eq!(offset.sequence, sequences[0] + 999);
    publisher.stop().await;
}

#[tokio::test]
async fn lists_and_single_events_keep_the_order_of_each_room() {
    let stage = Stage::new().await;
    stage.publisher().await.stop().await;
    // Everything waits, so that lists cross each other in the queue.
    let rooms = ["a", "b", "c", "d"];
    let mut expected = [(); 4].map(|()| Vec::new());
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..400 {
        let mut some: Vec<usize> = (0..4).collect();
        random.shuffle(&mut some);
        some.truncate(random.usize(1..=4));
        for room in &some {
            expected[*room].push(number.to_string());
        }
        let names: Vec<&str> = some.iter().map(|room| rooms[*room]).collect();
        match names[..] {
            [room] => {
                stage
                    .publish(
                        &format!("rt.pub.main.{room}"),
                        &json!({"event":"e","data":number}).to_string(),
                    )
                    .await
            }
            _ => {
                stage
                    .publish(
                        "rt.pub.main.%list",
                        &json!({"event":"e","data":number,"rooms":names}).to_string(),
                    )
                    .await
            }
        }
    }
    let publisher = stage.publisher().await;
    for (room, expected) in rooms.iter().zip(&expected) {
        assert_eq!(&data(&stage.room(room, expected.len()).await), expected, "{room}");
    }
    stage.ingest_is_empty().await;
    publisher.stop().await;
}

#[tokio::test]
async fn a_list_with_an_id_that_some_rooms_have_goes_to_the_others() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    stage
        .publish("rt.pub.main.b", r#"{"event":"e","data":0,"id":"x"}"#)
        .await;
    stage.room("b", 1).await;
    let list = json!({ "rooms": ["a", "b", "c"], "event": "e", "data": 1, "id": "x", "receipt": true });
    let (status, answer) = publisher.post("/v1/events", list.clone()).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(data(&stage.room("a", 1).await), ["1"]);
    assert_eq!(data(&stage.room("b", 1).await), ["0"]);
    assert_eq!(data(&stage.room("c", 1).await), ["1"]);
    assert_eq!(
        header(&stage.room("c", 1).await[0], name::SET)
            .split_once(';')
            .unwrap()
            .1,
        "1;2"
    );
    // Once more: now all have it, and the receipt tells the same place.
    let (status, again) = publisher.post("/v1/events", list).await;
    assert_eq!((status, &again["offset"]), (202, &answer["offset"]));
    wait::until_true("an unchanged room", LIMIT, async || {
        stage.room("a", 1).await.len() == 1
    })
    .await;
    publisher.stop().await;
}

#[tokio::test]
async fn a_list_of_signals_names_its_set() {
    let stage = Stage::new().await;
    let publisher = stage.publisher().await;
    let mut deliveries = stage.bus.subscribe("rt.out.main.>", None).await.unwrap();
    stage.bus.flush().await;
    let body = json!({ "rooms": ["a", "user:1"], "event": "e", "data": 1, "ephemeral": true });
    assert_eq!(publisher.post("/v1/events", body).await.0, 202);
    let mut sets = Vec::new();
    for subject in ["rt.out.main.r.a", "rt.out.main.u.user:1"] {
        let delivery = tokio::time::timeout(LIMIT, deliveries.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(delivery.subject, subject);
        sets.push(delivery.headers.get(name::SET).unwrap().to_owned());
    }
    let id = |set: &str| set.split(';').next().unwrap().to_owned();
    assert_eq!(id(&sets[0]), id(&sets[1]));
    assert!(sets[0].ends_with(";0;2") && sets[1].ends_with(";1;2"), "{sets:?}");
    publisher.stop().await;
}
