//! The key that somebody probably meant.

/// The known name that is nearest to a written one, if it is near enough to be a slip.
pub(super) fn closest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if written.len() > LONGEST {
        return None;
    }
    let slips = (written.chars().count() / 3).clamp(1, 3);
    let near = known.iter().map(|name| (distance(written, name), *name));
    near.filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_nothing_else() {
        let known = ["listen", "ping_interval", "ping_timeout", "url"];
        for (written, expected) in [
            ("lisen", Some("listen")),
            ("listne", Some("listen")),
            ("pingInterval", Some("ping_interval")),
            ("ping_time_out", Some("ping_timeout")),
            ("ur", Some("url")),
            ("replicas", None),
            ("", None),
        ] {
            assert_eq!(closest(written, &known), expected, "{written}");
        }
        assert_eq!(closest("x", &[]), None);
    }
}
