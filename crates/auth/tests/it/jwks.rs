use std::sync::Arc;
use std::time::Duration;

use carillon_auth::{
    Algorithm, Config, FetchError, Identity, InvalidToken, KeyConfig, Verifier, VerifyError,
};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::json;

use crate::issuer::{Issuer, jwk, rsa_jwk};
use crate::tokens::*;

struct Setup {
    issuer: Issuer,
    clock: Arc<TestClock>,
    verifier: Verifier,
}

impl Setup {
    async fn new() -> Self {
        let issuer = Issuer::start().await;
        let clock = Arc::new(TestClock::default());
        let verifier = Verifier::with_clock(&config(&issuer), clock.clone()).unwrap();
        Self {
            issuer,
            clock,
            verifier,
        }
    }

    async fn verify(&self, token: &str) -> Result<Identity, VerifyError> {
        soon(self.verifier.verify(token)).await
    }

    async fn accepts(&self, token: &str) -> bool {
        self.verify(token).await.is_ok()
    }
}

fn config(issuer: &Issuer) -> Config {
    with_keys([KeyConfig {
        jwks_url: Some(issuer.url()),
        ..KeyConfig::default()
    }])
}

fn rs256(pem: &str, kid: Option<&str>) -> String {
    let header = match kid {
        Some(kid) => json!({ "alg": "RS256", "kid": kid }),
        None => json!({ "alg": "RS256" }),
    };
    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    sign(Algorithm::Rs256, &key, &header, &json!({ "sub": "42" }))
}

fn invalid() -> Result<Identity, VerifyError> {
    Err(InvalidToken::Signature.into())
}

#[tokio::test]
async fn each_kind_of_key_is_taken_from_a_set() {
    let setup = Setup::new().await;
    let ec = |pem: &str| DecodingKey::from_ec_pem(pem.as_bytes()).unwrap();
    setup.issuer.answer_keys(&[
        json!("not a key"),
        json!({ "kty": "oct", "k": encode(SECRET) }),
        rsa_jwk(None, RSA_PUBLIC),
        jwk(None, &ec(P256_PUBLIC)),
        jwk(None, &ec(P384_PUBLIC)),
        jwk(
            None,
            &DecodingKey::from_ed_pem(ED25519_PUBLIC.as_bytes()).unwrap(),
        ),
    ]);
    for algorithm in [
        Algorithm::Rs256,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ] {
        assert!(setup.accepts(&signed(algorithm)).await, "{algorithm:?}");
    }
    assert_eq!(setup.issuer.requests(), 1);
    // A symmetric key in a public set is nobody's secret, and needs no set to be refused.
    assert_eq!(setup.verify(&signed(Algorithm::Hs256)).await, invalid());
    assert_eq!(setup.issuer.requests(), 1);
}

#[tokio::test]
async fn a_rotated_key_is_fetched_once_its_id_shows_up() {
    let setup = Setup::new().await;
    setup.issuer.answer_keys(&[rsa_jwk(Some("old"), RSA_PUBLIC)]);
    assert!(setup.accepts(&rs256(RSA, Some("old"))).await);
    setup.issuer.answer_keys(&[rsa_jwk(Some("new"), RSA2_PUBLIC)]);
    assert!(setup.accepts(&rs256(RSA, Some("old"))).await);
    assert_eq!(setup.issuer.requests(), 1);
    assert!(setup.accepts(&rs256(RSA2, Some("new"))).await);
    assert_eq!(setup.issuer.requests(), 2);
    assert_eq!(setup.verify(&rs256(RSA, Some("new"))).await, invalid());
}

#[tokio::test]
async fn a_rotated_key_without_an_id_is_fetched_too() {
    let setup = Setup::new().await;
    setup.issuer.answer_keys(&[rsa_jwk(None, RSA_PUBLIC)]);
    assert!(setup.accepts(&rs256(RSA, None)).await);
    setup.issuer.answer_keys(&[rsa_jwk(None, RSA2_PUBLIC)]);
    assert!(setup.accepts(&rs256(RSA2, None)).await);
}

