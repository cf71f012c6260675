use serde::Deserialize;

/// Rooms that a token opens by itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoJoin {
    /// A template such as `classroom:{each}`; one that cannot be filled gives no room.
    pub room: String,
    /// A condition over `user` and `each`.
    #[serde(default)]
    pub when: Option<String>,
    /// A list over `user`: the room is made once for each of its items, under the name `each`.
    #[serde(default)]
    pub each: Option<String>,
}

impl From<String> for AutoJoin {
    fn from(room: String) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }
}

/// `[[namespaces."/name".rooms]]`: the rooms of one pattern.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomRule {
    /// Text with parameters: `{id}` stands for one or more characters other than `:`, `{id*}`, which may
    /// only come last, for any.
    pub pattern: String,
    /// Who may join; without it nobody can, and the room is filled by `auto_join` and the backend.
    #[serde(default)]
    pub join: Option<JoinPolicy>,
    /// The code of a refused join.
    #[serde(default)]
    pub code: Option<String>,
    /// The text of a refused join.
    #[serde(default)]
    pub message: Option<String>,
    /// Events that tell the members who came and went; none by default.
    #[serde(default)]
    pub presence: Option<PresenceEvents>,
    /// Whether a returning client gets what it missed.
    #[serde(default = "yes")]
    pub history: bool,
    /// What a full outgoing queue does with this room's events.
    #[serde(default)]
    pub overflow: Option<Overflow>,
}

impl RoomRule {
    /// Rooms that anyone may join.
    pub fn open(pattern: &str) -> Self {
        Self {
            pattern: pattern.to_owned(),
            join: Some(JoinPolicy::When("true".to_owned())),
            history: true,
            ..Self::default()
        }
    }
}

/// Who may join a room.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "String")]
pub enum JoinPolicy {
    /// Written `"nats"`: `rt.authz` is asked.
    Ask,
    /// A condition over `user`, `room` and its parameters, and `session`.
    When(String),
}

impl From<String> for JoinPolicy {
    fn from(text: String) -> Self {
        if text.trim() == "nats" {
            Self::Ask
        } else {
            Self::When(text)
        }
    }
}

/// Names of the events that tell who came and went.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceEvents {
    /// Told to the others when a user's first connection joins.
    pub joined: Option<String>,
    /// Told when a user's last connection left.
    pub left: Option<String>,
    /// What these events carry.
    pub data: PresenceData,
}

/// What a presence event carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceData {
    /// `{"userId","sid"}`
    #[default]
    User,
    /// The bare `sid`.
    Sid,
}

/// What happens to a connection whose outgoing queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It is closed, and the client gets what it missed when it returns.
    #[default]
    CloseAndRecover,
    /// The oldest waiting events are dropped.
    DropOldest,
    /// Of each room only the newest event waits.
    LatestOnly,
}

fn yes() -> bool {
    true
}
