use carillon_auth::{Config, Verifier};
use serde_json::{Map, Value, json};

use crate::{carillon, run};

/// The claims of a token, which only this secret can have signed.
pub(crate) async fn claims(token: &str, config: Config) -> Map<String, Value> {
    let verifier = Verifier::new(&config).unwrap();
    let identity = verifier
        .verify(token.trim())
        .await
        .unwrap_or_else(|error| panic!("{error}: {token}"));
    identity.claims.as_ref().clone()
}

/// Settings with this secret.
pub(crate) fn secret(secret: &str) -> Config {
    Config {
        secret: Some(secret.into()),
        ..Config::default()
    }
}

#[tokio::test]
async fn a_token_says_what_was_asked() {
    let builder = carillon([
        "token", "--secret", "s", "--user", "42", "--role", "admin", "--ttl", "1h",
    ]);
    let builder = builder
        .arg("--claim")
        .arg("classrooms=[\"a\",\"b\"]")
        .arg("--claim")
        .arg("name=Ana");
    let (ok, text) = run(builder).await;
    assert!(ok, "{text}");
    let claims = claims(&text, secret("s")).await;
    assert_eq!(claims["sub"], "42");
    assert_eq!(claims["role"], "admin");
    assert_eq!(claims["classrooms"], json!(["a", "b"]));
    assert_eq!(claims["name"], "Ana");
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        3600
    );
}

#[tokio::test]
async fn the_settings_name_the_secret_and_the_claims() {
    let config = "[auth]\nsecret = \"from-config\"\nid_claims = [\"email\"]\nissuer = \"https://me\"\n";
    let (ok, text) = run(carillon(["token", "--user", "ana@example.org"]).config(config)).await;
    assert!(ok, "{text}");
    let mut accepted = secret("from-config");
    accepted.id_claims = vec!["email".to_owned()];
    let claims = claims(&text, accepted).await;
    assert_eq!(
        (&claims["email"], &claims["iss"]),
        (&json!("ana@example.org"), &json!("https://me"))
    );
    assert!(claims.get("exp").is_none());
}

#[tokio::test]
async fn there_is_no_default_secret() {
    let (ok, text) = run(carillon(["token", "--user", "42"])).await;
    assert!(!ok);
    assert!(
        text.contains("no secret is configured to sign with: give --secret"),
        "{text}"
    );
}

#[tokio::test]
async fn a_user_that_no_edge_would_admit_gets_no_token() {
    for user in [String::new(), "x".repeat(201)] {
        let (ok, text) = run(carillon(["token", "--secret", "s", "--user"]).arg(&user)).await;
        assert!(!ok && text.contains("a user's id has 1 to 200 bytes"), "{text}");
    }
    let (ok, text) = run(carillon(["token", "--secret", "s", "--user"]).arg("x".repeat(200))).await;
    assert!(ok, "{text}");
}
