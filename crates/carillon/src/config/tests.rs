use std::fs;
use std::path::{Path, PathBuf};

use carillon_service::config::{Environment, Source};

use super::{Problems, problems, read_from};

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}

/// The problems of a text; variables for which it has no default are there.
fn check(name: &str, text: &str) -> Vec<String> {
    let asked = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    let asked = asked
        .filter(|(variable, _)| !variable.contains(":-"))
        .map(|(variable, _)| (variable, "example"));
    let source = Source::new(Environment::from_iter(asked)).text(name, text);
    let found = match read_from(source) {
        Ok(loaded) => problems(&loaded.value, &loaded.sources),
        Err(Problems(problems)) => problems,
    };
    found.iter().map(ToString::to_string).collect()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

/// The text of each fenced block of TOML, with its line.
fn samples(markdown: &str) -> Vec<(usize, String)> {
    let mut samples = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in markdown.lines().enumerate() {
        match &mut open {
            None if line.trim() == "```toml" => open = Some((index + 2, String::new())),
            None => {}
            Some(_) if line.trim() == "```" => samples.extend(open.take()),
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    samples
}

#[test]
fn every_sample_in_the_documents_is_good() {
    let mut documents = files(&root().join("docs"), "md");
    documents.push(root().join("README.md"));
    let mut count = 0;
    for path in documents {
        for (line, sample) in samples(&fs::read_to_string(&path).unwrap()) {
            let name = format!("{} from line {line}", path.display());
            assert_eq!(check(&name, &sample), Vec::<String>::new());
            count += 1;
        }
    }
    assert!(count >= 4, "only {count} samples were found");
}

#[test]
fn every_profile_is_good() {
    for path in files(&root().join("deploy/profiles"), "toml") {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(check(&path.display().to_string(), &text), Vec::<String>::new());
    }
}
