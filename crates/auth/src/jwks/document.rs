//! Reading a JSON Web Key Set: what is usable is taken, the rest is passed over.

use serde::Deserialize;
use serde_json::Value;

use crate::algorithm::{Algorithm, Family};
use crate::key::Key;

/// Tokens without a key id are tried with every key, so their number is bounded.
const MAX_KEYS: usize = 100;

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    alg: Option<String>,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Returns the keys that may verify tokens, `None` if this is not a key set.
pub(super) fn keys(json: &[u8], only: Option<Algorithm>) -> Option<Vec<Key>> {
    let document: Document = serde_json::from_slice(json).ok()?;
    let keys = document
        .keys
        .into_iter()
        .filter_map(|jwk| serde_json::from_value::<Jwk>(jwk).ok()?.key(only));
    Some(keys.take(MAX_KEYS).collect())
}

impl Jwk {
    /// Returns the key if it is one for verifying tokens; symmetric keys have no place in a public set.
    fn key(self, only: Option<Algorithm>) -> Option<Key> {
        if self.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        if self
            .key_ops
            .is_some_and(|operations| !operations.iter().any(|operation| operation == "verify"))
        {
            return None;
        }
        let family = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Family::Rsa,
            ("EC", Some("P-256")) => Family::P256,
            ("EC", Some("P-384")) => Family::P384,
            ("OKP", Some("Ed25519")) => Family::Ed25519,
            _ => return None,
        };
        let algorithm = match self.alg {
            Some(name) => Algorithm::from_name(&name)?,
            None => only.unwrap_or(default_algorithm(family)),
        };
        if algorithm.family() != family || only.is_some_and(|only| only != algorithm) {
            return None;
        }
        let key = match family {
            Family::Hmac => return None,
            Family::Rsa => Key::from_rsa(self.kid, algorithm, &self.n?, &self.e?),
            Family::P256 | Family::P384 => Key::from_ec(self.kid, algorithm, &self.x?, &self.y?),
            Family::Ed25519 => Key::from_ed25519(self.kid, &self.x?),
        };
        key.ok()
    }
}

/// The algorithm of a key that names none: for RSA the one that every issuer supports.
fn default_algorithm(family: Family) -> Algorithm {
    match family {
        Family::Hmac => Algorithm::Hs256,
        Family::Rsa => Algorithm::Rs256,
        Family::P256 => Algorithm::Es256,
        Family::P384 => Algorithm::Es384,
        Family::Ed25519 => Algorithm::EdDsa,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    fn algorithms(jwk: Value, only: Option<Algorithm>) -> Vec<Algorithm> {
        let json = json!({ "keys": [jwk] }).to_string();
        keys(json.as_bytes(), only)
            .unwrap()
            .iter()
            .map(|key| key.algorithm)
            .collect()
    }

    fn rsa(extra: Value) -> Value {
        let mut jwk = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "AQAB" });
        jwk.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        jwk
    }

    #[test]
    fn the_algorithm_comes_from_the_key() {
        assert_eq!(algorithms(rsa(json!({})), None), [Algorithm::Rs256]);
        assert_eq!(
            algorithms(rsa(json!({ "alg": "RS512" })), None),
            [Algorithm::Rs512]
        );
        assert_eq!(
            algorithms(rsa(json!({})), Some(Algorithm::Rs384)),
            [Algorithm::Rs384]
        );
    }

    #[test]
    fn passes_over_what_is_not_for_verifying() {
        for jwk in [
            rsa(json!({ "use": "enc" })),
            rsa(json!({ "key_ops": ["encrypt"] })),
            rsa(json!({ "alg": "PS256" })),
            rsa(json!({ "alg": "RSA-OAEP" })),
            rsa(json!({ "alg": "ES256" })),
            rsa(json!({ "alg": "HS256" })),
            rsa(json!({ "alg": 7 })),
            rsa(json!({ "n": "AAAA" })),
            json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }),
            json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }),
            json!({ "kty": "EC", "crv": "P-256", "x": "AA" }),
            json!({ "kty": "OKP", "crv": "X25519", "x": "AA" }),
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "AA" }),
            json!({ "kty": "AKP" }),
            json!("key"),
            json!(null),
        ] {
            assert_eq!(algorithms(jwk.clone(), None), [], "{jwk}");
        }
        assert_eq!(
            algorithms(rsa(json!({ "alg": "RS256" })), Some(Algorithm::Rs512)),
            []
        );
        assert_eq!(
            algorithms(rsa(json!({ "use": "sig", "key_ops": ["verify"] })), None),
            [Algorithm::Rs256]
        );
    }

    #[test]
    fn tells_a_key_set_from_anything_else() {
        for text in ["", "<html>", "[]", "{}", r#"{"keys":{}}"#] {
            assert!(keys(text.as_bytes(), None).is_none(), "{text}");
        }
        assert!(keys(br#"{"keys":[]}"#, None).unwrap().is_empty());
    }
}
