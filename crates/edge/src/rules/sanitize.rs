//! Cleaning HTML in named fields.
//!
//! `text` and `author.name` name fields, also of every object in a list; `*` is any member, `**` every string
//! at any depth. A named field is cleaned with everything in it, so that a list or an object in the place of a
//! string hides nothing. A string without `<` holds no markup and stays as it is.
//!
//! The time that parsing takes grows with the square of the depth of the markup. So an event has a budget of
//! markup that is parsed; what comes past it is shown as the text it is.

use serde_json::Value;

/// Tags of one event that are parsed.
const MAX_TAGS: usize = 400;
/// Bytes of one event's strings with markup that are parsed.
const MAX_MARKUP: usize = 16 * 1024;

/// Compiled field names.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<Vec<Step>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Any,
    Deep,
}

impl Fields {
    pub(super) fn compile(names: &[String]) -> Result<Self, String> {
        names
            .iter()
            .map(|name| steps(name))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the fields of both lists.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// Cleans the arguments of an event and tells whether anything changed.
    pub(super) fn clean(&self, args: &mut [Value]) -> bool {
        let mut budget = Budget {
            tags: MAX_TAGS,
            bytes: MAX_MARKUP,
        };
        let mut changed = false;
        for value in args {
            for steps in &self.0 {
                changed |= clean(value, steps, &mut budget);
            }
        }
        changed
    }
}

fn steps(name: &str) -> Result<Vec<Step>, String> {
    let steps: Vec<Step> = name
        .split('.')
        .map(|part| match part {
            "*" => Step::Any,
            "**" => Step::Deep,
            part => Step::Name(part.to_owned()),
        })
        .collect();
    let deep = steps.iter().position(|step| *step == Step::Deep);
    if name.is_empty() || steps.contains(&Step::Name(String::new())) {
        return Err("expected a field such as \"text\" or \"author.name\"".to_owned());
    }
    if deep.is_some_and(|at| at + 1 != steps.len()) {
        return Err("** may only come last".to_owned());
    }
    Ok(steps)
}

/// How much markup is still parsed.
struct Budget {
    tags: usize,
    bytes: usize,
}

impl Budget {
    fn take(&mut self, text: &str) -> bool {
        let tags = text.bytes().filter(|&byte| byte == b'<').count();
        let fits = tags <= self.tags && text.len() <= self.bytes;
        if fits {
            self.tags -= tags;
            self.bytes -= text.len();
        }
        fits
    }
}

fn clean(value: &mut Value, steps: &[Step], budget: &mut Budget) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        return clean_all(value, budget);
    };
    let mut changed = false;
    match (step, value) {
        (Step::Deep, value) => changed = clean_all(value, budget),
        (_, Value::Array(items)) => {
            for item in items {
                changed |= clean(item, steps, budget);
            }
        }
        (Step::Name(name), Value::Object(fields)) => {
            changed = fields
                .get_mut(name)
                .is_some_and(|value| clean(value, rest, budget));
        }
        (Step::Any, Value::Object(fields)) => {
            for value in fields.values_mut() {
                changed |= clean(value, rest, budget);
            }
        }
        _ => {}
    }
    changed
}

