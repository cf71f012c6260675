//! NATS, as Carillon uses it; the only crate that names `async-nats`.
//!
//! Read [`Bus`] first: requests, subscriptions and acknowledged stores. [`streams`] makes what the cluster keeps,
//! [`history`] reads events back, [`table`] is a bucket with compare-and-set, [`ingest`] and [`lease`] are what a
//! publisher's partition stands on. [`link`] is the connection over which comes what others send: to a bus, and to
//! an edge its deliveries.

mod connection;
pub mod durable;
pub mod history;
pub mod ingest;
mod inspect;
mod intake;
pub mod lease;
pub mod link;
mod store;
pub mod streams;
mod subscription;
pub mod table;

pub use connection::{Bus, ConnectError, LinkState, Message, PublishError, RequestError};
pub use history::{Bounds, HistoryError, Limit, Page, StoredMessage};
pub use inspect::InspectError;
pub use lease::Lease;
pub use link::{Deliveries, Delivery, Link};
pub use store::{Outgoing, StoreError, Stored};
pub use streams::{Layout, Streams};
pub use subscription::{Ending, Subscription};
pub use table::{Bucket, Change, Entry, Table, TableError, Watch};
