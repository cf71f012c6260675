//! `rt.offline`: the events that were published to a user who had no connection.
//!
//! One replica at a time looks at every event of a user's room. An event that a session hears, or will hear when
//! its client returns, is left alone; any other is kept at once. When a session ends and its user has not returned
//! within the time away, [`keep_missed`] keeps what came since it was gone and no other session heard. Each way may
//! repeat what the other did: a copy has the same message id both times.

mod follow;
mod keep;

pub(crate) use follow::run;
pub(crate) use keep::keep_missed;
