//! What Carillon's processes and clients say to each other: plain data, no I/O.
//!
//! Read [`names`] and [`subject`] first, then [`event`] and [`session`].
//! What clients speak stands in [`websocket`], [`engineio`], [`socketio`] and [`clientjson`].

pub mod before;
pub mod binary;
pub mod clientjson;
pub mod doubt;
pub mod engineio;
pub mod event;
pub mod headers;
pub mod ids;
pub mod message;
pub mod names;
pub mod offset;
pub mod pattern;
pub mod rawjson;
pub mod session;
pub mod socketio;
pub mod subject;
pub mod token;
pub mod websocket;
