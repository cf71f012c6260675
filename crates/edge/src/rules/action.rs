//! The steps of an event rule, compiled.

use std::sync::Arc;

use carillon_protocol::event::Payload;
use carillon_protocol::names::{Class, Room, check_event};
use carillon_service::settings;

use super::context::Context;
use super::effect::{Effect, Emit, Target};
use super::error::Mistakes;
use super::expression::Expression;
use super::room::server_event;
use super::template::Template;
use super::variables::{Variable, Variables};

#[derive(Debug)]
pub(super) enum Action {
    Join(Template),
    Leave(Template),
    Relay(Relay),
    Forward {
        event: Option<Arc<str>>,
        data: Option<Expression>,
        awaited: bool,
    },
    Reply {
        data: Expression,
        event: Option<Arc<str>>,
    },
    Emit(EmitRule),
}

#[derive(Debug)]
pub(super) struct Relay {
    event: Option<Arc<str>>,
    to: settings::Target,
    room: Option<Template>,
    data: Option<Expression>,
    durable: bool,
    members_only: bool,
}

/// Why a step cannot be taken.
pub(super) enum Stop {
    /// The event's data does not fit.
    Data(String),
    /// The sender is not allowed to.
    Forbidden(&'static str),
}

/// An event for the connection itself.
#[derive(Debug)]
pub(super) struct EmitRule {
    event: Arc<str>,
    data: Option<Expression>,
    when: Option<Expression>,
}

/// The event that a rule is being applied to.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) name: &'a str,
    pub(super) payload: &'a Payload,
    pub(super) context: &'a Context<'a>,
    pub(super) variables: Variables<'a>,
}

