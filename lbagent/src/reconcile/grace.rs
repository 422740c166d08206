//! Which regions packets may still be reading.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lbagent_common::VipEntry;

use crate::dataplane::{ActualState, Region, Step};
use crate::plan::{InUse, Plan, previous_region, table_region};

/// Regions that a VIP was switched away from not long ago.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Grace {
    period: Duration,
    left: BTreeMap<Region, Instant>,
}

impl Grace {
    /// Regions are left alone for this long.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            left: BTreeMap::new(),
        }
    }

    /// Regions that the coming pass must not fill, beside those that VIPs name.
    pub(super) fn retired(&mut self, in_use: &InUse, now: Instant) -> BTreeSet<Region> {
        let period = self.period;
        self.left
            .retain(|_, left| now.duration_since(*left) < period);
        let regions = self.left.keys().copied();
        regions.filter(|region| !in_use.is_named(region)).collect()
    }

    /// A plan that began with `actual` has been applied: whatever the VIPs that it is about named
    /// then may just have been switched away from.
    pub(super) fn switched(&mut self, actual: &ActualState, plan: &Plan, now: Instant) {
        let switched = plan.steps.iter().filter_map(|step| match step {
            Step::PutVip(key, _) | Step::DeleteVip(key, _) => actual.vips.get(key),
            _ => None,
        });
        let regions = |entry: &VipEntry| [table_region(entry), previous_region(entry)];
        let left = switched.flat_map(regions).flatten();
        self.left.extend(left.map(|region| (region, now)));
    }
}
