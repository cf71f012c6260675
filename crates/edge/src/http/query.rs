//! Values of a query.

use percent_encoding::percent_decode_str;

/// Returns the first value of a key; bytes that are no UTF-8 are replaced.
pub(crate) fn query_value(query: Option<&str>, key: &str) -> Option<String> {
    let value = query_values(query, key).next()?;
    Some(String::from_utf8_lossy(&value).into_owned())
}

/// Returns all values of a key; one that stands without `=` is empty.
pub(crate) fn query_values(query: Option<&str>, key: &str) -> impl Iterator<Item = Vec<u8>> {
    let pairs = query.unwrap_or_default().split('&');
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .filter(move |(name, _)| decoded(name) == key.as_bytes())
        .map(|(_, value)| decoded(value))
}

fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(query: &str, key: &str) -> Vec<Vec<u8>> {
        query_values(Some(query), key).collect()
    }

    #[test]
    fn query_keys_and_values_are_decoded() {
        assert_eq!(all("topic=a%3Ab&t%6Fpic=c+d&x=1", "topic"), [b"a:b", b"c d"]);
        assert_eq!(query_value(None, "since"), None);
    }

    #[test]
    fn what_cannot_be_decoded_and_what_has_no_value_is_there_all_the_same() {
        assert_eq!(all("topic=%FF&topic&x", "topic"), [&b"\xff"[..], b""]);
        assert_eq!(
            query_value(Some("since=%FF"), "since").as_deref(),
            Some("\u{fffd}")
        );
        assert_eq!(query_value(Some("since"), "since").as_deref(), Some(""));
    }
}
