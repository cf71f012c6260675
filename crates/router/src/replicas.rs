//! Which of the living routers does a piece of work: the one with the highest rendezvous hash.
//!
//! This only spreads the work. Whatever two replicas do at once is guarded by compare-and-set or by a message id.

use std::fmt;
use std::sync::Arc;

/// One start of one router process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RouterId(Arc<str>);

impl RouterId {
    /// Makes a new id.
    pub(crate) fn random() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)).into())
    }

    /// Reads the key of a router's lease in the bucket EDGES.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        key.strip_prefix("router.").map(|id| Self(id.into()))
    }

    /// Returns the key of the router's lease in the bucket EDGES.
    pub(crate) fn key(&self) -> String {
        format!("router.{}", self.0)
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the router that a piece of work falls to.
pub(crate) fn owner<'a>(routers: &'a [RouterId], work: &str) -> Option<&'a RouterId> {
    routers
        .iter()
        .max_by_key(|router| (weight(&router.0, work), *router))
}

/// FNV-1a over both names, finished so that near names land far apart.
fn weight(router: &str, work: &str) -> u64 {
    let bytes = router.bytes().chain(std::iter::once(0)).chain(work.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_work_of_a_leaving_router_moves() {
        let routers: Vec<RouterId> = ["a", "b", "c"].map(|id| RouterId(id.into())).into();
        let mut shares = [0; 3];
        for work in 0..3000 {
            let work = format!("room {work}");
            let owned = owner(&routers, &work).unwrap();
            shares[routers.iter().position(|router| router == owned).unwrap()] += 1;
            if *owned != routers[2] {
                assert_eq!(owner(&routers[..2], &work).unwrap(), owned);
            }
        }
        assert!(
            shares.iter().all(|share| (800..1200).contains(share)),
            "{shares:?}"
        );
        assert_eq!(owner(&[], "x"), None);
    }
}