#[tokio::test]
async fn an_unknown_key_id_is_asked_for_once() {
    let setup = Setup::new().await;
    setup.issuer.answer_keys(&[rsa_jwk(Some("a"), RSA_PUBLIC)]);
    assert!(setup.accepts(&rs256(RSA, Some("a"))).await);
    for _ in 0..10 {
        assert_eq!(setup.verify(&rs256(RSA2, Some("unknown"))).await, invalid());
    }
    assert_eq!(setup.issuer.requests(), 2);
    setup.clock.advance(Duration::from_secs(30));
    assert_eq!(setup.verify(&rs256(RSA2, Some("unknown"))).await, invalid());
    assert_eq!(setup.issuer.requests(), 3);
}

#[tokio::test]
async fn a_key_id_that_was_asked_for_too_early_is_found_later() {
    let setup = Setup::new().await;
    setup.issuer.answer_keys(&[rsa_jwk(Some("old"), RSA_PUBLIC)]);
    assert!(setup.accepts(&rs256(RSA, Some("old"))).await);
    let token = rs256(RSA2, Some("new"));
    assert_eq!(setup.verify(&token).await, invalid());
    setup.issuer.answer_keys(&[rsa_jwk(Some("new"), RSA2_PUBLIC)]);
    setup.clock.advance(Duration::from_secs(1));
    assert!(setup.accepts(&token).await);
}

#[tokio::test]
async fn an_outage_is_noticed_for_a_key_id_that_was_asked_for_before() {
    let setup = Setup::new().await;
    setup.issuer.answer_keys(&[rsa_jwk(Some("a"), RSA_PUBLIC)]);
    assert!(setup.accepts(&rs256(RSA, Some("a"))).await);
    let tokens = [Some("unknown"), None, Some("new")].map(|kid| rs256(RSA2, kid));
    for token in &tokens[..2] {
        assert_eq!(setup.verify(token).await, invalid());
    }
    setup.issuer.answer_status(503);
    for _ in 0..40 {
        setup.clock.advance(Duration::from_secs(1));
        let requests = setup.issuer.requests();
        for token in tokens.iter().chain(&tokens) {
            assert_eq!(setup.verify(token).await, Err(FetchError::Status(503).into()));
        }
        assert_eq!(setup.issuer.requests(), requests + 1);
    }
    assert!(setup.accepts(&rs256(RSA, Some("a"))).await);
    setup.issuer.answer_keys(&[rsa_jwk(None, RSA2_PUBLIC)]);
    setup.clock.advance(Duration::from_secs(1));
    for token in &tokens {
        assert!(setup.accepts(token).await);
    }
}

#[tokio::test]
async fn unknown_key_ids_make_no_storm_of_fetches() {
    let setup = Setup::new().await;
    setup.issuer.answer_keys(&[rsa_jwk(Some("a"), RSA_PUBLIC)]);
    assert!(setup.accepts(&rs256(RSA, Some("a"))).await);
    for id in 0..40 {
        assert_eq!(setup.verify(&rs256(RSA2, Some(&id.to_string()))).await, invalid());
    }
    assert_eq!(setup.issuer.requests(), 1 + 5);
    assert!(setup.accepts(&rs256(RSA, Some("a"))).await);
}

