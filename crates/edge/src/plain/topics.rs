//! The topics that a client hears: entering them, with their history, and leaving them.

use carillon_protocol::clientjson::encode;
use carillon_protocol::names::Room;
use carillon_protocol::offset::Offset;

use super::{About, Plain};
use crate::backend::refusal;
use crate::entrance::{Opened, Refused, Regained};
use crate::metrics;
use crate::rules::Refusal;

/// The code of what the cluster cannot do now.
const UNAVAILABLE: &str = "unavailable";

impl Plain {
    /// Enters the topics that an SSE client names in its address, before anything is sent.
    pub(super) async fn enter_topics(
        &self,
        topics: &[Room],
        since: Option<&str>,
        opened: &mut Opened,
    ) -> Result<(), Refused> {
        // Automatic rooms were read already.
        let topics: Vec<Room> = topics
            .iter()
            .filter(|room| !self.session.is_in(room))
            .cloned()
            .collect();
        for room in &topics {
            self.hub
                .join_by_rule(&self.session, room)
                .await
                .map_err(|refusal| match &*refusal.code {
                    "unavailable" => Refused::Unavailable,
                    _ => Refused::Client {
                        code: refusal.code.to_string(),
                        message: refusal.message.to_string(),
                    },
                })?;
        }
        let Some(since) = since.filter(|_| !topics.is_empty() && self.session.namespace.style.recovery)
        else {
            return Ok(());
        };
        let regained = self.hub.regain(&self.session, since, &topics).await?;
        opened.recovered &= regained.lost.is_empty();
        opened.lost.extend(regained.lost);
        for (sequence, event) in regained.events {
            self.session.replay(&self.hub, sequence, event);
        }
        Ok(())
    }

    pub(super) async fn subscribe(&self, topic: &str, since: Option<&str>) -> Result<(), Refusal> {
        let room = Room::new(topic).map_err(|error| refusal("bad_room", &error.to_string()))?;
        self.session.begin_replay(&room);
        match self.subscribe_held(&room, since).await {
            // It is in the room, but what came after its offset cannot be read or sent: going on would pass over a gap.
            Err(refusal) if &*refusal.code == UNAVAILABLE && self.session.is_in(&room) => {
                self.client.close(Refused::Unavailable.closing());
                Err(refusal)
            }
            subscribed => {
                self.session.end_replay();
                subscribed
            }
        }
    }

    async fn subscribe_held(&self, room: &Room, since: Option<&str>) -> Result<(), Refusal> {
        self.hub.join_by_rule(&self.session, room).await?;
        let recovery = self.session.namespace.style.recovery;
        let regained = match since.filter(|_| recovery) {
            Some(since) => {
                let regained = self
                    .hub
                    .regain(&self.session, since, std::slice::from_ref(room))
                    .await;
                Some(regained.map_err(|_| refusal(UNAVAILABLE, "history is not available now"))?)
            }
            None => None,
        };
        let now = self.session.offset_now();
        let after = regained.as_ref().and_then(Regained::begin);
        let offset = Offset {
            sequence: after.unwrap_or(now.sequence),
            ..now
        };
        let mut text = Vec::new();
        encode::subscribed(&mut text, room.as_str(), recovery.then_some(offset));
        self.client.send_text(&text);
        if let Some(regained) = regained {
            for (room, oldest) in &regained.lost {
                self.history_lost(room, *oldest);
            }
            let sent = self
                .session
                .send_again(&self.hub, regained.events, offset.sequence);
            if !sent.await {
                return Err(refusal(UNAVAILABLE, "the history cannot be sent now"));
            }
        }
        Ok(())
    }

    pub(super) async fn unsubscribe(&self, topic: &str) {
        let about = About {
            topic: Some(topic),
            ..About::default()
        };
        let Ok(room) = Room::new(topic) else {
            return self.error(&refusal("bad_room", "a room has 1 to 256 bytes"), about);
        };
        if room.session() == Some(self.session.sid.as_str()) {
            return self.error(
                &refusal("forbidden", "the room of the session itself cannot be left"),
                about,
            );
        }
        if self.hub.leave(&self.session, &room).await.is_err() {
            return self.error(&refusal("unavailable", "the cluster cannot do this now"), about);
        }
        let mut text = Vec::new();
        encode::unsubscribed(&mut text, topic);
        self.client.send_text(&text);
    }

    pub(super) fn history_lost(&self, room: &Room, oldest: Offset) {
        metrics::error("history_lost");
        let mut text = Vec::new();
        encode::Error {
            code: "history_lost",
            message: "the history does not reach back to this offset",
            topic: Some(room.as_str()),
            oldest: Some(oldest),
            ..encode::Error::default()
        }
        .write(&mut text);
        self.client.send_text(&text);
    }
}
