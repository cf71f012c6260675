use std::borrow::Cow;

use crate::rawjson::Arguments;

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
            },
        }
    }

    pub(super) fn arguments(&self) -> Option<&Arguments<'_>> {
        match &self.body {
            Body::Event { arguments, .. } | Body::Ack { arguments, .. } => Some(arguments),
            Body::Connect { .. } | Body::Disconnect => None,
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
