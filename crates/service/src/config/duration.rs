//! Durations as people write them: `"500ms"`, `"30s"`, `"2m"`, `"24h"`, `"7d"`; a bare integer is seconds.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};

/// Longest duration taken; beyond it sums of times could overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// For `#[serde(with = "duration")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(Reader)
}

/// Reads a written duration.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let duration = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).ok()?,
    };
    (duration <= LONGEST).then_some(duration)
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"25s\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
        let duration = u64::try_from(seconds)
            .ok()
            .map(Duration::from_secs)
            .filter(|value| *value <= LONGEST);
        duration.ok_or_else(|| E::invalid_value(Unexpected::Signed(seconds), &self))
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
        let duration = Some(Duration::from_secs(seconds)).filter(|value| *value <= LONGEST);
        duration.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(seconds), &self))
    }
}

/// For fields of type `Option<Duration>`; give them `#[serde(default)]`.
pub mod option {
    use super::*;

    /// For `#[serde(with = "duration::option")]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        struct Item(Duration);

        impl<'de> Deserialize<'de> for Item {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                super::deserialize(deserializer).map(Self)
            }
        }

        Ok(Option::<Item>::deserialize(deserializer)?.map(|item| item.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("2m", 120_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h 30m", 5_400_000),
            (" 45 ", 45_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "soon",
            "-1s",
            "1.5",
            "99999999999999999999s",
            "18446744073709551615",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
