//! The values that expressions and templates can name.

use std::borrow::Cow;

use carillon_protocol::names::Room;
use serde_json::{Value, json};

use super::context::{Context, rfc3339};

/// A name that expressions and templates can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// `id`, `role`, `name`, `claims`
    User,
    /// The event's one argument, null where it has none, a list where it has several.
    Data,
    /// All arguments.
    Args,
    /// `name` and the parameters of the pattern.
    Room,
    /// `id`, `namespace`, `rooms`
    Session,
    /// The time as RFC 3339.
    Now,
    /// The time in milliseconds since 1970.
    NowMs,
    /// An id of this event's own.
    Id,
    /// One item of an `each` list.
    Each,
}

impl Variable {
    /// What `auto_join` can name.
    pub(super) const TOKEN: &[Self] = &[Self::User, Self::Each];
    /// What the list behind `each` can name.
    pub(super) const LIST: &[Self] = &[Self::User];
    /// What the rules for rooms can name.
    pub(super) const JOIN: &[Self] = &[Self::User, Self::Room, Self::Session, Self::Now, Self::NowMs];
    /// What the rules for events can name.
    pub(super) const EVENT: &[Self] = &[
        Self::User,
        Self::Data,
        Self::Args,
        Self::Session,
        Self::Now,
        Self::NowMs,
        Self::Id,
    ];
    /// What events after connecting can name.
    pub(super) const WELCOME: &[Self] = &[Self::User, Self::Session, Self::Now, Self::NowMs, Self::Id];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Data => "data",
            Self::Args => "args",
            Self::Room => "room",
            Self::Session => "session",
            Self::Now => "now",
            Self::NowMs => "now_ms",
            Self::Id => "id",
            Self::Each => "each",
        }
    }

    /// Finds a variable among those that are there.
    pub(super) fn find(name: &str, allowed: &[Self]) -> Result<Self, String> {
        let known = allowed.iter().copied().find(|variable| variable.name() == name);
        known.ok_or_else(|| {
            let names: Vec<&str> = allowed.iter().map(|variable| variable.name()).collect();
            format!("{name:?} is not known here; expected one of {}", names.join(", "))
        })
    }
}

/// The values behind the names, for one decision.
#[derive(Clone, Copy)]
pub(super) struct Variables<'a> {
    namespace: &'a str,
    context: &'a Context<'a>,
    data: Option<&'a Value>,
    args: Option<&'a [Value]>,
    room: Option<(&'a Room, &'a [(&'a str, &'a str)])>,
    each: Option<&'a Value>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(namespace: &'a str, context: &'a Context<'a>) -> Self {
        Self {
            namespace,
            context,
            data: None,
            args: None,
            room: None,
            each: None,
        }
    }

    pub(super) fn event(self, data: &'a Value, args: &'a [Value]) -> Self {
        Self {
            data: Some(data),
            args: Some(args),
            ..self
        }
    }

    pub(super) fn room(self, room: &'a Room, parameters: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            room: Some((room, parameters)),
            ..self
        }
    }

    pub(super) fn each(self, item: &'a Value) -> Self {
        Self {
            each: Some(item),
            ..self
        }
    }

    /// Returns a variable's value; what is borrowed already is not copied.
    pub(super) fn value(&self, variable: Variable) -> Cow<'a, Value> {
        let context = self.context;
        match variable {
            Variable::User => Cow::Owned(json!({
                "id": context.user.id.as_deref(),
                "role": context.user.role,
                "name": context.user.name,
                "claims": *context.user.claims,
            })),
            Variable::Data => self.data.map_or(Cow::Owned(Value::Null), Cow::Borrowed),
            Variable::Args => Cow::Owned(Value::Array(self.args.unwrap_or_default().to_vec())),
            Variable::Room => Cow::Owned(self.room_value()),
            Variable::Session => {
                let rooms: Vec<Value> = context.rooms.names().iter().map(|name| json!(**name)).collect();
                Cow::Owned(json!({ "id": context.sid, "namespace": self.namespace, "rooms": rooms }))
            }
            Variable::Now => Cow::Owned(Value::String(rfc3339(context.now_ms))),
            Variable::NowMs => Cow::Owned(json!(i64::try_from(context.now_ms).unwrap_or(i64::MAX))),
            Variable::Id => Cow::Owned(json!(context.id)),
            Variable::Each => self.each.map_or(Cow::Owned(Value::Null), Cow::Borrowed),
        }
    }

    fn room_value(&self) -> Value {
        let Some((room, parameters)) = self.room else {
            return Value::Null;
        };
        let mut fields = serde_json::Map::new();
        for (name, value) in parameters {
            fields.insert((*name).to_owned(), json!(value));
        }
        fields.insert("name".to_owned(), json!(room.as_str()));
        Value::Object(fields)
    }

    /// Looks at the value that a dotted path leads to; a value that is missing is false.
    pub(super) fn with_path(
        &self,
        root: Variable,
        path: &[String],
        look: impl FnOnce(&Value) -> bool,
    ) -> bool {
        let user = self.context.user;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match (root, &path[..]) {
            (Variable::User, ["id"]) => user.id.as_deref().is_some_and(|id| look(&json!(id))),
            (Variable::User, ["claims", rest @ ..]) => match rest.split_first() {
                Some((first, rest)) => user
                    .claims
                    .get(*first)
                    .and_then(|value| walk(value, rest))
                    .is_some_and(look),
                None => false,
            },
            (Variable::Session, ["id"]) => look(&json!(self.context.sid)),
            (root, path) => walk(&self.value(root), path).is_some_and(look),
        }
    }
}

fn walk<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter()
        .try_fold(value, |value, name| value.as_object()?.get(*name))
}
