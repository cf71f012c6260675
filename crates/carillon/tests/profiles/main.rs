//! The systems that the profiles replace: their clients' own code against the program with its profile, over
//! two edges, with the backend played by the test.

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
