use serde_json::json;

use super::*;

fn found(request: &Request<'_>) -> Option<(Source, Option<String>)> {
    find(request, "token").map(|credential| (credential.source(), credential.token().map(str::to_owned)))
}

fn token(source: Source, token: &str) -> Option<(Source, Option<String>)> {
    Some((source, Some(token.to_owned())))
}

#[test]
fn the_first_present_counts() {
    let auth = json!({ "token": "a" });
    let mut request = Request {
        auth: Some(&auth),
        subprotocols: Some(b"carillon.v1, bearer.b"),
        authorization: Some(b"Bearer c"),
        cookie: Some(b"token=d"),
        query: Some("token=e"),
    };
    assert_eq!(found(&request), token(Source::Payload, "a"));
    request.auth = None;
    assert_eq!(found(&request), token(Source::Subprotocol, "b"));
    request.subprotocols = None;
    assert_eq!(found(&request), token(Source::Header, "c"));
    request.authorization = None;
    assert_eq!(found(&request), token(Source::Cookie, "d"));
    request.cookie = None;
    assert_eq!(found(&request), token(Source::Query, "e"));
    request.query = None;
    assert_eq!(found(&request), None);
}

#[test]
fn a_payload_token_may_have_a_scheme() {
    for (auth, expected) in [
        (json!({ "token": "x.y.z" }), token(Source::Payload, "x.y.z")),
        (
            json!({ "token": "Bearer x.y.z" }),
            token(Source::Payload, "x.y.z"),
        ),
        (
            json!({ "token": " bearer  x.y.z " }),
            token(Source::Payload, "x.y.z"),
        ),
        (json!({ "token": "Bearerx" }), token(Source::Payload, "Bearerx")),
        (json!({ "token": "é" }), token(Source::Payload, "é")),
        (json!({ "token": "" }), None),
        (json!({ "token": "Bearer " }), None),
        (json!({ "token": null }), None),
        (json!({ "other": "x" }), None),
        (json!({}), None),
        (json!(null), None),
        (json!("x"), None),
        (json!({ "token": 7 }), Some((Source::Payload, None))),
        (json!({ "token": false }), Some((Source::Payload, None))),
        (json!({ "token": ["x"] }), Some((Source::Payload, None))),
        (json!({ "token": {} }), Some((Source::Payload, None))),
    ] {
        let request = Request {
            auth: Some(&auth),
            ..Request::default()
        };
        assert_eq!(found(&request), expected, "{auth}");
    }
}

#[test]
fn a_bad_token_is_not_replaced_by_a_later_one() {
    let auth = json!({ "token": 7 });
    let request = Request {
        auth: Some(&auth),
        query: Some("token=good"),
        ..Request::default()
    };
    assert_eq!(found(&request), Some((Source::Payload, None)));
    let request = Request {
        authorization: Some(b"\xff"),
        query: Some("token=good"),
        ..Request::default()
    };
    assert_eq!(found(&request), Some((Source::Header, None)));
}

#[test]
fn an_empty_token_leaves_the_place_to_a_later_one() {
    let auth = json!({ "token": "" });
    let request = Request {
        auth: Some(&auth),
        authorization: Some(b"Bearer "),
        cookie: Some(b"token="),
        query: Some("token=good"),
        ..Request::default()
    };
    assert_eq!(found(&request), token(Source::Query, "good"));
}

#[test]
fn reads_the_authorization_header() {
    for (value, expected) in [
        (&b"Bearer x"[..], token(Source::Header, "x")),
        (b"bearer x", token(Source::Header, "x")),
        (b"Bearer\tx", token(Source::Header, "x")),
        (b"Bearer x y", token(Source::Header, "x y")),
        (b"x.y.z", token(Source::Header, "x.y.z")),
        (b"Basic dXNlcjpwYXNz", None),
        (b"", None),
        (b"Bearer", None),
        (b"Bearer \xff", Some((Source::Header, None))),
    ] {
        let request = Request {
            authorization: Some(value),
            ..Request::default()
        };
        assert_eq!(found(&request), expected, "{}", value.escape_ascii());
    }
}

#[test]
fn reads_cookies() {
    for (value, expected) in [
        (&b"a=1; token=x; b=2"[..], token(Source::Cookie, "x")),
        (b"token=\"x\"", token(Source::Cookie, "x")),
        (b"token=\"x", token(Source::Cookie, "\"x")),
        (b"token=\"", token(Source::Cookie, "\"")),
        (b" token = x ", token(Source::Cookie, "x")),
        (b"token=x=y", token(Source::Cookie, "x=y")),
        (b"token=x; token=y", token(Source::Cookie, "x")),
        (b"token=; token=y", token(Source::Cookie, "y")),
        (b"token=\"\"", None),
        (b"Token=x; mytoken=y; token", None),
        (b";;=;", None),
        (b"token=\xff", Some((Source::Cookie, None))),
    ] {
        let request = Request {
            cookie: Some(value),
            ..Request::default()
        };
        assert_eq!(found(&request), expected, "{}", value.escape_ascii());
    }
}

#[test]
fn reads_the_query() {
    for (query, expected) in [
        ("EIO=4&token=x&t=1", token(Source::Query, "x")),
        ("token=Bearer%20x", token(Source::Query, "x")),
        ("token=Bearer+x", token(Source::Query, "x")),
        ("%74oken=%78", token(Source::Query, "x")),
        ("token=x&token=y", token(Source::Query, "x")),
        ("token=&token=y", token(Source::Query, "y")),
        ("token=a%zz", token(Source::Query, "a%zz")),
        ("token=%ff", Some((Source::Query, None))),
        ("token", None),
        ("tokens=x&xtoken=y", None),
        ("", None),
    ] {
        let request = Request {
            query: Some(query),
            ..Request::default()
        };
        assert_eq!(found(&request), expected, "{query}");
    }
}

#[test]
fn reads_subprotocols() {
    for (list, expected) in [
        (
            &b"carillon.v1, bearer.x.y.z"[..],
            token(Source::Subprotocol, "x.y.z"),
        ),
        (b"bearer.x,carillon.v1", token(Source::Subprotocol, "x")),
        (b"carillon.v1, bearer.", None),
        (b"carillon.v1", None),
        (b"bearer.\xff", Some((Source::Subprotocol, None))),
    ] {
        let request = Request {
            subprotocols: Some(list),
            ..Request::default()
        };
        assert_eq!(found(&request), expected, "{}", list.escape_ascii());
    }
}

#[test]
fn debug_hides_the_token() {
    let request = Request {
        query: Some("token=hunter2"),
        ..Request::default()
    };
    let text = format!("{:?}", find(&request, "token").unwrap());
    assert!(text.contains("Query") && !text.contains("hunter2"), "{text}");
}
