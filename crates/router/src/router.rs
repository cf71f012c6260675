//! What the router's parts share.

use std::sync::Arc;

use carillon_bus::{Bus, Streams, Table as BucketTable};
use carillon_protocol::names::Namespace;
use carillon_service::settings::Session;

use crate::config::Config;
use crate::leases::Leases;
use crate::refusal::Refusal;
use crate::view::View;

/// The shared parts of one router.
pub(crate) struct Router {
    pub(crate) config: Config,
    pub(crate) session: Session,
    pub(crate) bus: Bus,
    pub(crate) streams: Streams,
    pub(crate) view: View,
    pub(crate) leases: Arc<Leases>,
    /// The bucket of the records.
    pub(crate) records: BucketTable,
    pub(crate) revoked: BucketTable,
}

impl Router {
    /// Refuses a namespace that the configuration does not have.
    pub(crate) fn check(&self, namespace: &Namespace) -> Result<(), Refusal> {
        if self.streams.of(namespace).is_some() {
            return Ok(());
        }
        Err(Refusal::wrong(
            "unknown_namespace",
            format!("there is no namespace {namespace}"),
        ))
    }
}