fn clean_all(value: &mut Value, budget: &mut Budget) -> bool {
    let mut changed = false;
    match value {
        Value::String(text) if text.contains('<') => {
            let cleaned = if budget.take(text) {
                ammonia::clean(text)
            } else {
                escape(text)
            };
            changed = cleaned != *text;
            *text = cleaned;
        }
        Value::Array(items) => {
            for item in items {
                changed |= clean_all(item, budget);
            }
        }
        Value::Object(fields) => {
            for value in fields.values_mut() {
                changed |= clean_all(value, budget);
            }
        }
        _ => {}
    }
    changed
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::slice;

    use serde_json::json;

    use super::*;

    const BAD: &str = "<img src=x onerror=alert(1)>hi<script>alert(2)</script>";

    fn cleaned(names: &[&str], mut value: Value) -> Value {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Fields::compile(&names)
            .unwrap()
            .clean(slice::from_mut(&mut value));
        value
    }

    #[test]
    fn named_fields_lose_what_can_run() {
        let good = "<img src=\"x\">hi";
        assert_eq!(
            cleaned(&["text"], json!({ "text": BAD })),
            json!({ "text": good })
        );
        assert_eq!(
            cleaned(&["a.b"], json!({ "a": { "b": BAD, "c": BAD } })),
            json!({ "a": { "b": good, "c": BAD } })
        );
        assert_eq!(
            cleaned(&["a.*"], json!({ "a": { "b": BAD, "c": 1 } })),
            json!({ "a": { "b": good, "c": 1 } })
        );
        assert_eq!(
            cleaned(&["**"], json!([{ "a": [BAD] }, BAD])),
            json!([{ "a": [good] }, good])
        );
        assert_eq!(cleaned(&["**"], json!(BAD)), json!(good));
    }

    #[test]
    fn lists_and_objects_hide_nothing() {
        let good = "<img src=\"x\">hi";
        assert_eq!(
            cleaned(&["text"], json!({ "text": [BAD] })),
            json!({ "text": [good] })
        );
        assert_eq!(
            cleaned(&["text"], json!({ "text": { "x": BAD } })),
            json!({ "text": { "x": good } })
        );
        assert_eq!(
            cleaned(&["text"], json!([{ "text": BAD }])),
            json!([{ "text": good }])
        );
    }

    #[test]
    fn text_without_markup_stays_as_it_is() {
        let mut value = json!({ "text": "5 > 3 & ñ 🎉 \"quoted\"" });
        let before = value.clone();
        assert!(
            !Fields::compile(&["**".to_owned()])
                .unwrap()
                .clean(slice::from_mut(&mut value))
        );
        assert_eq!(value, before);
    }

    #[test]
    fn markup_of_any_depth_is_cleaned_in_time() {
        for open in [
            "<b>",
            "<a href=x>",
            "<div>",
            "<table>",
            "<svg><math>",
            "<ul><li>",
            "<font size=1>",
            "<p><b><i>",
        ] {
            for size in [1500, 16 * 1024, 256 * 1024] {
                let mut value = json!([
                    open.repeat(size / open.len()),
                    format!("<p {}>", "a".repeat(size))
                ]);
                let started = std::time::Instant::now();
                Fields::compile(&["**".to_owned()])
                    .unwrap()
                    .clean(slice::from_mut(&mut value));
                assert!(
                    started.elapsed() < std::time::Duration::from_secs(1),
                    "{open} {:?}",
                    started.elapsed()
                );
            }
        }
        let attributes: String = (0..3000).map(|at| format!(" a{at}")).collect();
        let started = std::time::Instant::now();
        Fields::compile(&["**".to_owned()])
            .unwrap()
            .clean(&mut [json!(format!("<p{attributes}>"))]);
        assert!(
            started.elapsed() < std::time::Duration::from_secs(1),
            "{:?}",
            started.elapsed()
        );
    }

    #[test]
    fn markup_past_the_budget_becomes_text() {
        let many = "<b>".repeat(401);
        assert_eq!(cleaned(&["**"], json!(many)), json!("&lt;b&gt;".repeat(401)));
        let list = cleaned(&["**"], json!(["<b>".repeat(400), "<i onclick=x>"]));
        assert_eq!(list[1], "&lt;i onclick=x&gt;");
        let mut args = [json!("<b>".repeat(400)), json!("<i onclick=x>")];
        Fields::compile(&["**".to_owned()]).unwrap().clean(&mut args);
        assert_eq!(args[1], "&lt;i onclick=x&gt;");
    }

    #[test]
    fn mistakes_are_named() {
        for name in ["", ".", "a.", "a..b", "**.a"] {
            assert!(Fields::compile(&[name.to_owned()]).is_err(), "{name}");
        }
    }
}
