//! Values of a query.

/// Returns a decoded value of a query.
pub(crate) fn query_value(query: Option<&str>, key: &str) -> Option<String> {
    query_values(query, key).into_iter().next()
}

/// Returns all decoded values of a query.
pub(crate) fn query_values(query: Option<&str>, key: &str) -> Vec<String> {
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    let values = pairs
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value.replace('+', " "));
    values
        .filter_map(|value| {
            Some(
                percent_encoding::percent_decode_str(&value)
                    .decode_utf8()
                    .ok()?
                    .into_owned(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_decoded() {
        assert_eq!(
            query_values(Some("topic=a%3Ab&topic=c+d&x=1"), "topic"),
            ["a:b", "c d"]
        );
        assert_eq!(query_value(None, "since"), None);
    }
}
