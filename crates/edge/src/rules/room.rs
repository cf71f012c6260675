//! Rooms: those that the token opens, and who may join which.

use std::sync::Arc;

use carillon_protocol::names::{Class, Room, check_event};
use carillon_protocol::pattern::Pattern;
use carillon_service::settings::{self, JoinPolicy, Overflow, PresenceEvents};

use super::context::{Context, Membership, User};
use super::error::{Mistakes, Refusal, Texts, code};
use super::expression::Expression;
use super::template::Template;
use super::variables::{Variable, Variables};

/// The most rooms that one token opens.
const MAX_AUTOMATIC: usize = 1000;

/// What a request to join meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinDecision {
    /// The connection joins.
    Allow,
    /// It does not.
    Refuse(Refusal),
    /// `rt.authz` decides; unless it allows, this is what the client is told.
    Ask(Refusal),
}

/// How a room behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomOptions {
    /// Events that tell who came and went.
    pub presence: Option<PresenceEvents>,
    /// Whether a returning client gets what it missed.
    pub history: bool,
    /// What a full outgoing queue does with its events.
    pub overflow: Overflow,
}

/// Compiled `auto_join`.
#[derive(Debug)]
pub(super) struct AutoJoin {
    room: Template,
    when: Option<Expression>,
    each: Option<Expression>,
}

impl AutoJoin {
    pub(super) fn compile(
        rule: &settings::AutoJoin,
        path: &[&str],
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Self> {
        let at = |key| [path, &[key]].concat();
        let allowed = if rule.each.is_some() {
            Variable::TOKEN
        } else {
            Variable::LIST
        };
        let mut expression = |key, text: &Option<String>, allowed| match text {
            Some(text) => mistakes
                .check(&at(key), Expression::compile(text, allowed))
                .map(Some),
            None => Some(None),
        };
        let when = expression("when", &rule.when, allowed);
        let each = expression("each", &rule.each, Variable::LIST);
        let room = mistakes.check(&at("room"), Template::compile(&rule.room, allowed))?;
        let reserved = ["user:", "session:"]
            .iter()
            .any(|head| room.text().starts_with(head));
        if reserved && room.text() != "user:{user.id}" {
            mistakes.add(
                &at("room"),
                "personal rooms are entered by their owner alone, and without a rule",
            );
        }
        Some(Self {
            room,
            when: when?,
            each: each?,
        })
    }

    /// Adds the rooms that a user gets. A rule that cannot be evaluated for this user opens none.
    pub(super) fn add(&self, namespace: &str, user: &User, rooms: &mut Vec<Room>) {
        let context = Context {
            user,
            sid: "",
            rooms: &NoRooms,
            now_ms: 0,
            id: "",
        };
        let variables = Variables::new(namespace, &context);
        let Some(each) = &self.each else {
            return self.add_one(&variables, user, rooms);
        };
        for item in each.list(&variables).unwrap_or_default() {
            self.add_one(&variables.each(&item), user, rooms);
        }
    }

    fn add_one(&self, variables: &Variables<'_>, user: &User, rooms: &mut Vec<Room>) {
        if self
            .when
            .as_ref()
            .is_some_and(|when| when.holds(variables) != Ok(true))
        {
            return;
        }
        let Ok(room) = self.room.fill(variables) else {
            return;
        };
        let allowed = !room.is_reserved() || (room.user().is_some() && room.user() == user.id.as_deref());
        if allowed && rooms.len() < MAX_AUTOMATIC && !rooms.contains(&room) {
            rooms.push(room);
        }
    }
}

struct NoRooms;

impl Membership for NoRooms {
    fn contains(&self, _: &str) -> bool {
        false
    }

    fn names(&self) -> Vec<Arc<str>> {
        Vec::new()
    }
}

/// A compiled rule of `rooms`.
#[derive(Debug)]
pub(super) struct RoomRule {
    pub(super) pattern: Pattern,
    join: Join,
    texts: Texts,
    options: RoomOptions,
}

#[derive(Debug)]
enum Join {
    Nobody,
    Ask,
    When(Expression),
}

impl RoomRule {
    pub(super) fn compile(
        rule: &settings::RoomRule,
        namespace: &settings::Namespace,
        texts: &Texts,
        path: &[&str],
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Self> {
        let at = |key| [path, &[key]].concat();
        for (key, name) in rule
            .presence
            .iter()
            .flat_map(|events| [("joined", &events.joined), ("left", &events.left)])
        {
            let Some(name) = name else { continue };
            mistakes.check(&[path, &["presence", key]].concat(), server_event(name));
        }
        let pattern = mistakes.check(
            &at("pattern"),
            Pattern::new(&rule.pattern).map_err(|error| error.to_string()),
        )?;
        let join = match &rule.join {
            None => Join::Nobody,
            Some(JoinPolicy::Ask) => Join::Ask,
            Some(JoinPolicy::When(text)) => {
                Join::When(mistakes.check(&at("join"), Expression::compile(text, Variable::JOIN))?)
            }
        };
        let options = RoomOptions {
            presence: rule.presence.clone(),
            history: rule.history,
            overflow: rule.overflow.unwrap_or(namespace.overflow),
        };
        let own = Texts::new(rule.code.as_ref(), rule.message.as_ref());
        Some(Self {
            pattern,
            join,
            texts: own.or(texts),
            options,
        })
    }

    pub(super) fn options(&self) -> &RoomOptions {
        &self.options
    }

    pub(super) fn refusal(&self) -> Refusal {
        forbidden(&self.texts)
    }

    pub(super) fn decide(
        &self,
        room: &Room,
        parameters: &[(&str, &str)],
        variables: &Variables<'_>,
    ) -> JoinDecision {
        match &self.join {
            Join::Nobody => JoinDecision::Refuse(self.refusal()),
            Join::Ask => JoinDecision::Ask(self.refusal()),
            Join::When(condition) => match condition.holds(&variables.room(room, parameters)) {
                Ok(true) => JoinDecision::Allow,
                Ok(false) | Err(_) => JoinDecision::Refuse(self.refusal()),
            },
        }
    }
}

/// Decides about the rooms that no rule can open or close; none about others.
pub(super) fn is_owner(room: &Room, context: &Context<'_>) -> Option<bool> {
    match room.class() {
        Class::User => Some(room.user().is_some() && room.user() == context.user.id.as_deref()),
        Class::Session => Some(room.session() == Some(context.sid)),
        Class::Other => (room.as_str() == "all").then_some(true),
    }
}

pub(super) fn forbidden(texts: &Texts) -> Refusal {
    texts.refusal(code::FORBIDDEN, "not allowed to join this room")
}

/// Checks the name of an event that is sent to clients.
pub(super) fn server_event(name: &str) -> Result<(), String> {
    check_event(name).map_err(|error| error.to_string())?;
    if name.starts_with('$') || super::event::RESERVED.contains(&name) {
        return Err(format!("{name:?} is a reserved name"));
    }
    Ok(())
}
