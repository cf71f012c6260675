//! The systems that the profiles replace: their clients' own code against the program with its profile, over
//! two edges, with the backend played by the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backend;
mod stage;

mod expedientes;
mod gamilit;
mod guide;
mod hostile;
mod migrating;
mod nexus;
mod sensores;

mod examples;
mod protocol_docs;
mod published_rules;
