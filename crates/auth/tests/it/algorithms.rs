use carillon_auth::{Algorithm, InvalidToken, KeyConfig, VerifyError};
use jsonwebtoken::EncodingKey;
use serde_json::json;

use crate::tokens::*;

const FORGED: Result<(), VerifyError> = Err(VerifyError::Invalid(InvalidToken::Signature));

async fn outcome(config: &carillon_auth::Config, token: &str) -> Result<(), VerifyError> {
    verify(config, token)
        .await
        .map(|identity| assert_eq!(&*identity.user, "42"))
}

#[tokio::test]
async fn each_algorithm_verifies_its_own_tokens_and_no_others() {
    let tokens = Algorithm::ALL.map(|algorithm| (algorithm, signed(algorithm)));
    for key in Algorithm::ALL {
        let config = with_keys([key_config(key)]);
        for (algorithm, token) in &tokens {
            let expected = if *algorithm == key { Ok(()) } else { FORGED };
            assert_eq!(
                outcome(&config, token).await,
                expected,
                "{algorithm:?} with a key for {key:?}"
            );
        }
    }
}

#[tokio::test]
async fn several_keys_are_accepted_at_once() {
    let config = with_keys(Algorithm::ALL.map(key_config));
    for algorithm in Algorithm::ALL {
        assert_eq!(
            outcome(&config, &signed(algorithm)).await,
            Ok(()),
            "{algorithm:?}"
        );
    }
}

#[tokio::test]
async fn a_changed_token_is_forged() {
    for algorithm in Algorithm::ALL {
        let config = with_keys([key_config(algorithm)]);
        let token = signed(algorithm);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let header = message.split_once('.').unwrap().0;
        for changed in [
            format!("{header}.{}.{signature}", encode(r#"{"sub":"43"}"#)),
            format!("{message}."),
            format!("{message}.{}", encode("short")),
            format!("{message}.{}", encode(&"x".repeat(64))),
            format!("{message}.{}", encode(&"\0".repeat(96))),
            format!("{message}.{}", encode(&"x".repeat(256))),
            format!("{message}.{}", encode(&"x".repeat(5000))),
            format!("{message}.!!!!"),
            format!("{token}="),
        ] {
            assert_eq!(
                outcome(&config, &changed).await,
                FORGED,
                "{algorithm:?} {changed}"
            );
        }
    }
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    let config = with_keys([key_config(Algorithm::Rs256)]);
    for secret in [RSA_PUBLIC, RSA_PUBLIC.trim_end(), RSA_PUBLIC_PKCS1] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
            for header in [json!({ "alg": algorithm.name() }), json!({ "alg": "RS256" })] {
                let token = sign(algorithm, &key, &header, &json!({ "sub": "42" }));
                assert_eq!(outcome(&config, &token).await, FORGED, "{header}");
            }
        }
    }
}

#[tokio::test]
async fn an_embedded_key_is_not_believed() {
    let jwk = json!({ "kty": "oct", "k": encode("mine") });
    let header =
        json!({ "alg": "HS256", "jwk": jwk, "jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/" });
    let token = sign(
        Algorithm::Hs256,
        &EncodingKey::from_secret(b"mine"),
        &header,
        &json!({ "sub": "42" }),
    );
    assert_eq!(outcome(&with_secret(), &token).await, FORGED);
}

#[tokio::test]
async fn a_known_key_id_picks_the_key() {
    let key = |id: &str, pem: &str| KeyConfig {
        id: Some(id.to_owned()),
        algorithm: Some(Algorithm::Rs256),
        public_key: Some(pem.to_owned()),
        ..KeyConfig::default()
    };
    let config = with_keys([key("one", RSA_PUBLIC), key("two", RSA2_PUBLIC)]);
    let token = |pem: &str, header| {
        sign(
            Algorithm::Rs256,
            &EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
            &header,
            &json!({ "sub": "42" }),
        )
    };
    for (pem, kid, expected) in [
        (RSA, Some("one"), Ok(())),
        (RSA2, Some("two"), Ok(())),
        (RSA, Some("two"), FORGED),
        (RSA2, Some("one"), FORGED),
        (RSA, Some("three"), Ok(())),
        (RSA2, Some("three"), Ok(())),
        (RSA, None, Ok(())),
        (RSA2, None, Ok(())),
    ] {
        let header = match kid {
            Some(kid) => json!({ "alg": "RS256", "kid": kid }),
            None => json!({ "alg": "RS256" }),
        };
        assert_eq!(outcome(&config, &token(pem, header)).await, expected, "{kid:?}");
    }
}

#[tokio::test]
async fn reads_a_public_key_from_a_file() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/rsa.pkcs1.pub.pem");
    let key = KeyConfig {
        algorithm: Some(Algorithm::Rs512),
        public_key_file: Some(file),
        ..KeyConfig::default()
    };
    assert_eq!(
        outcome(&with_keys([key]), &signed(Algorithm::Rs512)).await,
        Ok(())
    );
}
