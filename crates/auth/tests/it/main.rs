//! Tokens and keys from outside, through the public interface only.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code too")]

mod algorithms;
mod authorizer;
mod bad_tokens;
mod issuer;
mod jwks;
mod settings;
mod times;
mod tokens;
mod users;
