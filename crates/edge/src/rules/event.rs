//! The rules for events, compiled.

use std::sync::Arc;

use carillon_protocol::event::Payload;
use carillon_protocol::names::{Room, check_event};
use carillon_service::settings;
use serde_json::Value;

use super::action::{Action, Incoming, Stop};
use super::context::Context;
use super::data;
use super::effect::{Effect, Outcome};
use super::error::{Mistakes, Refusal, Texts, code};
use super::expression::Expression;
use super::limit::Rate;
use super::sanitize::Fields;
use super::schema::Schema;
use super::variables::{Variable, Variables};

/// Events that Socket.IO clients raise by themselves.
pub(super) const RESERVED: &[&str] = &[
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// A compiled rule of `on`.
#[derive(Debug)]
pub(super) struct EventRule {
    /// The rule's place, under which its rate is counted: one bucket for all its events.
    pub(super) key: Arc<str>,
    rate: Option<Rate>,
    max_bytes: Option<u64>,
    schema: Option<Schema>,
    sanitize: Fields,
    when: Option<Expression>,
    actions: Vec<Action>,
    texts: Texts,
    /// The condition looks into the arguments.
    when_reads: bool,
    /// The rule looks into the arguments.
    reads: bool,
}

/// What a rule says of an event.
pub(super) enum Answer {
    /// The rule applies.
    Outcome(Outcome),
    /// Its condition does not hold: the next rule is asked, and this is the answer if there is none.
    Next(Refusal),
}

impl EventRule {
    pub(super) fn compile(
        rule: &settings::EventRule,
        namespace: &Fields,
        texts: &Texts,
        path: &[&str],
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Self> {
        let at = |key| [path, &[key]].concat();
        if rule.events.is_empty() {
            mistakes.add(&at("event"), "expected the name of an event");
        }
        for name in &rule.events {
            mistakes.check(&at("event"), client_event(name));
        }
        if rule.max_bytes == Some(0) {
            mistakes.add(&at("max_bytes"), "expected a size above zero");
        }
        let own = Texts::new(rule.code.as_ref(), rule.message.as_ref()).or(texts);
        let rate = match &rule.rate {
            Some(rate) => mistakes.check(&at("rate"), Rate::compile(rate, &own)).map(Some),
            None => Some(None),
        };
        let schema = match &rule.schema {
            Some(schema) => mistakes.check(&at("schema"), Schema::compile(schema)).map(Some),
            None => Some(None),
        };
        let sanitize = mistakes.check(&at("sanitize"), Fields::compile(&rule.sanitize));
        let when = match &rule.when {
            Some(text) => mistakes
                .check(&at("when"), Expression::compile(text, Variable::EVENT))
                .map(Some),
            None => Some(None),
        };
        let replies = rule
            .actions
            .iter()
            .filter(|action| matches!(action, settings::Action::Reply(_)))
            .count();
        if replies > 1 {
            mistakes.add(
                &at("do"),
                "an event is acknowledged once; there are several replies",
            );
        }
        let mut actions = Vec::with_capacity(rule.actions.len());
        for (index, action) in rule.actions.iter().enumerate() {
            let index = index.to_string();
            actions.push(Action::compile(
                action,
                replies > 0,
                &[path, &["do", &index]].concat(),
                mistakes,
            ));
        }
        let forwards = actions
            .iter()
            .flatten()
            .filter(|action| matches!(action, Action::Forward { .. }))
            .count();
        if forwards > 1 && replies == 0 {
            mistakes.add(&at("do"), "several forwards would each answer; add a reply");
        }
        let actions: Vec<Action> = actions.into_iter().collect::<Option<_>>()?;
        let sanitize = sanitize?.and(namespace);
        let when = when?;
        let schema = schema?;
        let arguments = [Variable::Data, Variable::Args];
        let when_reads = when
            .as_ref()
            .is_some_and(|when| arguments.iter().any(|&variable| when.uses(variable)));
        let actions_read = actions
            .iter()
            .any(|action| arguments.iter().any(|&variable| action.uses(variable)));
        let reads = schema.is_some() || !sanitize.is_empty() || when_reads || actions_read;
        let key = path.join(".").into();
        let max_bytes = rule.max_bytes;
        Some(Self {
            key,
            rate: rate?,
            max_bytes,
            schema,
            sanitize,
            when,
            actions,
            texts: own,
            when_reads,
            reads,
        })
    }

    /// Decides about an event; `count` takes one from the rule's own bucket, if it holds one.
    ///
    /// A rule whose condition does not hold neither counts nor checks the event.
    pub(super) fn answer(
        &self,
        namespace: &str,
        event: &str,
        payload: &Payload,
        context: &Context<'_>,
        count: impl FnOnce(&Rate) -> bool,
    ) -> Result<Answer, Refusal> {
        let read = || data::read(payload).map_err(|problem| self.texts.refusal(code::BAD_DATA, &problem));
        let variables = Variables::new(namespace, context);
        let mut args = if self.when_reads { read()? } else { Vec::new() };
        if !self.holds(&variables, &args) {
            return Ok(Answer::Next(self.texts.refusal(code::FORBIDDEN, "not allowed")));
        }
        if let Some(rate) = &self.rate
            && !count(rate)
        {
            return Err(rate.refusal());
        }
        check_size(payload, self.max_bytes, &self.texts)?;
        if self.reads && !self.when_reads {
            args = read()?;
        }
        // Checked before it is cleaned: cleaning can make a text longer.
        self.check_schema(&args)?;
        let mut payload = payload.clone();
        if !self.sanitize.is_empty() && self.sanitize.clean(&mut args) {
            payload = data::payload(&args);
        }
        let data = data::of_arguments(&args);
        let incoming = Incoming {
            name: event,
            payload: &payload,
            context,
            variables: variables.event(&data, &args),
        };
        self.apply(&incoming).map(Answer::Outcome)
    }

    fn holds(&self, variables: &Variables<'_>, args: &[Value]) -> bool {
        self.when.as_ref().is_none_or(|when| {
            let data = data::of_arguments(args);
            when.holds(&variables.event(&data, args)) == Ok(true)
        })
    }

    fn check_schema(&self, args: &[Value]) -> Result<(), Refusal> {
        let Some(schema) = &self.schema else { return Ok(()) };
        let checked = schema.check(&data::of_arguments(args));
        checked.map_err(|problem| self.texts.refusal(code::BAD_DATA, &problem))
    }

    fn apply(&self, incoming: &Incoming<'_>) -> Result<Outcome, Refusal> {
        let mut effects = Vec::with_capacity(self.actions.len());
        let mut joined: Vec<Room> = Vec::new();
        for action in &self.actions {
            let effect = action.apply(incoming, &joined).map_err(|stop| match stop {
                Stop::Data(problem) => self.texts.refusal(code::BAD_DATA, &problem),
                Stop::Forbidden(problem) => self.texts.refusal(code::FORBIDDEN, problem),
            })?;
            if let Some(Effect::Join(room)) = &effect {
                joined.push(room.clone());
            }
            effects.extend(effect);
        }
        Ok(Outcome { effects })
    }
}

/// Checks the size of an event's arguments.
pub(super) fn check_size(payload: &Payload, max: Option<u64>, texts: &Texts) -> Result<(), Refusal> {
    let size = payload.json().len() as u64;
    match max {
        Some(max) if size > max => Err(texts.refusal(
            code::TOO_LARGE,
            &format!("the event has {size} bytes; at most {max} are allowed"),
        )),
        _ => Ok(()),
    }
}

/// Checks the name of an event that a client sends.
pub(super) fn client_event(name: &str) -> Result<(), String> {
    check_event(name).map_err(|error| error.to_string())?;
    if name.starts_with('$') || RESERVED.contains(&name) {
        return Err(format!("{name:?} is a reserved name"));
    }
    Ok(())
}
