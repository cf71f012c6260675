use std::borrow::Cow;

use crate::rawjson::{Arguments, MAX_DEPTH};

/// What a client has sent, with its attachments in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'a> {
    pub namespace: Cow<'a, str>,
    /// What stood after a question mark in the namespace.
    pub query: Option<Cow<'a, str>>,
    pub body: Body<'a>,
}

/// The packets that a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// Asks to enter the namespace, with a JSON object for the server.
    Connect {
        auth: Option<Cow<'a, str>>,
    },
    Disconnect,
    Event {
        /// Asks for an acknowledgement.
        id: Option<u64>,
        name: Cow<'a, str>,
        arguments: Arguments<'a>,
    },
    Ack {
        id: u64,
        arguments: Arguments<'a>,
    },
    /// An event that is well-formed but over a limit: its arguments and attachments were dropped.
    Excess {
        id: Option<u64>,
        name: Cow<'a, str>,
        limit: Limit,
    },
    /// The same of an acknowledgement.
    AckExcess {
        limit: Limit,
    },
}

/// A limit that a well-formed packet does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    #[error("the event nests deeper than {MAX_DEPTH}")]
    Depth,
    #[error("the event has more attachments than allowed")]
    Attachments,
}

impl<'a> Packet<'a> {
    /// Drops the arguments of an event or acknowledgement that is over a limit.
    pub(super) fn exceeding(self, limit: Limit) -> Self {
        let body = match self.body {
            Body::Event { id, name, .. } => Body::Excess { id, name, limit },
            Body::Ack { .. } => Body::AckExcess { limit },
            body => body,
        };
        Packet { body, ..self }
    }
}

impl Packet<'_> {
    /// Detaches the packet from the text that it was read from.
    pub fn into_owned(self) -> Packet<'static> {
        Packet {
            namespace: owned(self.namespace),
            query: self.query.map(owned),
            body: match self.body {
                Body::Connect { auth } => Body::Connect {
                    auth: auth.map(owned),
                },
                Body::Disconnect => Body::Disconnect,
                Body::Event { id, name, arguments } => Body::Event {
                    id,
                    name: owned(name),
                    arguments: arguments.into_owned(),
                },
                Body::Ack { id, arguments } => Body::Ack {
                    id,
                    arguments: arguments.into_owned(),
                },
                Body::Excess { id, name, limit } => Body::Excess {
                    id,
                    name: owned(name),
                    limit,
                },
                Body::AckExcess { limit } => Body::AckExcess { limit },
            },
        }
    }

    pub(super) fn arguments(&self) -> Option<&Arguments<'_>> {
        match &self.body {
            Body::Event { arguments, .. } | Body::Ack { arguments, .. } => Some(arguments),
            Body::Connect { .. } | Body::Disconnect | Body::Excess { .. } | Body::AckExcess { .. } => None,
        }
    }
}

impl Packet<'static> {
    pub(super) fn with_arguments(mut self, text: String) -> Self {
        if let Body::Event { arguments, .. } | Body::Ack { arguments, .. } = &mut self.body {
            *arguments = arguments.with_text(text);
        }
        self
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}
