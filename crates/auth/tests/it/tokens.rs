//! Keys, tokens and a clock that stands still.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_auth::{Algorithm, Clock, Config, Identity, KeyConfig, Verifier, VerifyError};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const SECRET: &str = "a secret of the tests";

pub(crate) const RSA: &str = include_str!("../keys/rsa.pem");
pub(crate) const RSA_PUBLIC: &str = include_str!("../keys/rsa.pub.pem");
pub(crate) const RSA_PUBLIC_PKCS1: &str = include_str!("../keys/rsa.pkcs1.pub.pem");
pub(crate) const RSA2: &str = include_str!("../keys/rsa2.pem");
pub(crate) const RSA2_PUBLIC: &str = include_str!("../keys/rsa2.pub.pem");
pub(crate) const P256: &str = include_str!("../keys/p256.pem");
pub(crate) const P256_PUBLIC: &str = include_str!("../keys/p256.pub.pem");
pub(crate) const P384: &str = include_str!("../keys/p384.pem");
pub(crate) const P384_PUBLIC: &str = include_str!("../keys/p384.pub.pem");
pub(crate) const ED25519: &str = include_str!("../keys/ed25519.pem");
pub(crate) const ED25519_PUBLIC: &str = include_str!("../keys/ed25519.pub.pem");

/// A clock that moves when told to.
#[derive(Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_seconds(&self) -> u64 {
        NOW + self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// The key that signs with an algorithm: a PEM, or the secret.
pub(crate) fn signing_key(algorithm: Algorithm) -> EncodingKey {
    use Algorithm::{EdDsa, Es256, Es384, Hs256, Hs384, Hs512, Rs256, Rs384, Rs512};
    match algorithm {
        Hs256 | Hs384 | Hs512 => EncodingKey::from_secret(SECRET.as_bytes()),
        Rs256 | Rs384 | Rs512 => EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(),
        Es256 => EncodingKey::from_ec_pem(P256.as_bytes()).unwrap(),
        Es384 => EncodingKey::from_ec_pem(P384.as_bytes()).unwrap(),
        EdDsa => EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap(),
    }
}

/// The configuration of the matching verification key.
pub(crate) fn key_config(algorithm: Algorithm) -> KeyConfig {
    use Algorithm::{EdDsa, Es256, Es384, Hs256, Hs384, Hs512, Rs256, Rs384, Rs512};
    let config = KeyConfig {
        algorithm: Some(algorithm),
        ..KeyConfig::default()
    };
    let public_key = match algorithm {
        Hs256 | Hs384 | Hs512 => {
            return KeyConfig {
                secret: Some(SECRET.into()),
                ..config
            };
        }
        Rs256 | Rs384 | Rs512 => RSA_PUBLIC,
        Es256 => P256_PUBLIC,
        Es384 => P384_PUBLIC,
        EdDsa => ED25519_PUBLIC,
    };
    KeyConfig {
        public_key: Some(public_key.to_owned()),
        ..config
    }
}

pub(crate) fn with_secret() -> Config {
    Config {
        secret: Some(SECRET.into()),
        ..Config::default()
    }
}

pub(crate) fn with_keys(keys: impl IntoIterator<Item = KeyConfig>) -> Config {
    Config {
        keys: keys.into_iter().collect(),
        ..Config::default()
    }
}

pub(crate) fn verifier(config: &Config) -> Verifier {
    Verifier::with_clock(config, Arc::new(TestClock::default())).unwrap()
}

/// A token of the user 42 with this algorithm.
pub(crate) fn signed(algorithm: Algorithm) -> String {
    sign(
        algorithm,
        &signing_key(algorithm),
        &json!({ "alg": algorithm.name() }),
        &json!({ "sub": "42" }),
    )
}

/// An HS256 token with these claims.
pub(crate) fn with_claims(claims: &Value) -> String {
    sign(
        Algorithm::Hs256,
        &signing_key(Algorithm::Hs256),
        &json!({ "alg": "HS256" }),
        claims,
    )
}

/// A token with any header and any payload, right or wrong.
pub(crate) fn sign(algorithm: Algorithm, key: &EncodingKey, header: &Value, claims: &Value) -> String {
    sign_text(algorithm, key, &header.to_string(), &claims.to_string())
}

pub(crate) fn sign_text(algorithm: Algorithm, key: &EncodingKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let algorithm = algorithm.name().parse().unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

pub(crate) fn encode(part: &str) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

pub(crate) async fn verify(config: &Config, token: &str) -> Result<Identity, VerifyError> {
    verifier(config).verify(token).await
}

/// Fails the test if a future takes longer than any machine needs.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("within 30 s")
}
