//! What the router's parts share.

use std::sync::Arc;

use carillon_bus::{Bucket, Bus, Streams, Table as BucketTable};
use carillon_protocol::names::Namespace;

use crate::config::Settings;
use crate::leases::Leases;
use crate::refusal::Refusal;
use crate::view::View;

/// The shared parts of one router.
pub(crate) struct Router {
    pub(crate) settings: Settings,
    pub(crate) bus: Bus,
    pub(crate) streams: Streams,
    pub(crate) view: View,
    pub(crate) leases: Arc<Leases>,
    /// The bucket of the records.
    pub(crate) records: BucketTable,
    pub(crate) revoked: BucketTable,
}

impl Router {
    /// Puts the parts together.
    pub(crate) fn new(
        settings: Settings,
        bus: Bus,
        streams: Streams,
        view: View,
        leases: Arc<Leases>,
    ) -> Self {
        let (records, revoked) = (bus.table(Bucket::Sessions), bus.table(Bucket::Revoked));
        Self {
            settings,
            bus,
            streams,
            view,
            leases,
            records,
            revoked,
        }
    }

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
