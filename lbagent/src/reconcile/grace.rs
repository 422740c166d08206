//! Which regions packets may still be reading.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::dataplane::{ActualState, Region};
use crate::plan::named_regions;

/// Regions that a VIP named not long ago.
#[derive(Debug, Default)]
pub(super) struct Grace {
    period: Duration,
    last_named: BTreeMap<Region, Instant>,
}

impl Grace {
    /// Regions are left alone for this long.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            last_named: BTreeMap::new(),
        }
    }

    /// Regions that the coming pass must not fill, beside those that are named in `actual`.
    pub(super) fn retired(&mut self, actual: &ActualState, now: Instant) -> BTreeSet<Region> {
        let period = self.period;
        self.last_named
            .retain(|_, named| now.duration_since(*named) < period);
        let named = named_regions(actual);
        self.last_named
            .keys()
            .filter(|region| !named.contains(region))
            .copied()
            .collect()
    }

    /// The pass that began with `actual` has ended: whatever was named then may just have been
    /// switched away from.
    pub(super) fn switched(&mut self, actual: &ActualState, now: Instant) {
        self.last_named.extend(
            named_regions(actual)
                .into_iter()
                .map(|region| (region, now)),
        );
    }
}
