//! What a terminator tells of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How a terminator is. Counters count since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// Snapshot in force.
    pub generation: Option<u64>,
    /// Connections of clients that are open.
    pub connections: u64,
    /// Of the terminator as a whole, by name in snake_case, as `handshake_failed`.
    pub counters: BTreeMap<String, u64>,
    /// Groups whose numbers have changed since the connection's last report, not all of them at once
    /// when they are many: what was told of the others holds.
    pub groups: Vec<GroupReport>,
}

/// A group's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupReport {
    /// Which group.
    pub uuid: Uuid,
    /// By name in snake_case, as `requests`.
    pub counters: BTreeMap<String, u64>,
    /// Its instances that have had traffic.
    pub instances: Vec<InstanceReport>,
}

/// An instance's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceReport {
    /// Which instance.
    pub uuid: Uuid,
    /// Requests (connections, for `tls` alone) in flight.
    pub in_flight: u64,
    /// Ended requests (connections).
    pub served: u64,
    /// Those that it answered wrongly, late or not at all.
    pub failed: u64,
    /// It gets nothing new for now, because too many failed.
    pub is_ejected: bool,
}
