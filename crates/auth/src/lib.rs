//! Who is asking: bytes and a clock in, an identity or a typed error out.
//!
//! Three questions are answered here, each by one type:
//!
//! - Which token did the client show? [`credentials::find`] looks at the handshake payload, the headers, the
//!   cookie and the query in a fixed order. The first one present counts.
//! - Is a token good, and whose is it? [`Verifier`] checks the signature with the keys of the
//!   configuration, then the claims, and returns an [`Identity`].
//! - May a backend use an HTTP API? [`Authorizer`] takes an API key or a token and returns a [`Principal`]
//!   with its scopes and namespaces.
//!
//! Two rules hold everywhere. The algorithm belongs to the key: a token names one, but only keys of that
//! algorithm are tried, so a token can never turn a public key into a shared secret. And an outage is not a
//! verdict: while a key set that is needed cannot be reached, the answer is [`VerifyError::Unavailable`],
//! never that the token is bad.
//!
//! Nothing here logs or prints a token, a secret or a key. [`Secret`] and [`credentials::Credential`] hide
//! their value in `Debug`, and no error carries what the client sent.

mod algorithm;
mod api_key;
mod authorizer;
mod claims;
mod clock;
mod compact;
mod config;
pub mod credentials;
mod identity;
mod jwks;
mod key;
mod keyring;
mod mint;
mod secret;
mod verifier;

pub use algorithm::Algorithm;
pub use api_key::Scope;
pub use authorizer::{AuthorizeError, Authorizer, Principal};
pub use claims::InvalidToken;
pub use clock::{Clock, SystemClock};
pub use config::{ApiKeyConfig, Config, ConfigError, KeyConfig, OneOrMany};
pub use identity::Identity;
pub use jwks::FetchError;
pub use mint::{MintError, TokenRequest, mint};
pub use secret::Secret;
pub use verifier::{Verifier, VerifyError};
