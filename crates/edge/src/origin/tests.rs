use proptest::prelude::*;

use super::*;

fn origins(entries: &[&str]) -> Origins {
    Origins::parse(entries).unwrap()
}

fn headers(origin: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(origin) = origin {
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
    }
    headers
}

fn peer(host: &str, secure: bool) -> Peer {
    Peer {
        address: [127, 0, 0, 1].into(),
        secure,
        host: Some(host.to_owned()),
    }
}

#[test]
fn a_list_decides_for_websocket_and_sse() {
    let list = origins(&[
        "https://app.example.com",
        "HTTP://LocalHost:3000",
        "https://b.example:443",
        "null",
    ]);
    for (origin, allowed) in [
        (None, true),
        (Some("https://app.example.com"), true),
        (Some("https://APP.example.com"), true),
        (Some("https://app.example.com:443"), true),
        (Some("http://localhost:3000"), true),
        (Some("https://b.example"), true),
        (Some("null"), true),
        (Some("http://app.example.com"), false),
        (Some("https://app.example.com:8443"), false),
        (Some("https://app.example.com.evil.example"), false),
        (Some("https://xapp.example.com"), false),
        (Some("https://app.example.com/"), false),
        (Some("https://user@app.example.com"), false),
        (Some("http://localhost"), false),
        (Some("edge.example"), false),
        (Some(""), false),
    ] {
        for by_cookie in [false, true] {
            let verdict = list.decide(&headers(origin), by_cookie, &peer("edge.example", true));
            assert_eq!(verdict == Verdict::Allowed, allowed, "{origin:?}");
        }
        let verdict = list.decide_polling(&headers(origin), true, &peer("edge.example", true));
        assert_eq!(verdict, Verdict::Allowed, "polling lacks the headers instead");
    }
}

#[test]
fn two_origins_are_none() {
    let list = origins(&["https://a.example"]);
    let mut twice = headers(Some("https://a.example"));
    twice.append(ORIGIN, HeaderValue::from_static("https://a.example"));
    assert_eq!(list.decide(&twice, false, &peer("e", false)), Verdict::Forbidden);
}

#[test]
fn without_a_list_a_cookie_counts_from_its_own_host_only() {
    for entries in [&[][..], &["*"], &["", " "]] {
        let open = origins(entries);
        for (origin, host, secure, own) in [
            (None, "edge.example", true, true),
            (Some("https://edge.example"), "edge.example", true, true),
            (Some("https://edge.example"), "EDGE.example:443", true, true),
            (Some("http://edge.example:7000"), "edge.example:7000", false, true),
            (Some("http://[::1]:7000"), "[::1]:7000", false, true),
            // TLS ended at a proxy that does not say so.
            (Some("https://edge.example"), "edge.example", false, true),
            (Some("http://edge.example"), "edge.example", true, false),
            (Some("https://evil.example"), "edge.example", true, false),
            (Some("https://sub.edge.example"), "edge.example", true, false),
            (
                Some("http://edge.example:7001"),
                "edge.example:7000",
                false,
                false,
            ),
            (Some("http://edge.example"), "edge.example:7000", false, false),
            (
                Some("chrome-extension://edge.example"),
                "edge.example",
                false,
                false,
            ),
            (Some("null"), "edge.example", true, false),
            (Some("https://edge.example"), "", true, false),
        ] {
            let expected = if own { Verdict::Allowed } else { Verdict::Forbidden };
            let peer = peer(host, secure);
            assert_eq!(
                open.decide(&headers(origin), true, &peer),
                expected,
                "{origin:?} at {host}"
            );
            assert_eq!(
                open.decide_polling(&headers(origin), true, &peer),
                expected,
                "{origin:?} at {host}"
            );
            assert_eq!(
                open.decide(&headers(origin), false, &peer),
                Verdict::Allowed,
                "{origin:?} at {host}"
            );
        }
    }
}

#[test]
fn a_listed_origin_brings_cookies_also_beside_the_star() {
    let origins = origins(&["*", "https://app.example.com"]);
    let edge = peer("edge.example", true);
    assert_eq!(
        origins.decide(&headers(Some("https://app.example.com")), true, &edge),
        Verdict::Allowed
    );
    assert_eq!(
        origins.decide(&headers(Some("https://evil.example")), true, &edge),
        Verdict::Forbidden
    );
}

#[test]
fn headers_let_allowed_pages_read() {
    let cors = |entries: &[&str], origin| {
        let mut response = HeaderMap::new();
        origins(entries).allow(&headers(origin), &mut response);
        assert_eq!(response[VARY], "Origin");
        (
            response.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned(),
            response.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS),
        )
    };
    let a = Some("https://a.example");
    let echoed = Some(HeaderValue::from_static("https://a.example"));
    assert_eq!(cors(&["https://a.example"], a), (echoed.clone(), true));
    assert_eq!(cors(&["https://b.example"], a), (None, false));
    assert_eq!(cors(&["https://b.example"], None), (None, false));
    assert_eq!(cors(&["*"], a), (echoed.clone(), false));
    assert_eq!(cors(&[], a), (echoed, false));
}

#[test]
fn a_preflight_is_answered_for_allowed_pages() {
    let list = origins(&["https://a.example"]);
    let mut request = headers(Some("https://a.example"));
    let mut response = HeaderMap::new();
    list.allow_preflight(&request, &mut response);
    assert_eq!(response[ACCESS_CONTROL_ALLOW_METHODS], "GET,POST,OPTIONS");
    assert_eq!(
        response[ACCESS_CONTROL_ALLOW_HEADERS],
        "content-type,authorization"
    );
    request.insert(
        ACCESS_CONTROL_REQUEST_HEADERS,
        HeaderValue::from_static("x-custom"),
    );
    list.allow_preflight(&request, &mut response);
    assert_eq!(response[ACCESS_CONTROL_ALLOW_HEADERS], "x-custom");
    let mut refused = HeaderMap::new();
    list.allow_preflight(&headers(Some("https://b.example")), &mut refused);
    assert_eq!(refused.keys().collect::<Vec<_>>(), [VARY]);
}

#[test]
fn an_entry_that_is_no_origin_is_named() {
    for entry in [
        "app.example.com",
        "https://",
        "https://a.example/",
        "https://a b",
        "https://*.example.com",
        "://a",
        "https://a:x",
        "https://a:70000",
        "https://[::1",
        "https://[x]",
    ] {
        let error = Origins::parse(&["https://a.example", entry]).unwrap_err();
        assert!(error.to_string().ends_with(&format!("got {entry:?}")), "{error}");
    }
    assert!(Origins::parse(&["capacitor://localhost", "http://[::1]:3000"]).is_ok());
}

proptest! {
    #[test]
    fn no_header_panics_or_passes_a_list(origin in "\\PC{0,40}", host in "\\PC{0,40}") {
        let mut request = HeaderMap::new();
        let Ok(value) = HeaderValue::from_str(&origin) else { return Ok(()) };
        request.insert(ORIGIN, value);
        let list = origins(&["https://listed.example:8443"]);
        prop_assert_eq!(list.decide(&request, true, &peer(&host, true)), Verdict::Forbidden);
        list.allow_preflight(&request, &mut HeaderMap::new());
    }

    #[test]
    fn an_origin_is_itself_in_any_case(host in "[a-z0-9][a-z0-9.-]{0,20}", port: u16) {
        let text = format!("https://{host}:{port}");
        let list = Origins::parse(&[&text]).unwrap();
        let request = headers(Some(&text.to_ascii_uppercase()));
        prop_assert_eq!(list.decide(&request, true, &peer("edge", true)), Verdict::Allowed);
    }
}
