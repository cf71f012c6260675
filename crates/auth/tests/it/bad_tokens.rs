use carillon_auth::{Algorithm, Config, InvalidToken, VerifyError};
use serde_json::{Value, json};

use crate::tokens::*;

async fn reason(config: &Config, token: &str) -> InvalidToken {
    match verify(config, token).await {
        Err(VerifyError::Invalid(reason)) => reason,
        other => panic!("expected an invalid token, found {other:?}"),
    }
}

#[tokio::test]
async fn each_bad_shape_has_its_reason() {
    let good = with_claims(&json!({ "sub": "42" }));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let array = encode("[]");
    for (token, expected) in [
        (String::new(), InvalidToken::Malformed),
        (".".to_owned(), InvalidToken::Malformed),
        ("..".to_owned(), InvalidToken::Malformed),
        ("....".to_owned(), InvalidToken::Malformed),
        ("undefined".to_owned(), InvalidToken::Malformed),
        ("é.è.ê".to_owned(), InvalidToken::Malformed),
        (format!("Bearer {good}"), InvalidToken::Malformed),
        (format!("{good}.x"), InvalidToken::Malformed),
        (format!("{good}.x.y"), InvalidToken::Malformed),
        (message.to_owned(), InvalidToken::Malformed),
        (
            format!("{header}=.{payload}.{signature}"),
            InvalidToken::Malformed,
        ),
        (format!("{array}.{payload}.{signature}"), InvalidToken::Malformed),
        (
            format!("{}.{payload}.{signature}", encode("{")),
            InvalidToken::Malformed,
        ),
        (
            format!("{}.{payload}.{signature}", encode(&"[".repeat(5000))),
            InvalidToken::Malformed,
        ),
        (
            format!("{}.{payload}.{signature}", "A".repeat(20_000)),
            InvalidToken::TooLarge,
        ),
        (format!("{good}{}", "A".repeat(16 * 1024)), InvalidToken::TooLarge),
        (format!(" {good}"), InvalidToken::Malformed),
    ] {
        assert_eq!(reason(&with_secret(), &token).await, expected, "{token:.80}");
    }
}

#[tokio::test]
async fn each_bad_header_has_its_reason() {
    let sign = |header: Value| {
        sign(
            Algorithm::Hs256,
            &signing_key(Algorithm::Hs256),
            &header,
            &json!({ "sub": "42" }),
        )
    };
    for (header, expected) in [
        (json!({}), InvalidToken::Malformed),
        (json!({ "alg": null }), InvalidToken::Malformed),
        (json!({ "alg": 256 }), InvalidToken::Malformed),
        (json!({ "alg": "none" }), InvalidToken::Algorithm),
        (json!({ "alg": "None" }), InvalidToken::Algorithm),
        (json!({ "alg": "" }), InvalidToken::Algorithm),
        (json!({ "alg": "hs256" }), InvalidToken::Algorithm),
        (json!({ "alg": "PS256" }), InvalidToken::Algorithm),
        (json!({ "alg": "ES512" }), InvalidToken::Algorithm),
        (json!({ "alg": "RS256" }), InvalidToken::Signature),
        (json!({ "alg": "HS512" }), InvalidToken::Signature),
        (json!({ "alg": "HS256", "kid": 7 }), InvalidToken::Malformed),
        (json!({ "alg": "HS256", "crit": ["exp"] }), InvalidToken::Critical),
        (
            json!({ "alg": "HS256", "crit": ["b64"], "b64": true }),
            InvalidToken::Critical,
        ),
        (json!({ "alg": "HS256", "crit": [] }), InvalidToken::Critical),
        (json!({ "alg": "HS256", "crit": "x" }), InvalidToken::Critical),
        (json!({ "alg": "HS256", "crit": [7] }), InvalidToken::Critical),
        (json!({ "alg": "HS256", "crit": null }), InvalidToken::Critical),
    ] {
        assert_eq!(
            reason(&with_secret(), &sign(header.clone())).await,
            expected,
            "{header}"
        );
    }
}

