use std::time::Duration;

use carillon_auth::{Config, InvalidToken, VerifyError};
use serde_json::{Value, json};

use crate::tokens::*;

const EARLY: Result<(), VerifyError> = Err(VerifyError::Invalid(InvalidToken::NotYetValid));
const EXPIRED: Result<(), VerifyError> = Err(VerifyError::Expired);

async fn at_now(config: &Config, claims: Value) -> Result<(), VerifyError> {
    let mut claims = claims;
    claims["sub"] = json!("42");
    verify(config, &with_claims(&claims)).await.map(drop)
}

#[tokio::test]
async fn times_count_with_thirty_seconds_of_leeway() {
    for (claims, expected) in [
        (json!({}), Ok(())),
        (json!({ "exp": NOW + 3600 }), Ok(())),
        (json!({ "exp": NOW }), Ok(())),
        (json!({ "exp": NOW - 29 }), Ok(())),
        (json!({ "exp": NOW - 30 }), EXPIRED),
        (json!({ "exp": NOW - 31 }), EXPIRED),
        (json!({ "exp": NOW as f64 - 29.5 }), Ok(())),
        (json!({ "exp": 0 }), EXPIRED),
        (json!({ "exp": -1 }), EXPIRED),
        (json!({ "exp": u64::MAX }), Ok(())),
        (json!({ "exp": 1e300 }), Ok(())),
        (json!({ "nbf": NOW - 3600 }), Ok(())),
        (json!({ "nbf": NOW + 30 }), Ok(())),
        (json!({ "nbf": NOW + 31 }), EARLY),
        (json!({ "nbf": NOW as f64 + 30.5 }), EARLY),
        (json!({ "nbf": u64::MAX }), EARLY),
        (json!({ "nbf": -1 }), Ok(())),
        (json!({ "iat": NOW + 3600 }), Ok(())),
        (json!({ "nbf": NOW - 10, "exp": NOW + 10 }), Ok(())),
    ] {
        assert_eq!(at_now(&with_secret(), claims.clone()).await, expected, "{claims}");
    }
}

#[tokio::test]
async fn the_leeway_is_configurable() {
    let config = Config {
        leeway: Duration::ZERO,
        ..with_secret()
    };
    assert_eq!(at_now(&config, json!({ "exp": NOW })).await, EXPIRED);
    assert_eq!(at_now(&config, json!({ "exp": NOW + 1 })).await, Ok(()));
    assert_eq!(at_now(&config, json!({ "nbf": NOW })).await, Ok(()));
    assert_eq!(at_now(&config, json!({ "nbf": NOW + 1 })).await, EARLY);
    assert_eq!(verifier(&config).leeway(), Duration::ZERO);
}

#[tokio::test]
async fn a_time_of_the_wrong_type_is_a_bad_token() {
    for name in ["exp", "nbf"] {
        for value in [
            json!("1800000000"),
            json!(null),
            json!(true),
            json!([NOW]),
            json!({}),
        ] {
            let outcome = at_now(&with_secret(), json!({ name: value })).await;
            assert_eq!(outcome, Err(InvalidToken::Claim(name).into()), "{name} {value}");
        }
    }
}

#[tokio::test]
async fn the_caller_may_give_the_time() {
    let token = with_claims(&json!({ "sub": "42", "exp": 1000 }));
    let verifier = verifier(&with_secret());
    assert_eq!(
        verifier.verify_at(&token, 1029).await.unwrap().expires_at,
        Some(1000)
    );
    assert_eq!(verifier.verify_at(&token, 1030).await, Err(VerifyError::Expired));
}

#[tokio::test]
async fn a_forged_token_is_never_called_expired() {
    let token = with_claims(&json!({ "sub": "42", "exp": 1000 }));
    let other = Config {
        secret: Some("another secret".into()),
        ..Config::default()
    };
    assert_eq!(verify(&other, &token).await, Err(InvalidToken::Signature.into()));
}