#[tokio::test]
async fn before_the_first_fetch_an_outage_is_no_verdict() {
    let setup = Setup::new().await;
    let token = rs256(RSA, Some("a"));
    for (status, body, error) in [
        (503, String::new(), FetchError::Status(503)),
        (404, r#"{"keys":[]}"#.to_owned(), FetchError::Status(404)),
        (200, "<html>".to_owned(), FetchError::NotAKeySet),
        (200, " ".repeat(1024 * 1024 + 1), FetchError::TooLarge),
    ] {
        setup.issuer.answer(status, body);
        assert_eq!(setup.verify(&token).await, Err(error.into()));
        setup.clock.advance(Duration::from_secs(1));
    }
    setup.issuer.answer_keys(&[rsa_jwk(Some("a"), RSA_PUBLIC)]);
    assert!(setup.accepts(&token).await);
}

#[tokio::test]
async fn a_failed_fetch_is_not_repeated_at_once() {
    let setup = Setup::new().await;
    setup.issuer.answer_status(500);
    for _ in 0..10 {
        assert_eq!(
            setup.verify(&rs256(RSA, None)).await,
            Err(FetchError::Status(500).into())
        );
    }
    assert_eq!(setup.issuer.requests(), 1);
}

#[tokio::test]
async fn keys_at_hand_serve_on_while_the_issuer_is_down() {
    let Setup {
        issuer,
        clock,
        verifier,
    } = Setup::new().await;
    issuer.answer_keys(&[rsa_jwk(Some("a"), RSA_PUBLIC)]);
    let token = rs256(RSA, Some("a"));
    assert!(soon(verifier.verify(&token)).await.is_ok());
    issuer.stop().await;
    for _ in 0..5 {
        clock.advance(Duration::from_secs(3600));
        assert!(soon(verifier.verify(&token)).await.is_ok());
    }
    // Whether another key is good cannot be known now.
    let outcome = soon(verifier.verify(&rs256(RSA2, Some("b")))).await;
    assert!(
        matches!(outcome, Err(VerifyError::Unavailable(FetchError::Unreachable(_)))),
        "{outcome:?}"
    );
    assert_eq!(soon(verifier.verify(&rs256(RSA2, Some("a")))).await, invalid());
}

#[tokio::test]
async fn old_keys_are_refreshed_in_the_background() {
    let setup = Setup::new().await;
    setup.issuer.answer_keys(&[rsa_jwk(Some("a"), RSA_PUBLIC)]);
    let token = rs256(RSA, Some("a"));
    assert!(setup.accepts(&token).await);
    setup.clock.advance(Duration::from_secs(10 * 60 - 1));
    assert!(setup.accepts(&token).await);
    assert_eq!(setup.issuer.requests(), 1);

    setup.issuer.hold();
    setup.issuer.answer_keys(&[]);
    setup.clock.advance(Duration::from_secs(1));
    assert!(
        setup.accepts(&token).await,
        "the old keys serve while the new ones are under way"
    );
    setup.issuer.wait_for_requests(2).await;
    assert!(setup.accepts(&token).await);
    assert_eq!(setup.issuer.requests(), 2);

    setup.issuer.release();
    soon(async {
        while setup.verifier.verify(&token).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn all_who_need_a_fetch_wait_for_the_same_one() {
    let setup = Setup::new().await;
    setup.issuer.answer_keys(&[rsa_jwk(Some("a"), RSA_PUBLIC)]);
    setup.issuer.hold();
    let token = rs256(RSA, Some("a"));
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (verifier, token) = (setup.verifier.clone(), token.clone());
            tokio::spawn(async move { verifier.verify(&token).await.is_ok() })
        })
        .collect();
    setup.issuer.wait_for_requests(1).await;
    setup.issuer.release();
    for task in waiting {
        assert!(soon(task).await.unwrap());
    }
    assert_eq!(setup.issuer.requests(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_a_fetch() {
    let setup = Setup::new().await;
    setup.issuer.answer_keys(&[rsa_jwk(Some("a"), RSA_PUBLIC)]);
    setup.issuer.hold();
    let token = rs256(RSA, Some("a"));
    let leaving = tokio::spawn({
        let (verifier, token) = (setup.verifier.clone(), token.clone());
        async move { verifier.verify(&token).await }
    });
    setup.issuer.wait_for_requests(1).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    setup.issuer.release();
    assert!(setup.accepts(&token).await);
    assert_eq!(setup.issuer.requests(), 1);
}

#[tokio::test]
async fn a_set_is_not_needed_where_another_key_is_enough() {
    let issuer = Issuer::start().await;
    issuer.answer_status(500);
    let mut config = config(&issuer);
    config.keys.push(key_config(Algorithm::Rs256));
    let verifier = verifier(&config);
    assert!(soon(verifier.verify(&rs256(RSA, Some("any")))).await.is_ok());
    assert_eq!(issuer.requests(), 0);
}

#[tokio::test]
async fn a_key_id_of_another_algorithm_does_not_hide_a_set() {
    let issuer = Issuer::start().await;
    issuer.answer_keys(&[rsa_jwk(Some("1"), RSA_PUBLIC)]);
    let mut config = config(&issuer);
    config.keys.push(KeyConfig {
        id: Some("1".to_owned()),
        ..key_config(Algorithm::Hs256)
    });
    let verifier = verifier(&config);
    assert!(soon(verifier.verify(&rs256(RSA, Some("1")))).await.is_ok());
}

#[tokio::test]
async fn sources_may_use_the_same_key_id() {
    let (first, second) = (Issuer::start().await, Issuer::start().await);
    first.answer_keys(&[rsa_jwk(Some("1"), RSA_PUBLIC)]);
    let in_a_set = config(&first).keys.remove(0);
    let at_hand = KeyConfig {
        id: Some("1".to_owned()),
        ..key_config(Algorithm::Rs256)
    };
    for other in [in_a_set, at_hand] {
        let mut config = with_keys([other]);
        config.keys.extend(self::config(&second).keys);
        let clock = Arc::new(TestClock::default());
        let verifier = Verifier::with_clock(&config, clock.clone()).unwrap();
        let token = rs256(RSA2, Some("1"));
        second.answer_status(503);
        assert!(soon(verifier.verify(&rs256(RSA, Some("1")))).await.is_ok());
        let outcome = soon(verifier.verify(&token)).await;
        assert_eq!(outcome, Err(FetchError::Status(503).into()));

        second.answer_keys(&[rsa_jwk(Some("1"), RSA2_PUBLIC)]);
        clock.advance(Duration::from_secs(1));
        assert!(soon(verifier.verify(&token)).await.is_ok());
        let requests = (first.requests(), second.requests());
        let (message, _) = token.rsplit_once('.').unwrap();
        let forged = format!("{message}.{}", encode("forged"));
        assert_eq!(soon(verifier.verify(&forged)).await, invalid());
        assert_eq!((first.requests(), second.requests()), requests);
    }
}

#[tokio::test]
async fn one_set_down_does_not_hide_another() {
    let (down, up) = (Issuer::start().await, Issuer::start().await);
    down.answer_status(500);
    up.answer_keys(&[rsa_jwk(Some("a"), RSA_PUBLIC)]);
    let mut config = config(&down);
    config.keys.extend(self::config(&up).keys);
    let verifier = verifier(&config);
    assert!(soon(verifier.verify(&rs256(RSA, Some("a")))).await.is_ok());
    let outcome = soon(verifier.verify(&rs256(RSA2, Some("b")))).await;
    assert_eq!(outcome, Err(FetchError::Status(500).into()));
}

#[tokio::test]
async fn a_set_may_be_restricted_to_one_algorithm() {
    let issuer = Issuer::start().await;
    issuer.answer_keys(&[rsa_jwk(None, RSA_PUBLIC)]);
    let mut config = config(&issuer);
    config.keys[0].algorithm = Some(Algorithm::Rs512);
    let verifier = verifier(&config);
    assert_eq!(soon(verifier.verify(&signed(Algorithm::Rs256))).await, invalid());
    assert_eq!(issuer.requests(), 0);
    assert!(soon(verifier.verify(&signed(Algorithm::Rs512))).await.is_ok());
}