impl Action {
    /// Compiles one step; `replies` tells whether the rule acknowledges by itself.
    pub(super) fn compile(
        action: &settings::Action,
        replies: bool,
        path: &[&str],
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Self> {
        use settings::Action as A;
        let at = |keys: &[&'static str]| [path, keys].concat();
        let room = |text: &str| Template::compile(text, Variable::EVENT);
        match action {
            A::Join(text) => mistakes.check(&at(&["join"]), room(text)).map(Self::Join),
            A::Leave(text) => mistakes.check(&at(&["leave"]), room(text)).map(Self::Leave),
            A::Relay(relay) => Relay::compile(relay, &at(&["relay"]), mistakes).map(Self::Relay),
            A::Forward(forward) => {
                if let Some(name) = &forward.event {
                    mistakes.check(&at(&["forward", "event"]), backend_event(name));
                }
                let data = optional(
                    &forward.data,
                    Variable::EVENT,
                    &at(&["forward", "data"]),
                    mistakes,
                )?;
                Some(Self::Forward {
                    event: shared(&forward.event),
                    data,
                    awaited: !replies,
                })
            }
            A::Reply(reply) => {
                if let Some(name) = &reply.event {
                    mistakes.check(&at(&["reply", "event"]), server_event(name));
                }
                let data = Expression::compile(&reply.data, Variable::EVENT);
                let data = mistakes.check(&at(&["reply", "data"]), data)?;
                Some(Self::Reply {
                    data,
                    event: shared(&reply.event),
                })
            }
            A::Emit(emit) => {
                EmitRule::compile(emit, Variable::EVENT, &at(&["emit"]), mistakes).map(Self::Emit)
            }
        }
    }

    /// Tells whether the step looks into the event's arguments.
    pub(super) fn uses(&self, variable: Variable) -> bool {
        let by = |data: &Option<Expression>| data.as_ref().is_some_and(|data| data.uses(variable));
        match self {
            Self::Join(room) | Self::Leave(room) => room.uses(variable),
            Self::Relay(relay) => {
                by(&relay.data) || relay.room.as_ref().is_some_and(|room| room.uses(variable))
            }
            Self::Forward { data, .. } => by(data),
            Self::Reply { data, .. } => data.uses(variable),
            Self::Emit(emit) => by(&emit.data) || by(&emit.when),
        }
    }

    /// Decides what the step does; `joined` holds the rooms that earlier steps join.
    pub(super) fn apply(&self, incoming: &Incoming<'_>, joined: &[Room]) -> Result<Option<Effect>, Stop> {
        let variables = &incoming.variables;
        let name = |event: &Option<Arc<str>>| event.clone().unwrap_or_else(|| incoming.name.into());
        Ok(Some(match self {
            Self::Join(room) => Effect::Join(room.fill(variables).map_err(Stop::Data)?),
            Self::Leave(room) => {
                let room = room.fill(variables).map_err(Stop::Data)?;
                if room.class() == Class::Session {
                    return Err(Stop::Forbidden("a connection cannot leave its own room"));
                }
                Effect::Leave(room)
            }
            Self::Relay(relay) => relay.apply(incoming, joined, name(&relay.event))?,
            Self::Forward { event, data, awaited } => {
                let payload = payload(data, incoming)?;
                Effect::Forward {
                    event: name(event),
                    payload,
                    awaited: *awaited,
                }
            }
            Self::Reply { data, event } => Effect::Reply {
                payload: evaluate(data, variables)?,
                event: event.clone(),
            },
            Self::Emit(emit) => return Ok(emit.apply(variables)?.map(Effect::Emit)),
        }))
    }
}

impl Relay {
    fn compile(relay: &settings::Relay, path: &[&str], mistakes: &mut Mistakes<'_>) -> Option<Self> {
        use settings::Target as T;
        let at = |key| [path, &[key]].concat();
        if let Some(name) = &relay.event {
            mistakes.check(&at("event"), server_event(name));
        }
        let data = optional(&relay.data, Variable::EVENT, &at("data"), mistakes);
        let room = match (&relay.room, relay.to) {
            (Some(text), T::Room | T::RoomOthers) => {
                Some(mistakes.check(&at("room"), Template::compile(text, Variable::EVENT))?)
            }
            (None, T::Room | T::RoomOthers) => {
                mistakes.add(path, "expected a room, since it is sent to one");
                None
            }
            (Some(_), _) => {
                mistakes.add(
                    &at("room"),
                    "there is a room, but it is not sent to one; write to = \"room\"",
                );
                None
            }
            (None, _) => None,
        };
        Some(Self {
            event: shared(&relay.event),
            to: relay.to,
            room,
            data: data?,
            durable: relay.durable,
            members_only: relay.members_only,
        })
    }

    fn apply(&self, incoming: &Incoming<'_>, joined: &[Room], event: Arc<str>) -> Result<Effect, Stop> {
        use settings::Target as T;
        let payload = payload(&self.data, incoming)?;
        let to = match (&self.room, self.to) {
            (Some(room), _) => {
                let room = room.fill(&incoming.variables).map_err(Stop::Data)?;
                let member = joined.contains(&room) || incoming.context.rooms.contains(room.as_str());
                if self.members_only && !member {
                    return Err(Stop::Forbidden("only members of the room may send to it"));
                }
                Target::Room(room)
            }
            (None, T::Sender) if !self.durable => return Ok(Effect::Emit(Emit { event, payload })),
            (None, T::Sender) => {
                let room = Room::new(&format!("session:{}", incoming.context.sid));
                Target::Room(room.map_err(|error| Stop::Data(error.to_string()))?)
            }
            (None, _) => Target::Everyone,
        };
        let except_self = matches!(self.to, T::Others | T::RoomOthers);
        Ok(Effect::Relay {
            to,
            event,
            payload,
            durable: self.durable,
            except_self,
        })
    }
}

impl EmitRule {
    pub(super) fn compile(
        emit: &settings::Emit,
        allowed: &[Variable],
        path: &[&str],
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Self> {
        let at = |key| [path, &[key]].concat();
        mistakes.check(&at("event"), server_event(&emit.event));
        let data = optional(&emit.data, allowed, &at("data"), mistakes);
        let when = optional(&emit.when, allowed, &at("when"), mistakes);
        Some(Self {
            event: emit.event.as_str().into(),
            data: data?,
            when: when?,
        })
    }

    /// Builds the event, unless its condition does not hold.
    pub(super) fn apply(&self, variables: &Variables<'_>) -> Result<Option<Emit>, Stop> {
        if let Some(when) = &self.when
            && !when
                .holds(variables)
                .map_err(|error| Stop::Data(error.to_string()))?
        {
            return Ok(None);
        }
        let payload = match &self.data {
            Some(data) => evaluate(data, variables)?,
            None => Payload::NONE,
        };
        Ok(Some(Emit {
            event: Arc::clone(&self.event),
            payload,
        }))
    }
}

fn optional(
    text: &Option<String>,
    allowed: &[Variable],
    path: &[&str],
    mistakes: &mut Mistakes<'_>,
) -> Option<Option<Expression>> {
    match text {
        Some(text) => mistakes.check(path, Expression::compile(text, allowed)).map(Some),
        None => Some(None),
    }
}

fn payload(data: &Option<Expression>, incoming: &Incoming<'_>) -> Result<Payload, Stop> {
    match data {
        Some(data) => evaluate(data, &incoming.variables),
        None => Ok(incoming.payload.clone()),
    }
}

fn evaluate(data: &Expression, variables: &Variables<'_>) -> Result<Payload, Stop> {
    data.json(variables)
        .map(Payload::One)
        .map_err(|error| Stop::Data(error.to_string()))
}

fn backend_event(name: &str) -> Result<(), String> {
    check_event(name).map_err(|error| error.to_string())?;
    if name.starts_with('$') {
        Err(format!("{name:?} is a reserved name"))
    } else {
        Ok(())
    }
}

fn shared(text: &Option<String>) -> Option<Arc<str>> {
    text.as_deref().map(Arc::from)
}
