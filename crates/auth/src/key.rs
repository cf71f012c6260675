//! One key and the only algorithm it may be used with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};

use crate::algorithm::{Algorithm, Family};
use crate::compact::Compact;

/// RFC 7518 asks for 2048 bits at least; the RSA implementation takes 4096 at most.
const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
const ED25519_BYTES: usize = 32;

/// A verification key.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    material: DecodingKey,
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("expected a secret that is not empty")]
    EmptySecret,
    #[error("expected a shared secret, found a PEM key; use public_key")]
    PemAsSecret,
    #[error("expected an algorithm for a shared secret: HS256, HS384 or HS512")]
    NotForSecrets,
    #[error("expected an algorithm for a public key: RS256, RS384, RS512, ES256, ES384 or EdDSA")]
    NotForPublicKeys,
    #[error("expected a public key, found a private key")]
    PrivateKey,
    #[error("expected PEM with BEGIN PUBLIC KEY or BEGIN RSA PUBLIC KEY")]
    NotPem,
    #[error("the key does not fit its algorithm")]
    WrongKind,
    #[error("expected an RSA modulus of 2048 to 4096 bits")]
    ModulusSize,
}

impl Key {
    pub(crate) fn from_secret(
        id: Option<String>,
        algorithm: Algorithm,
        secret: &[u8],
    ) -> Result<Self, KeyError> {
        if algorithm.family() != Family::Hmac {
            return Err(KeyError::NotForSecrets);
        }
        if secret.is_empty() {
            return Err(KeyError::EmptySecret);
        }
        // A public key as a shared secret would let everyone sign.
        if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(KeyError::PemAsSecret);
        }
        Ok(Self {
            id,
            algorithm,
            material: DecodingKey::from_secret(secret),
        })
    }

    pub(crate) fn from_pem(id: Option<String>, algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(KeyError::PrivateKey);
        }
        if !pem.contains("-----BEGIN PUBLIC KEY-----") && !pem.contains("-----BEGIN RSA PUBLIC KEY-----") {
            return Err(KeyError::NotPem);
        }
        let wrong_kind = |_| KeyError::WrongKind;
        let material = match algorithm.family() {
            Family::Hmac => return Err(KeyError::NotForPublicKeys),
            Family::Rsa => {
                let key = DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(wrong_kind)?;
                let jwk = Jwk::from_decoding_key(&key, None).map_err(wrong_kind)?;
                let AlgorithmParameters::RSA(rsa) = jwk.algorithm else {
                    return Err(KeyError::WrongKind);
                };
                return Self::from_rsa(id, algorithm, &rsa.n, &rsa.e);
            }
            Family::P256 | Family::P384 => DecodingKey::from_ec_pem(pem.as_bytes()).map_err(wrong_kind)?,
            Family::Ed25519 => DecodingKey::from_ed_pem(pem.as_bytes()).map_err(wrong_kind)?,
        };
        Self {
            id,
            algorithm,
            material,
        }
        .checked()
    }

    /// Takes the base64url numbers of a JSON Web Key.
    pub(crate) fn from_rsa(
        id: Option<String>,
        algorithm: Algorithm,
        n: &str,
        e: &str,
    ) -> Result<Self, KeyError> {
        if algorithm.family() != Family::Rsa {
            return Err(KeyError::WrongKind);
        }
        let modulus = unsigned(n)?;
        let exponent = unsigned(e)?;
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !RSA_MODULUS_BITS.contains(&bits) {
            return Err(KeyError::ModulusSize);
        }
        if !odd(&modulus) || !odd(&exponent) || exponent == [1] || exponent.len() > 4 {
            return Err(KeyError::WrongKind);
        }
        let material = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
        Ok(Self {
            id,
            algorithm,
            material,
        })
    }

    /// Takes the base64url coordinates of a JSON Web Key.
    pub(crate) fn from_ec(
        id: Option<String>,
        algorithm: Algorithm,
        x: &str,
        y: &str,
    ) -> Result<Self, KeyError> {
        let material = DecodingKey::from_ec_components(x, y).map_err(|_| KeyError::WrongKind)?;
        Self {
            id,
            algorithm,
            material,
        }
        .checked()
    }

    /// Takes the base64url point of a JSON Web Key.
    pub(crate) fn from_ed25519(id: Option<String>, x: &str) -> Result<Self, KeyError> {
        let material = DecodingKey::from_ed_components(x).map_err(|_| KeyError::WrongKind)?;
        Self {
            id,
            algorithm: Algorithm::EdDsa,
            material,
        }
        .checked()
    }

    /// Tells whether this key signed the token, which must name this key's algorithm.
    pub(crate) fn verifies(&self, token: &Compact<'_>) -> bool {
        self.algorithm == token.algorithm && self.accepts(token.signature, token.message).unwrap_or(false)
    }

    /// Makes sure that the key lies on its curve, before a token is judged by it.
    fn checked(self) -> Result<Self, KeyError> {
        let bytes = self
            .material
            .try_get_as_bytes()
            .map_err(|_| KeyError::WrongKind)?;
        // The Ed25519 verifier slices the first 32 bytes and would panic on fewer.
        if self.algorithm.family() == Family::Ed25519 && bytes.len() != ED25519_BYTES {
            return Err(KeyError::WrongKind);
        }
        match self.accepts("", b"") {
            Ok(_) => Ok(self),
            Err(_) => Err(KeyError::WrongKind),
        }
    }

    fn accepts(&self, signature: &str, message: &[u8]) -> jsonwebtoken::errors::Result<bool> {
        jsonwebtoken::crypto::verify(signature, message, &self.material, self.algorithm.for_signing())
    }
}

