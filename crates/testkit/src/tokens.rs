//! Tokens for tests: whatever header, claims and secret, valid or not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// The secret of `carillon dev`.
pub const DEV_SECRET: &str = "dev-secret";

/// A token for the user `id`, signed with [`DEV_SECRET`], that does not expire.
pub fn dev(id: &str) -> String {
    hs256(DEV_SECRET, &json!({ "sub": id }))
}

/// An HS256 token with these claims.
pub fn hs256(secret: &str, claims: &Value) -> String {
    signed(secret, &json!({ "alg": "HS256", "typ": "JWT" }), claims)
}

/// A token with this header and an HMAC-SHA-256 signature, whatever the header says.
pub fn signed(secret: &str, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .unwrap_or_else(|e| panic!("hmac takes keys of any length: {e}"));
    mac.update(message.as_bytes());
    format!(
        "{message}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}

/// Seconds since 1970, for `exp`, `nbf` and `iat`.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_another_implementation_does() {
        // Made with Python's hmac, hashlib and base64.
        let expected = concat!(
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
            "eyJzdWIiOiIxMjM0NTY3ODkwIn0.",
            "Rq8IxqeX7eA6GgYxlcHdPFVRNFFZc5rEI3MQTZZbK3I"
        );
        assert_eq!(hs256("secret", &json!({ "sub": "1234567890" })), expected);
    }
}
