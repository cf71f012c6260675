//! `docs/protocol.md` against the sources: the codes that it lists are those that there are, and the tests that
//! hold the published rules exist.

use std::collections::BTreeSet;
use std::path::Path;

use crate::stage::root;

fn document() -> String {
    std::fs::read_to_string(root().join("docs/protocol.md")).unwrap()
}

/// The lines of the table in a section, without its head.
fn table(document: &str, section: &str) -> Vec<Vec<String>> {
    let (_, rest) = document.split_once(&format!("\n## {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| {
            line.trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Calls with each Rust source below a folder.
fn each_source(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_source(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The sources of the services without their tests, on one line each.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for name in ["edge", "protocol", "publisher", "router", "service"] {
        each_source(
            &root().join("crates").join(name).join("src"),
            &mut |path, text| {
                let name = path.display().to_string();
                if !name.contains("tests") {
                    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                    let line: Vec<&str> = code.split_whitespace().collect();
                    sources.push((name, line.join(" ").replace("( ", "(")));
                }
            },
        );
    }
    sources
}

/// The first string literal behind each place where `head` stands.
fn behind<'a>(source: &'a str, head: &str) -> Vec<&'a str> {
    let tails = source.split(head).skip(1);
    tails.filter_map(|tail| tail.split('"').next()).collect()
}

/// All string literals from `head` to `end`.
fn between<'a>(source: &'a str, head: &str, end: &str) -> Vec<&'a str> {
    let tails = source.split(head).skip(1);
    tails
        .flat_map(|tail| {
            tail.split(end)
                .next()
                .unwrap_or_default()
                .split('"')
                .skip(1)
                .step_by(2)
        })
        .collect()
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[test]
fn every_code_is_in_the_document_and_every_code_of_the_document_exists() {
    let rows = table(&document(), "Error codes");
    let listed: Vec<&str> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let documented: BTreeSet<&str> = listed.iter().copied().collect();
    assert_eq!(listed.len(), documented.len(), "a code is listed twice");
    assert!(rows.iter().all(|row| row.len() == 4 && !row[2].is_empty()));

    let sources = sources();
    let mut used = BTreeSet::new();
    // Problems of kinds that no service has.
    for (_, source) in sources
        .iter()
        .filter(|(name, _)| !name.ends_with("service/src/problem.rs"))
    {
        for head in [
            "refusal(\"",
            "Refusal::new(\"",
            "Refusal::wrong(\"",
            "with_code(\"",
            "unavailable(\"",
            "metrics::error(\"",
        ] {
            used.extend(behind(source, head));
        }
        for status in source.split("error(StatusCode::").skip(1) {
            used.extend(
                status
                    .split_once(", \"")
                    .and_then(|(_, rest)| rest.split('"').next()),
            );
        }
        used.extend(behind(source, "error(status, \""));
        used.extend(between(source, "fn code(self) -> &'static str {", "} }"));
        used.extend(between(source, "fn code(&self) -> &'static str {", "} }"));
        used.extend(between(source, "pub mod code {", "} "));
        used.extend(
            between(source, "const KNOWN: [&str;", "];")
                .into_iter()
                .filter(|text| text.contains('_')),
        );
    }
    used.retain(|text| is_code(text));
    assert!(used.len() > 40, "{used:?}");
    let missing: Vec<_> = used.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/protocol.md: {missing:?}");

    let literal = |code: &str| {
        let forms = [
            format!("\"{code}\""),
            format!("\"{code}: "),
            format!("\"{code}:"),
            format!("format!(\"{code}"),
        ];
        sources
            .iter()
            .any(|(_, source)| forms.iter().any(|form| source.contains(form)))
    };
    let unknown: Vec<_> = documented.iter().filter(|code| !literal(code)).collect();
    assert!(
        unknown.is_empty(),
        "in docs/protocol.md, but nowhere else: {unknown:?}"
    );
}

#[test]
fn every_reason_of_a_dead_letter_is_counted_from_zero() {
    let document = document();
    let rows = table(&document, "Error codes");
    let dead = rows
        .iter()
        .filter(|row| row[1].split(' ').any(|place| place == "D"));
    let reasons: BTreeSet<&str> = dead.flat_map(|row| quoted(&row[0])).collect();
    let sources = sources();
    let (_, source) = sources
        .iter()
        .find(|(name, _)| name.ends_with("publisher/src/metrics.rs"))
        .unwrap();
    let counted: BTreeSet<&str> = between(source, "const REFUSALS: [&str;", "];")
        .into_iter()
        .collect();
    assert_eq!(counted, reasons);
}

#[test]
fn every_rule_is_held_by_a_test_that_exists() {
    let rows = table(&document(), "Socket.IO");
    assert!(rows.len() > 25, "{}", rows.len());
    for row in rows {
        let held = quoted(&row[1])
            .next()
            .unwrap_or_else(|| panic!("no test for {}", row[0]));
        let (name, test) = held.split_once(": ").unwrap_or_else(|| panic!("{held}"));
        let mut found = false;
        each_source(&root().join("crates").join(name), &mut |_, text| {
            found |= text.contains(&format!("fn {test}("))
        });
        assert!(found, "there is no test {test} in crates/{name}: {}", row[0]);
    }
}

#[test]
fn every_close_code_of_the_sources_is_in_the_document() {
    let document = document();
    let rows = table(&document, "Close codes");
    let documented: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    for (name, source) in sources().iter().filter(|(name, _)| name.contains("/edge/")) {
        for tail in source.split("Closing { code: ").skip(1) {
            let code: String = tail.chars().take_while(char::is_ascii_digit).collect();
            // 1001 stands for a client that is gone, which nothing can be sent to.
            let known = code.is_empty() || code == "1001" || documented.contains(&code.as_str());
            assert!(known, "{code} of {name} is not in docs/protocol.md");
        }
    }
}