/// Reads a big-endian number without leading zeros.
fn unsigned(text: &str) -> Result<Vec<u8>, KeyError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::WrongKind)?;
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = include_str!("../tests/keys/rsa.pub.pem");
    const RSA_PKCS1: &str = include_str!("../tests/keys/rsa.pkcs1.pub.pem");
    const RSA_PRIVATE: &str = include_str!("../tests/keys/rsa.pem");
    const RSA_1024: &str = include_str!("../tests/keys/rsa1024.pub.pem");
    const P256: &str = include_str!("../tests/keys/p256.pub.pem");
    const P384: &str = include_str!("../tests/keys/p384.pub.pem");
    const ED25519: &str = include_str!("../tests/keys/ed25519.pub.pem");

    fn pem(algorithm: Algorithm, pem: &str) -> Result<(), KeyError> {
        Key::from_pem(None, algorithm, pem).map(drop)
    }

    #[test]
    fn takes_each_kind_of_public_key() {
        use Algorithm::{EdDsa, Es256, Es384, Rs256, Rs384, Rs512};
        for (algorithm, text) in [
            (Rs256, RSA),
            (Rs384, RSA),
            (Rs512, RSA_PKCS1),
            (Es256, P256),
            (Es384, P384),
            (EdDsa, ED25519),
        ] {
            assert_eq!(pem(algorithm, text), Ok(()), "{algorithm:?}");
        }
    }

    #[test]
    fn refuses_a_key_that_does_not_fit() {
        use Algorithm::{EdDsa, Es256, Es384, Hs256, Rs256};
        for (algorithm, text, error) in [
            (Rs256, P256, KeyError::WrongKind),
            (Es256, RSA, KeyError::WrongKind),
            (Es256, P384, KeyError::WrongKind),
            (Es384, P256, KeyError::WrongKind),
            (EdDsa, P256, KeyError::WrongKind),
            (Hs256, RSA, KeyError::NotForPublicKeys),
            (Rs256, RSA_PRIVATE, KeyError::PrivateKey),
            (Rs256, RSA_1024, KeyError::ModulusSize),
            (Rs256, "hello", KeyError::NotPem),
            (
                Rs256,
                "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
                KeyError::WrongKind,
            ),
        ] {
            assert_eq!(pem(algorithm, text), Err(error), "{algorithm:?}");
        }
    }

    #[test]
    fn refuses_secrets_that_protect_nothing() {
        let secret = |algorithm, secret: &str| Key::from_secret(None, algorithm, secret.as_bytes()).map(drop);
        assert_eq!(secret(Algorithm::Hs256, ""), Err(KeyError::EmptySecret));
        assert_eq!(secret(Algorithm::Hs256, RSA), Err(KeyError::PemAsSecret));
        assert_eq!(secret(Algorithm::Rs256, "x"), Err(KeyError::NotForSecrets));
        assert_eq!(secret(Algorithm::Hs512, "x"), Ok(()));
    }

    #[test]
    fn refuses_numbers_that_are_no_key() {
        let n = URL_SAFE_NO_PAD.encode([0xff; 256]);
        let even = URL_SAFE_NO_PAD.encode([0xfe; 256]);
        let rsa = |n: &str, e: &str| Key::from_rsa(None, Algorithm::Rs256, n, e).map(drop);
        assert_eq!(rsa(&n, "AQAB"), Ok(()));
        assert_eq!(rsa("", "AQAB"), Err(KeyError::ModulusSize));
        assert_eq!(rsa("AA", "AQAB"), Err(KeyError::ModulusSize));
        assert_eq!(rsa(&even, "AQAB"), Err(KeyError::WrongKind));
        assert_eq!(rsa(&n, ""), Err(KeyError::WrongKind));
        assert_eq!(rsa(&n, "AQ"), Err(KeyError::WrongKind));
        assert_eq!(rsa(&n, "!"), Err(KeyError::WrongKind));
        assert!(Key::from_ed25519(None, "AAAA").is_err());
        assert!(Key::from_ec(None, Algorithm::Es256, "AAAA", "AAAA").is_err());
    }
}
