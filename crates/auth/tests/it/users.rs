use carillon_auth::credentials::{Request, find};
use carillon_auth::{Algorithm, Config, InvalidToken, VerifyError};
use serde_json::{Value, json};

use crate::tokens::*;

async fn user(config: &Config, claims: &Value) -> Result<String, VerifyError> {
    verify(config, &with_claims(claims))
        .await
        .map(|identity| identity.user.to_string())
}

#[tokio::test]
async fn the_first_present_claim_is_the_user() {
    for (claims, expected) in [
        (json!({ "sub": "a", "userId": "b", "id": "c" }), "a"),
        (json!({ "userId": "b", "id": "c" }), "b"),
        (json!({ "id": "c" }), "c"),
        (json!({ "sub": 42 }), "42"),
        (json!({ "sub": -1 }), "-1"),
        (json!({ "sub": 0 }), "0"),
        (json!({ "sub": u64::MAX }), "18446744073709551615"),
        (json!({ "sub": "é ñ" }), "é ñ"),
        (json!({ "sub": "x".repeat(200) }), &"x".repeat(200)),
    ] {
        assert_eq!(
            user(&with_secret(), &claims).await.as_deref(),
            Ok(expected),
            "{claims}"
        );
    }
    let config = Config {
        id_claims: vec!["email".to_owned(), "sub".to_owned()],
        ..with_secret()
    };
    assert_eq!(
        user(&config, &json!({ "sub": "a", "email": "b" }))
            .await
            .as_deref(),
        Ok("b")
    );
    assert_eq!(user(&config, &json!({ "sub": "a" })).await.as_deref(), Ok("a"));
}

#[tokio::test]
async fn an_integer_of_any_length_is_a_user() {
    let verify = async |claims: &str| {
        let key = signing_key(Algorithm::Hs256);
        let token = sign_text(Algorithm::Hs256, &key, r#"{"alg":"HS256"}"#, claims);
        verify(&with_secret(), &token).await
    };
    let long = "7".repeat(200);
    for id in [
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890",
        &long,
    ] {
        let identity = verify(&format!(r#"{{"sub": {id} ,"jti":{id}}}"#)).await.unwrap();
        assert_eq!(&*identity.user, id);
        assert_eq!(identity.token_id.as_deref(), Some(id));
        assert!(identity.claims["sub"].is_f64(), "rules see what they saw");
    }
    let longer = format!("{long}7");
    for id in [
        &longer,
        "123456789012345678901234567890.0",
        "123456789012345678901e2",
    ] {
        let outcome = verify(&format!(r#"{{"sub":{id}}}"#)).await;
        assert_eq!(outcome, Err(InvalidToken::UserId.into()), "{id}");
    }
}

#[tokio::test]
async fn a_bad_user_id_is_a_bad_token_even_if_another_claim_is_good() {
    for id in [
        json!(""),
        json!("x".repeat(201)),
        json!("é".repeat(101)),
        json!(null),
        json!(true),
        json!(1.5),
        json!(1.0),
        json!(1e30),
        json!(["a"]),
        json!({}),
    ] {
        let outcome = user(&with_secret(), &json!({ "sub": id, "id": "good" })).await;
        assert_eq!(outcome, Err(InvalidToken::UserId.into()), "{id}");
    }
    for claims in [json!({}), json!({ "email": "a" }), json!({ "Sub": "a" })] {
        assert_eq!(
            user(&with_secret(), &claims).await,
            Err(InvalidToken::UserId.into()),
            "{claims}"
        );
    }
}

#[tokio::test]
async fn the_identity_holds_what_the_token_says() {
    let claims = json!({
        "sub": 42, "role": "admin", "rol": "x", "nombre": "Ana", "exp": NOW + 60, "jti": "t1",
        "scope": " publish  read ", "classrooms": [1, 2],
    });
    let identity = verify(&with_secret(), &with_claims(&claims)).await.unwrap();
    assert_eq!(&*identity.user, "42");
    assert_eq!(identity.role.as_deref(), Some("admin"));
    assert_eq!(identity.name.as_deref(), Some("Ana"));
    assert_eq!(identity.expires_at, Some(NOW + 60));
    assert_eq!(identity.token_id.as_deref(), Some("t1"));
    assert_eq!(identity.scopes, ["publish", "read"]);
    assert_eq!(Value::Object((*identity.claims).clone()), claims);
}

#[tokio::test]
async fn what_is_not_there_or_not_text_is_left_out() {
    for claims in [
        json!({ "sub": "a" }),
        json!({ "sub": "a", "role": ["admin"], "rol": "x", "name": 7, "scope": [] }),
    ] {
        let identity = verify(&with_secret(), &with_claims(&claims)).await.unwrap();
        assert_eq!((identity.role, identity.name), (None, None), "{claims}");
        assert_eq!((identity.expires_at, identity.token_id), (None, None));
        assert!(identity.scopes.is_empty());
    }
    let identity = verify(
        &with_secret(),
        &with_claims(&json!({ "sub": "a", "rol": "teacher", "jti": 7 })),
    )
    .await;
    let identity = identity.unwrap();
    assert_eq!(identity.role.as_deref(), Some("teacher"));
    assert_eq!(identity.token_id.as_deref(), Some("7"));
}

#[tokio::test]
async fn a_credential_is_missing_bad_or_good() {
    let verifier = verifier(&with_secret());
    let outcome = async |auth: &Value, query: &str| {
        let request = Request {
            auth: Some(auth),
            query: Some(query),
            ..Request::default()
        };
        let credential = find(&request, "token");
        verifier
            .verify_credential(credential.as_ref())
            .await
            .map(|identity| identity.user.to_string())
    };
    let good = with_claims(&json!({ "sub": "a" }));
    let query = format!("token={good}");
    assert_eq!(outcome(&json!({}), "").await, Err(VerifyError::Missing));
    assert_eq!(
        outcome(&json!({ "token": format!("Bearer {good}") }), "")
            .await
            .as_deref(),
        Ok("a")
    );
    assert_eq!(
        outcome(&json!({ "token": 7 }), &query).await,
        Err(InvalidToken::Malformed.into())
    );
    assert_eq!(
        outcome(&json!({ "token": "bad" }), &query).await,
        Err(InvalidToken::Malformed.into())
    );
    assert_eq!(
        outcome(&json!({ "token": null }), &query).await.as_deref(),
        Ok("a")
    );
}