#[tokio::test]
async fn an_unsigned_token_is_refused() {
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"NONE","typ":"JWT"}"#] {
        let token = format!("{}.{}.", encode(header), encode(r#"{"sub":"42"}"#));
        assert_eq!(reason(&with_secret(), &token).await, InvalidToken::Algorithm);
    }
    let token = format!("{}.{}.", encode(r#"{"alg":"HS256"}"#), encode(r#"{"sub":"42"}"#));
    assert_eq!(reason(&with_secret(), &token).await, InvalidToken::Signature);
}

#[tokio::test]
async fn a_genuine_payload_must_be_an_object() {
    for payload in [
        "",
        "7",
        "null",
        "[]",
        "\"42\"",
        "{",
        "{\"sub\":\"42\"}x",
        "{\"sub\":\"\\ud800\"}",
    ] {
        let token = sign_text(
            Algorithm::Hs256,
            &signing_key(Algorithm::Hs256),
            r#"{"alg":"HS256"}"#,
            payload,
        );
        assert_eq!(
            reason(&with_secret(), &token).await,
            InvalidToken::Malformed,
            "{payload}"
        );
    }
}

#[tokio::test]
async fn issuer_and_audience_count_where_set() {
    let config = Config {
        issuer: "https://a".into(),
        audience: "web".into(),
        ..with_secret()
    };
    for (claims, expected) in [
        (json!({ "aud": "web" }), InvalidToken::Issuer),
        (json!({ "iss": "https://b", "aud": "web" }), InvalidToken::Issuer),
        (json!({ "iss": "https://a/", "aud": "web" }), InvalidToken::Issuer),
        (
            json!({ "iss": ["https://a"], "aud": "web" }),
            InvalidToken::Issuer,
        ),
        (json!({ "iss": null, "aud": "web" }), InvalidToken::Issuer),
        (json!({ "iss": "https://a" }), InvalidToken::Audience),
        (
            json!({ "iss": "https://a", "aud": "ios" }),
            InvalidToken::Audience,
        ),
        (json!({ "iss": "https://a", "aud": [] }), InvalidToken::Audience),
        (
            json!({ "iss": "https://a", "aud": ["ios", "tv"] }),
            InvalidToken::Audience,
        ),
        (
            json!({ "iss": "https://a", "aud": ["web", 7] }),
            InvalidToken::Audience,
        ),
        (json!({ "iss": "https://a", "aud": 7 }), InvalidToken::Audience),
        (json!({ "iss": "https://a", "aud": null }), InvalidToken::Audience),
    ] {
        assert_eq!(
            reason(&config, &with_claims(&with_user(claims.clone()))).await,
            expected,
            "{claims}"
        );
    }
    for audience in [json!("web"), json!(["ios", "web"])] {
        let token = with_claims(&json!({ "sub": "42", "iss": "https://a", "aud": audience }));
        assert!(verify(&config, &token).await.is_ok(), "{audience}");
    }
    for claims in [
        json!({ "iss": "anyone", "aud": "anything" }),
        json!({ "aud": ["a", "b"] }),
        json!({ "aud": 7 }),
    ] {
        let token = with_claims(&with_user(claims.clone()));
        assert!(verify(&with_secret(), &token).await.is_ok(), "{claims}");
    }
}

fn with_user(mut claims: Value) -> Value {
    claims["sub"] = json!("42");
    claims
}

#[tokio::test]
async fn without_keys_no_token_is_good() {
    let token = with_claims(&json!({ "sub": "42" }));
    assert_eq!(reason(&Config::default(), &token).await, InvalidToken::Signature);
}

#[tokio::test]
async fn errors_do_not_show_the_token() {
    let token = with_claims(&json!({ "sub": "42", "exp": "hunter2" }));
    let error = verify(&with_secret(), &token).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hunter2"));
    assert!(!format!("{error:?} {error}").contains(&token[..20]));
}
