//! Names made from topics: `sensor:{1}`.

use serde::{Deserialize, Deserializer};

/// Text with placeholders for the levels that the wildcards of a filter stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The whole topic.
    Topic,
    /// What the n-th wildcard stands for, from 1.
    Level(usize),
}

impl Template {
    /// Reads a template.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            let Some(length) = rest[start..].find('}') else {
                return Err("a placeholder is not closed");
            };
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            parts.push(match &rest[start + 1..start + length] {
                "topic" => Part::Topic,
                number => match number.parse() {
                    Ok(level) if level > 0 => Part::Level(level),
                    _ => return Err("expected {topic}, {1}, {2} and so on"),
                },
            });
            rest = &rest[start + length + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Returns the highest wildcard that is named.
    pub fn highest(&self) -> usize {
        let level = |part: &Part| if let Part::Level(level) = part { *level } else { 0 };
        self.0.iter().map(level).max().unwrap_or(0)
    }

    /// Fills in the topic and what the wildcards stand for.
    pub fn fill(&self, topic: &str, levels: &[String]) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Topic => text.push_str(topic),
                Part::Level(level) => text.push_str(levels.get(level - 1).map_or("", String::as_str)),
            }
        }
        text
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// Returns what the wildcards of a filter stand for in a topic that matches it.
pub(crate) fn levels(filter: &str, topic: &str) -> Vec<String> {
    let mut levels = Vec::new();
    let mut topic_levels = topic.split('/');
    for level in filter.split('/') {
        match level {
            "#" => {
                levels.push(topic_levels.collect::<Vec<_>>().join("/"));
                break;
            }
            "+" => levels.push(topic_levels.next().unwrap_or_default().to_owned()),
            _ => {
                topic_levels.next();
            }
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_from_the_topic() {
        let levels = levels("sensores/+/temperatura/#", "sensores/7/temperatura/a/b");
        assert_eq!(levels, ["7", "a/b"]);
        let template = Template::new("sensor:{1}:{2} {topic}").unwrap();
        assert_eq!(template.highest(), 2);
        assert_eq!(template.fill("t", &levels), "sensor:7:a/b t");
        assert_eq!(Template::new("plain").unwrap().fill("t", &[]), "plain");
    }

    #[test]
    fn other_placeholders_are_refused() {
        for text in ["{", "{0}", "{x}", "a{1", "{}"] {
            assert!(Template::new(text).is_err(), "{text}");
        }
    }
}
