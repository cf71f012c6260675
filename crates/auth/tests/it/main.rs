//! Tokens and keys from outside, through the public interface only.

// The helpers of tests stand outside of test functions, where the lint would look for production code.
#![allow(clippy::unwrap_used)]

mod algorithms;
mod authorizer;
mod bad_tokens;
mod issuer;
mod jwks;
mod settings;
mod times;
mod tokens;
mod users;
