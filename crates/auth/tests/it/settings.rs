use std::time::Duration;

use carillon_auth::{Algorithm, Config, KeyConfig, MintError, TokenRequest, Verifier, mint};
use serde_json::{Value, json};

use crate::tokens::*;

#[test]
fn each_bad_key_is_named() {
    let rs256 = || key_config(Algorithm::Rs256);
    let url = |url: &str| KeyConfig {
        jwks_url: Some(url.to_owned()),
        ..KeyConfig::default()
    };
    for (key, path) in [
        (KeyConfig::default(), "auth.keys[0]"),
        (
            KeyConfig {
                secret: Some("x".into()),
                ..rs256()
            },
            "auth.keys[0]",
        ),
        (
            KeyConfig {
                jwks_url: Some("https://a".to_owned()),
                ..rs256()
            },
            "auth.keys[0]",
        ),
        (
            KeyConfig {
                algorithm: None,
                ..rs256()
            },
            "auth.keys[0].algorithm",
        ),
        (
            KeyConfig {
                algorithm: Some(Algorithm::Hs256),
                ..rs256()
            },
            "auth.keys[0].algorithm",
        ),
        (
            KeyConfig {
                algorithm: Some(Algorithm::Es256),
                ..rs256()
            },
            "auth.keys[0].public_key",
        ),
        (
            KeyConfig {
                public_key: Some(RSA.to_owned()),
                ..rs256()
            },
            "auth.keys[0].public_key",
        ),
        (
            KeyConfig {
                secret: Some("".into()),
                ..KeyConfig::default()
            },
            "auth.keys[0].secret",
        ),
        (
            KeyConfig {
                secret: Some(RSA_PUBLIC.into()),
                ..KeyConfig::default()
            },
            "auth.keys[0].secret",
        ),
        (
            KeyConfig {
                algorithm: Some(Algorithm::Rs256),
                public_key_file: Some("no/such/file.pem".into()),
                ..KeyConfig::default()
            },
            "auth.keys[0].public_key_file",
        ),
        (url("not a url"), "auth.keys[0].jwks_url"),
        (url("file:///etc/passwd"), "auth.keys[0].jwks_url"),
        (
            KeyConfig {
                id: Some("a".to_owned()),
                ..url("https://a")
            },
            "auth.keys[0].id",
        ),
        (
            KeyConfig {
                algorithm: Some(Algorithm::Hs256),
                ..url("https://a")
            },
            "auth.keys[0].algorithm",
        ),
    ] {
        let error = Verifier::new(&with_keys([key.clone()])).err();
        assert_eq!(error.map(|error| error.key).as_deref(), Some(path), "{key:?}");
    }
    let config = Config {
        secret: Some("".into()),
        ..Config::default()
    };
    assert_eq!(Verifier::new(&config).err().unwrap().key, "auth.secret");
}

#[test]
fn the_configuration_does_not_show_secrets() {
    let config = Config {
        keys: vec![key_config(Algorithm::Hs256)],
        ..with_secret()
    };
    assert!(!format!("{config:?}").contains(SECRET));
}

#[tokio::test]
async fn a_minted_token_is_accepted_by_its_configuration() {
    let Value::Object(claims) = json!({ "classrooms": [1] }) else {
        unreachable!()
    };
    let request = TokenRequest {
        user: "42".to_owned(),
        role: Some("admin".to_owned()),
        claims,
        ttl: Some(Duration::from_secs(60)),
    };
    let keyed = KeyConfig {
        id: Some("k".to_owned()),
        ..key_config(Algorithm::Hs512)
    };
    for config in [
        with_secret(),
        with_keys([key_config(Algorithm::Rs256), keyed]),
        Config {
            issuer: "me".into(),
            audience: "you".into(),
            id_claims: vec!["email".to_owned()],
            role_claims: vec!["rol".to_owned()],
            ..with_secret()
        },
    ] {
        let token = mint(&config, &request, NOW).unwrap();
        let identity = verify(&config, &token).await.unwrap();
        assert_eq!((&*identity.user, identity.role.as_deref()), ("42", Some("admin")));
        assert_eq!(identity.expires_at, Some(NOW + 60));
        assert_eq!(identity.claims["classrooms"], json!([1]));
    }
    let no_secret = with_keys([key_config(Algorithm::Rs256)]);
    assert!(matches!(
        mint(&no_secret, &request, NOW),
        Err(MintError::NoSecret)
    ));
}

#[tokio::test]
async fn a_minted_token_may_live_for_ever() {
    let request = TokenRequest {
        user: "42".to_owned(),
        ..TokenRequest::default()
    };
    let token = mint(&with_secret(), &request, NOW).unwrap();
    assert_eq!(verify(&with_secret(), &token).await.unwrap().expires_at, None);
}
