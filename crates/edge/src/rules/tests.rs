//! Decisions of whole rules.

mod events;
mod hostile;
mod mistakes;
mod profiles;
mod rooms;

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Instant;

use carillon_service::config::{self, Environment, Source};
use carillon_service::settings::{Namespace, Namespaces};
use serde_json::{Value, json};

use super::*;

pub(super) fn no_rooms() -> &'static HashSet<Room> {
    static NONE: LazyLock<HashSet<Room>> = LazyLock::new(HashSet::new);
    &NONE
}

#[derive(serde::Deserialize)]
struct Root {
    namespaces: Namespaces,
}

/// Reads the namespaces of a configuration.
fn namespaces(text: &str) -> Namespaces {
    let source = Source::new(Environment::default()).text("rules.toml", text);
    match config::load::<Root>(&source) {
        Ok(loaded) => loaded.value.namespaces,
        Err(error) => panic!("{error}"),
    }
}

fn namespace(text: &str) -> Namespace {
    namespaces(&format!("[namespaces.\"/\"]\n{text}"))
        .remove("/")
        .unwrap()
}

fn rules(text: &str) -> Rules {
    Rules::compile("/", &namespace(text)).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// One connection, asking.
struct Client {
    user: User,
    rooms: HashSet<Room>,
    limits: SessionLimits,
    now: Instant,
}

const SID: &str = "abcdefghijklmnopqrst";

impl Client {
    fn new(id: &str, claims: Value) -> Self {
        let claims = claims.as_object().cloned().unwrap();
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let user = User {
            id: Some(id.into()),
            role: text("role").or_else(|| text("rol")),
            name: text("name"),
            claims: claims.into(),
        };
        Self::of(user)
    }

    fn anonymous() -> Self {
        Self::of(User::anonymous())
    }

    fn of(user: User) -> Self {
        let now = Instant::now();
        Self {
            user,
            rooms: HashSet::new(),
            limits: SessionLimits::new(now),
            now,
        }
    }

    fn within(mut self, room: &str) -> Self {
        self.rooms.insert(Room::new(room).unwrap());
        self
    }

    fn context(&self) -> Context<'_> {
        Context {
            user: &self.user,
            sid: SID,
            rooms: &self.rooms,
            now_ms: 1_769_860_800_007,
            id: "M1",
        }
    }

    /// Emits an event with these arguments.
    fn emit(&mut self, rules: &Rules, event: &str, args: &[Value]) -> Result<Vec<Effect>, Refusal> {
        let payload = super::data::payload(args);
        self.emit_raw(rules, event, &payload)
    }

    fn emit_raw(&mut self, rules: &Rules, event: &str, payload: &Payload) -> Result<Vec<Effect>, Refusal> {
        let context = Context {
            user: &self.user,
            sid: SID,
            rooms: &self.rooms,
            now_ms: 1_769_860_800_007,
            id: "M1",
        };
        rules
            .on_event(event, payload, &context, &mut self.limits, self.now)
            .map(|outcome| outcome.effects)
    }

    fn join(&self, rules: &Rules, room: &str) -> JoinDecision {
        rules.may_join(&Room::new(room).unwrap(), &self.context())
    }

    fn automatic(&self, rules: &Rules) -> Vec<String> {
        rules
            .automatic_rooms(&self.user)
            .iter()
            .map(Room::to_string)
            .collect()
    }
}

fn value(payload: &Payload) -> Value {
    serde_json::from_str(payload.text()).unwrap()
}

/// Writes effects in short, to be compared.
fn brief(effects: &[Effect]) -> Vec<Value> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Join(room) => json!(["join", room.as_str()]),
            Effect::Leave(room) => json!(["leave", room.as_str()]),
            Effect::Relay {
                to,
                event,
                payload,
                durable,
                except_self,
            } => {
                let to = match to {
                    Target::Everyone => "everyone",
                    Target::Room(room) => room.as_str(),
                };
                let how = [(*durable, "durable"), (*except_self, "others")];
                let how: Vec<&str> = how.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
                json!(["relay", to, **event, value(payload), how.join(" ")])
            }
            Effect::Forward {
                event,
                payload,
                awaited,
            } => json!(["forward", **event, value(payload), awaited]),
            Effect::Reply { payload, event } => json!(["reply", value(payload), event.as_deref()]),
            Effect::Emit(emit) => json!(["emit", *emit.event, value(&emit.payload)]),
            Effect::Alive => json!(["alive"]),
        })
        .collect()
}

fn refused(code: &str, message: &str) -> Refusal {
    Refusal {
        code: code.into(),
        message: message.into(),
        abuse: false,
    }
}
