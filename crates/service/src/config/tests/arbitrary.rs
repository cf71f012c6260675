use proptest::prelude::*;

use super::*;

#[test]
fn deep_nesting_never_overflows() {
    for text in [
        format!("{} = 1", vec!["a"; 20_000].join(".")),
        format!("[{}]", vec!["a"; 20_000].join(".")),
        format!("[{0}]\n{0} = {{ {0} = 1 }}", vec!["a"; 500].join(".")),
        format!("a = {}", "[".repeat(20_000)),
        format!("edge = {}", "{ a = ".repeat(20_000)),
    ] {
        assert!(read(&text, &[]).is_err());
    }
    let variable = format!("CARILLON_{}", vec!["A"; 20_000].join("__"));
    assert!(read("", &[(&variable, "1")]).is_err());
    assert!(read("", &[("CARILLON_EDGE__CORS_ORIGIN", &"[".repeat(20_000))]).is_ok());
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = read(&text, &[]);
    }

    #[test]
    fn arbitrary_values_never_panic(
        section in "(edge|history|publisher|namespaces|x)",
        key in "[a-z_]{1,8}|listen|port|mqtt|\"/\"|\"\"",
        value in "[0-9]{1,25}|-?[0-9]\\.[0-9]|\"[^\"\\\\\n]{0,20}\"|\\[[0-9\", ]{0,10}\\]|\\{ ?[a-z]? ?=? ?[0-9]? ?\\}|inf|1979-05-27",
        variable in "[A-Z_0-9]{0,20}",
        text in ".{0,40}",
    ) {
        let name = format!("CARILLON_{variable}");
        let file = format!("[{section}]\n{key} = {value}\n");
        if let Err(error) = read(&file, &[(&name, &text)]) {
            prop_assert!(!error.problem().is_empty() && !error.location().is_empty());
        }
    }
}
