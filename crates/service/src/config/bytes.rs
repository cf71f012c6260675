//! Sizes as people write them: `"256KiB"`, `"1MiB"`, `"64kB"`; a bare integer is bytes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};

/// For `#[serde(with = "bytes")]` on a field of any unsigned type.
pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Reader(PhantomData))
}

/// Reads a written size.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

struct Reader<T>(PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"256KiB\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let size = parse(text).and_then(|size| T::try_from(size).ok());
        size.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, size: i64) -> Result<T, E> {
        let converted = u64::try_from(size).ok().and_then(|size| T::try_from(size).ok());
        converted.ok_or_else(|| E::invalid_value(Unexpected::Signed(size), &self))
    }

    fn visit_u64<E: de::Error>(self, size: u64) -> Result<T, E> {
        T::try_from(size).map_err(|_| E::invalid_value(Unexpected::Unsigned(size), &self))
    }
}

/// For fields of type `Option<u64>` and the like; give them `#[serde(default)]`.
pub mod option {
    use super::*;

    /// For `#[serde(with = "bytes::option")]`.
    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<u64>,
    {
        struct Item<T>(T);

        impl<'de, T: TryFrom<u64>> Deserialize<'de> for Item<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                super::deserialize(deserializer).map(Self)
            }
        }

        Ok(Option::<Item<T>>::deserialize(deserializer)?.map(|item| item.0))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_every_unit() {
        for (text, size) in [
            ("0", 0),
            ("1024", 1024),
            ("256KiB", 262_144),
            ("1 MiB", 1_048_576),
            ("2gib", 2_147_483_648),
            ("64kB", 64_000),
            ("10B", 10),
        ] {
            assert_eq!(parse(text), Some(size), "{text}");
        }
        for text in ["", "KiB", "1.5MiB", "-1", "1 apple", "18446744073709551615TiB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
