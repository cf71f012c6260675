//! What a namespace's configuration allows: the rules, compiled once and asked for every decision.
//!
//! Nothing here does I/O or knows a socket. [`Rules`] are made from the settings and never change; a reload
//! puts new ones in their place, and a connection carries only its [`SessionLimits`] from one to the next.
//! The edge asks, and carries out what it is told: see [`Outcome`].

mod action;
mod compile;
mod context;
mod data;
mod effect;
mod error;
mod event;
mod expression;
mod limit;
mod published;
mod room;
mod sanitize;
mod schema;
mod template;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use carillon_protocol::event::Payload;
use carillon_protocol::names::Room;
use carillon_service::settings::{Heartbeat, Overflow, Unmatched};

pub use self::context::{Context, Membership, User, rfc3339};
pub use self::effect::{Effect, Emit, Outcome, Target};
pub use self::error::{Refusal, RuleError, code};
pub use self::limit::{SessionLimits, Verdict};
pub use self::room::{JoinDecision, RoomOptions};

use self::action::EmitRule;
use self::error::Texts;
use self::event::{Answer, EventRule};
use self::limit::Rate;
use self::room::{AutoJoin, RoomRule};
use self::sanitize::Fields;
use self::variables::Variables;

/// The values of a pattern's parameters in a room's name.
type Captures<'r> = Vec<(&'r str, &'r str)>;

/// The rules of one namespace.
#[derive(Debug)]
pub struct Rules {
    namespace: String,
    /// Tells these rules from those before a reload.
    version: u64,
    texts: Texts,
    rate: Rate,
    max_bytes: Option<u64>,
    sanitize: Fields,
    sanitize_published: Fields,
    unmatched: Unmatched,
    auto_join: Vec<AutoJoin>,
    rooms: Vec<RoomRule>,
    on: HashMap<String, Vec<Arc<EventRule>>>,
    welcome: Vec<EmitRule>,
    heartbeat: Option<Heartbeat>,
    envelope: bool,
    /// Events that the rules build, which no envelope is put around.
    own_events: HashSet<String>,
    overflow: Overflow,
}

impl Rules {
    /// Returns the rooms that a user's token opens, beside `user:`, `session:` and `all`.
    pub fn automatic_rooms(&self, user: &User) -> Vec<Room> {
        let mut rooms = Vec::new();
        for rule in &self.auto_join {
            rule.add(&self.namespace, user, &mut rooms);
        }
        rooms.retain(|room| !room.is_reserved());
        rooms
    }

    /// Decides whether a connection may join a room.
    ///
    /// Personal rooms are their owner's alone, whatever a rule says; automatic rooms can be joined again; of
    /// the rules the first whose pattern fits decides, and a room without one is closed.
    pub fn may_join(&self, room: &Room, context: &Context<'_>) -> JoinDecision {
        let fitting = self.rule_for(room);
        let refusal = || {
            fitting
                .as_ref()
                .map_or_else(|| room::forbidden(&self.texts), |(rule, _)| rule.refusal())
        };
        if let Some(owner) = room::is_owner(room, context) {
            return if owner {
                JoinDecision::Allow
            } else {
                JoinDecision::Refuse(refusal())
            };
        }
        let decision = match &fitting {
            Some((rule, parameters)) => {
                rule.decide(room, parameters, &Variables::new(&self.namespace, context))
            }
            None => JoinDecision::Refuse(refusal()),
        };
        match decision {
            JoinDecision::Allow => JoinDecision::Allow,
            _ if self.automatic_rooms(context.user).contains(room) => JoinDecision::Allow,
            decision => decision,
        }
    }

    /// Decides what a client's event does.
    pub fn on_event(
        &self,
        event: &str,
        payload: &Payload,
        context: &Context<'_>,
        limits: &mut SessionLimits,
        now: Instant,
    ) -> Result<Outcome, Refusal> {
        self.admit(limits, now)?;
        if let Err(problem) = event::client_event(event) {
            return Err(self.texts.refusal(code::BAD_EVENT, &problem));
        }
        if self
            .heartbeat
            .as_ref()
            .is_some_and(|heartbeat| heartbeat.answer == event)
        {
            return Ok(Outcome {
                effects: vec![Effect::Alive],
            });
        }
        let sizes = Texts {
            code: None,
            message: self.texts.message.clone(),
        };
        event::check_size(payload, self.max_bytes, &sizes)?;
        let Some(rules) = self.on.get(event) else {
            return self.unmatched(event, payload);
        };
        let mut refusal = None;
        for rule in rules {
            let count = |rate: &Rate| limits.event(self.version, &rule.key, rate, now);
            match rule.answer(&self.namespace, event, payload, context, count)? {
                Answer::Outcome(outcome) => return Ok(outcome),
                Answer::Next(reason) => refusal = Some(reason),
            }
        }
        Err(refusal.unwrap_or_else(|| self.texts.refusal(code::FORBIDDEN, "not allowed")))
    }

    /// Counts something that a client sent and that no rule decides about: a `sub`, a `ping`.
    ///
    /// [`Rules::on_event`] counts by itself.
    pub fn admit(&self, limits: &mut SessionLimits, now: Instant) -> Result<(), Refusal> {
        match limits.connection(&self.rate, now) {
            Verdict::Pass => Ok(()),
            Verdict::Refuse => Err(self.rate.refusal()),
            Verdict::Abuse => Err(Refusal {
                abuse: true,
                ..self.rate.refusal()
            }),
        }
    }

    /// Returns the events that a connection begins with; one that cannot be built for this user is left out.
    pub fn welcome(&self, context: &Context<'_>) -> Vec<Emit> {
        let variables = Variables::new(&self.namespace, context);
        self.welcome
            .iter()
            .filter_map(|rule| rule.apply(&variables).ok().flatten())
            .collect()
    }

    /// Returns what a full outgoing queue does with a room's events.
    pub fn overflow(&self, room: &Room) -> Overflow {
        self.rule_for(room)
            .map_or(self.overflow, |(rule, _)| rule.options().overflow)
    }

    /// Returns how a room behaves.
    pub fn room_options(&self, room: &Room) -> RoomOptions {
        match self.rule_for(room) {
            Some((rule, _)) => rule.options().clone(),
            None => RoomOptions {
                presence: None,
                history: true,
                overflow: self.overflow,
            },
        }
    }

    /// Returns the application heartbeat, where there is one.
    pub fn heartbeat(&self) -> Option<&Heartbeat> {
        self.heartbeat.as_ref()
    }

    fn unmatched(&self, event: &str, payload: &Payload) -> Result<Outcome, Refusal> {
        if self.unmatched == Unmatched::Refuse {
            return Err(self
                .texts
                .refusal(code::UNKNOWN_EVENT, "there is no rule for this event"));
        }
        let mut payload = payload.clone();
        if !self.sanitize.is_empty() {
            let args = data::read(&payload);
            let mut args = args.map_err(|problem| self.texts.refusal(code::BAD_DATA, &problem))?;
            if self.sanitize.clean(&mut args) {
                payload = data::payload(&args);
            }
        }
        Ok(Outcome {
            effects: vec![Effect::Forward {
                event: event.into(),
                payload,
                awaited: true,
            }],
        })
    }

    fn rule_for<'r>(&'r self, room: &'r Room) -> Option<(&'r RoomRule, Captures<'r>)> {
        self.rooms
            .iter()
            .find_map(|rule| Some((rule, rule.pattern.parse(room.as_str())?)))
    }
}
