//! What a terminator tells of itself.

use std::collections::BTreeMap;
use std::time::Duration;

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
    /// From the head of each request to that of its answer.
    #[serde(default)]
    pub requests_took: Durations,
    /// Groups whose numbers have changed since the connection's last report, not all of them at once
    /// when they are many: what was told of the others holds.
    pub groups: Vec<GroupReport>,
    /// Groups told of before that the snapshot in force has no longer: nothing more comes of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Uuid>,
}

/// How long things took, by powers of ten and parts of them: what collectors call a histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Durations {
    /// How many took as long as each of [`DURATION_BOUNDS_US`] at most, and longer than the one before;
    /// the last number is of those that took longer than all. Empty for none.
    pub counts: Vec<u64>,
    /// All together, in microseconds.
    pub sum_us: u64,
}

/// Upper bounds of the parts of [`Durations`], in microseconds.
pub const DURATION_BOUNDS_US: [u64; 13] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// The part of [`Durations`] that so many microseconds belong to.
pub fn duration_part(micros: u64) -> usize {
    DURATION_BOUNDS_US.partition_point(|bound| *bound < micros)
}

impl Durations {
    /// One more took so long.
    pub fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts.resize(DURATION_BOUNDS_US.len() + 1, 0);
        self.counts[duration_part(micros)] += 1;
        self.sum_us = self.sum_us.saturating_add(micros);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_the_last_of_its_part() {
        let mut durations = Durations::default();
        for micros in [0, 250, 251, 30_000_000, 30_000_001] {
            durations.add(Duration::from_micros(micros));
        }
        let ends = [0, 1, 12, 13].map(|part| durations.counts[part]);
        assert_eq!(ends, [2, 1, 1, 1]);
        assert_eq!(durations.counts.iter().sum::<u64>(), 5);
        assert_eq!(durations.sum_us, 60_000_502);
    }
}
