use carillon_auth::{
    Algorithm, ApiKeyConfig, AuthorizeError, Authorizer, Config, KeyConfig, Principal, Scope, Verifier,
};
use serde_json::{Value, json};

use crate::issuer::Issuer;
use crate::tokens::*;

fn config() -> Config {
    let key = |name: &str, key: &str, scopes: &[Scope], namespaces: &[&str]| ApiKeyConfig {
        name: name.to_owned(),
        key_sha256: None,
        key: Some(key.into()),
        scopes: scopes.to_vec(),
        namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
    };
    Config {
        api_keys: vec![
            key("orders", "orders-key", &[Scope::Publish], &["/"]),
            key("ops", "ops-key", &[Scope::Admin], &[]),
        ],
        ..with_secret()
    }
}

async fn authenticate(
    authorization: Option<&str>,
    api_key: Option<&str>,
) -> Result<Principal, AuthorizeError> {
    let authorizer = Authorizer::new(&config(), verifier(&config())).unwrap();
    authorizer
        .authenticate(authorization.map(str::as_bytes), api_key.map(str::as_bytes))
        .await
}

#[tokio::test]
async fn an_api_key_may_stand_in_either_header() {
    for (authorization, api_key, name) in [
        (Some("Bearer orders-key"), None, "orders"),
        (Some("bearer ops-key"), None, "ops"),
        (None, Some("orders-key"), "orders"),
        (Some("Bearer orders-key"), Some("ops-key"), "ops"),
        (Some("Bearer orders-key"), Some(""), "orders"),
    ] {
        let principal = authenticate(authorization, api_key).await.unwrap();
        assert_eq!(principal.name, name, "{authorization:?} {api_key:?}");
    }
    let orders = authenticate(None, Some("orders-key")).await.unwrap();
    assert!(orders.allows(Scope::Publish, "/"));
    assert!(!orders.allows(Scope::Publish, "/chat"));
    assert!(!orders.allows(Scope::Read, "/"));
    let ops = authenticate(None, Some("ops-key")).await.unwrap();
    assert!(ops.allows(Scope::Read, "/chat"));
}

#[tokio::test]
async fn a_token_has_the_scopes_it_says() {
    for (claims, name, scopes) in [
        (
            json!({ "sub": "svc", "scope": "publish" }),
            "svc",
            &[Scope::Publish][..],
        ),
        (
            json!({ "sub": "svc", "scope": "openid admin read" }),
            "svc",
            &[Scope::Admin, Scope::Read],
        ),
        (json!({ "scope": "publish" }), "token", &[Scope::Publish]),
        (json!({ "sub": "svc" }), "svc", &[]),
        (
            json!({ "sub": "svc", "scope": "PUBLISH publish:all" }),
            "svc",
            &[],
        ),
        (json!({ "sub": "svc", "scope": ["publish"] }), "svc", &[]),
    ] {
        let principal = authenticate(Some(&format!("Bearer {}", with_claims(&claims))), None)
            .await
            .unwrap();
        assert_eq!(
            (principal.name.as_str(), principal.scopes.as_slice()),
            (name, scopes),
            "{claims}"
        );
        assert!(principal.namespaces.is_empty());
    }
}

#[tokio::test]
async fn anything_else_is_not_authenticated() {
    let bearer = |claims: Value| format!("Bearer {}", with_claims(&claims));
    let good = bearer(json!({ "sub": "svc", "scope": "publish" }));
    for (authorization, api_key) in [
        (None, None),
        (Some(""), None),
        (Some("Bearer"), None),
        (Some("Bearer nonsense"), None),
        (Some("Basic b3JkZXJzLWtleQ=="), None),
        (Some("Bearer Orders-key"), None),
        (None, Some("orders-ke")),
        (Some(good.as_str()), Some("wrong")),
        (
            Some(bearer(json!({ "scope": "publish", "exp": NOW - 60 })).as_str()),
            None,
        ),
        (
            Some(bearer(json!({ "scope": "publish", "sub": [] })).as_str()),
            None,
        ),
        (Some(signed(Algorithm::Rs256).as_str()), None),
    ] {
        let outcome = authenticate(authorization, api_key).await;
        assert_eq!(
            outcome,
            Err(AuthorizeError::Unauthenticated),
            "{authorization:?} {api_key:?}"
        );
    }
    let authorizer = Authorizer::new(&config(), verifier(&config())).unwrap();
    let outcome = authorizer.authenticate(Some(b"Bearer \xff"), None).await;
    assert_eq!(outcome, Err(AuthorizeError::Unauthenticated));
}

#[tokio::test]
async fn an_outage_of_the_issuer_is_told_as_such() {
    let issuer = Issuer::start().await;
    issuer.answer_status(500);
    let set = KeyConfig {
        jwks_url: Some(issuer.url()),
        ..KeyConfig::default()
    };
    let config = Config {
        keys: vec![set],
        ..config()
    };
    let authorizer = Authorizer::new(&config, Verifier::new(&config).unwrap()).unwrap();
    let bearer = format!("Bearer {}", signed(Algorithm::Rs256));
    let outcome = authorizer.authenticate(Some(bearer.as_bytes()), None).await;
    assert!(
        matches!(outcome, Err(AuthorizeError::Unavailable(_))),
        "{outcome:?}"
    );
    assert!(authorizer.authenticate(None, Some(b"ops-key")).await.is_ok());
}
