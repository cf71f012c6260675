//! Asking the clients of a room, and collecting their answers from all edges.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_protocol::headers::Headers;
use carillon_protocol::ids::{EdgeId, Sid};
use carillon_protocol::message::{self, Answer, Answers, Ask};
use carillon_protocol::names::{self, Namespace, Room};
use carillon_protocol::socketio;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::refusal::Refusal;
use crate::router::Router;
use crate::table;

/// Most clients of one question.
const MOST: usize = 1000;
/// How long clients have where the question does not say.
const DEFAULT_TIMEOUT: u64 = 5000;
/// Longest time that clients have; more is cut.
const MAX_TIMEOUT: u64 = 30_000;
/// What an edge and the way to it may take beyond the clients' time.
const MARGIN: Duration = Duration::from_millis(1500);

/// The body of a question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    event: String,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    args: Option<Box<RawValue>>,
    #[serde(rename = "timeoutMs")]
    timeout_ms: Option<u64>,
}

/// `null` is data, not its absence.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Asks everyone in a room who can answer; an answer that does not fit into the reply with the others is an error.
pub(crate) async fn ask(
    router: &Router,
    namespace: &Namespace,
    room: &Room,
    question: Question,
) -> Result<Vec<Answer>, Refusal> {
    router.check(namespace)?;
    let (payload, args) = payload(&question)?;
    let timeout_ms = question
        .timeout_ms
        .unwrap_or(DEFAULT_TIMEOUT)
        .clamp(1, MAX_TIMEOUT);
    router.view.catch_up().await?;
    let (users, edges) = members(router, namespace, room)?;
    let asked = edges.into_iter().map(|(edge, sids)| {
        let ask = Ask {
            namespace: namespace.clone(),
            room: room.clone(),
            event: question.event.clone(),
            payload: payload.clone(),
            args,
            sids,
            timeout_ms,
        };
        ask_edge(router, edge, ask)
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut given: HashMap<Sid, Answer> = HashMap::new();
    while let Some(answers) = asked.next().await {
        given.extend(answers.into_iter().map(|answer| (answer.sid, answer)));
    }
    let mut answers: Vec<Answer> = users
        .into_iter()
        .map(|(sid, user)| shown(sid, user, given.remove(&sid)))
        .collect();
    message::fit(&mut answers, router.bus.max_payload());
    Ok(answers)
}

fn payload(question: &Question) -> Result<(Box<RawValue>, bool), Refusal> {
    names::check_event(&question.event).map_err(|error| Refusal::wrong("bad_event", error.to_string()))?;
    if socketio::is_reserved(&question.event) {
        return Err(Refusal::wrong(
            "bad_event",
            "the event's name is reserved by Socket.IO",
        ));
    }
    match (&question.data, &question.args) {
        (Some(_), Some(_)) => Err(Refusal::wrong("bad_field", "data and args exclude each other")),
        (Some(data), None) => Ok((data.clone(), false)),
        (None, Some(args)) if args.get().trim_start().starts_with('[') => Ok((args.clone(), true)),
        (None, Some(_)) => Err(Refusal::wrong("bad_field", "args must be an array")),
        (None, None) => Ok((
            RawValue::from_string("[]".to_owned()).expect("an empty array is JSON"),
            true,
        )),
    }
}

type Users = BTreeMap<Sid, Option<Arc<str>>>;
type Edges = HashMap<EdgeId, Vec<Sid>>;

/// Returns who can answer in a room, and where they are.
fn members(router: &Router, namespace: &Namespace, room: &Room) -> Result<(Users, Edges), Refusal> {
    let (mut users, mut edges) = (Users::new(), Edges::new());
    let table = router.view.table();
    for (sid, session) in table
        .members(namespace, room)
        .filter(|(_, session)| table::can_answer(session.transport))
    {
        if users.len() == MOST {
            return Err(Refusal::wrong(
                "too_many_members",
                format!("more than {MOST} clients are in the room"),
            ));
        }
        users.insert(sid, session.user.clone());
        edges.entry(session.owner).or_default().push(sid);
    }
    Ok((users, edges))
}

/// An edge that does not answer has clients that did not.
async fn ask_edge(router: &Router, edge: EdgeId, ask: Ask) -> Vec<Answer> {
    let subject = format!("{}.ask", router.bus.subjects().edge(edge));
    let patience = Duration::from_millis(ask.timeout_ms) + MARGIN;
    let body = Bytes::from(serde_json::to_vec(&ask).expect("a question is JSON"));
    let answer = match router
        .bus
        .request(&subject, &Headers::new(), body, patience)
        .await
    {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(%edge, %error, "edge was not asked");
            return Vec::new();
        }
    };
    match serde_json::from_slice::<Answers>(&answer.body) {
        Ok(Answers { answers }) => answers
            .into_iter()
            .filter(|answer| ask.sids.contains(&answer.sid))
            .collect(),
        Err(error) => {
            tracing::warn!(%edge, %error, "unreadable answers of an edge");
            Vec::new()
        }
    }
}

/// What the asker gets of one client: its data, which may be null, or an error.
fn shown(sid: Sid, user: Option<Arc<str>>, given: Option<Answer>) -> Answer {
    let (data, error) = match given {
        None => (None, Some("timeout".to_owned())),
        Some(Answer {
            error: Some(error), ..
        }) => (None, Some(error)),
        Some(Answer { data, .. }) => {
            let null = || RawValue::from_string("null".to_owned()).expect("null is JSON");
            (Some(data.unwrap_or_else(null)), None)
        }
    };
    Answer {
        sid,
        user,
        data,
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(Box<RawValue>, bool), Refusal> {
        payload(&serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_question_has_data_arguments_or_neither() {
        assert_eq!(read(r#"{"event":"a","data":null}"#).unwrap().0.get(), "null");
        assert!(read(r#"{"event":"a","args":[1,2]}"#).unwrap().1);
        assert_eq!(read(r#"{"event":"a"}"#).unwrap().0.get(), "[]");
        for bad in [
            r#"{"event":""}"#,
            r#"{"event":"disconnect"}"#,
            r#"{"event":"a","args":{}}"#,
            r#"{"event":"a","args":[],"data":1}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_shows_data_or_an_error() {
        let sid = Sid::from_random([0; 20]);
        let shown = |data: Option<&str>, error: Option<&str>| {
            let data = data.map(|data| RawValue::from_string(data.to_owned()).unwrap());
            let answer = Answer {
                sid,
                user: None,
                data,
                error: error.map(str::to_owned),
            };
            serde_json::to_string(&super::shown(sid, None, Some(answer))).unwrap()
        };
        let start = format!(r#"{{"sid":"{sid}","userId":null,"#);
        assert_eq!(
            shown(Some(r#"{"b":1.50}"#), None),
            format!(r#"{start}"data":{{"b":1.50}}}}"#)
        );
        assert_eq!(shown(None, None), format!(r#"{start}"data":null}}"#));
        assert_eq!(
            shown(None, Some("timeout")),
            format!(r#"{start}"error":"timeout"}}"#)
        );
    }
}
