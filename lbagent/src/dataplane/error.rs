//! What reading and writing the data plane may fail with.

/// Why a step or a read failed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A map took no more entries.
    #[error("map {map} is full ({capacity} entries); raise its capacity in the configuration")]
    MapFull {
        /// Map name.
        map: &'static str,
        /// Its capacity.
        capacity: u32,
    },
    /// A map operation failed.
    #[error("map {map}: {operation} failed")]
    Map {
        /// Map name.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
    /// The kernel takes no more neighbours.
    #[error(
        "the kernel's table of neighbours is full: raise net.ipv4.neigh.default.gc_thresh3 and \
         net.ipv6.neigh.default.gc_thresh3 above the number of instances on the gateway's links"
    )]
    NeighboursFull,
    /// A change of the host's network configuration failed.
    #[error("host network: {operation} {object} failed")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
}
