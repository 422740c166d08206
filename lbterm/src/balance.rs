//! Which instance gets the next request or connection: the one with the fewest in flight for its
//! weight, by chance among equals. One that fails again and again gets nothing for a while, unless
//! all do.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lbagent_api::terminator::InstanceState;
use uuid::Uuid;

use crate::metrics::GroupCounter;
use crate::route::{Group, Instance};

/// Failures one after the other after which an instance gets nothing for a while.
const FAILURES_TO_EJECT: u32 = 5;

/// For how long at first, doubled with each further failure up to the longest.
const EJECT_FIRST: Duration = Duration::from_secs(2);
const EJECT_LONGEST: Duration = Duration::from_secs(60);

/// What an instance has to do, and how it does.
#[derive(Debug)]
pub struct Load {
    in_flight: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    /// One after the other, without a success between them.
    failures_in_a_row: AtomicU32,
    /// Milliseconds after `began`; 0 for never.
    ejected_until: AtomicU64,
    began: Instant,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            in_flight: AtomicU64::new(0),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            failures_in_a_row: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            began: Instant::now(),
        }
    }
}

impl Load {
    /// Requests or connections in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Those that ended well.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Those that did not.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether too many failed lately.
    pub fn is_ejected(&self, now: Instant) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until > 0 && self.millis_at(now) < until
    }

    fn millis_at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes a place below the limit.
    fn take(&self, hard_limit: u64) -> bool {
        let one_more = |in_flight| (in_flight < hard_limit).then_some(in_flight + 1);
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    fn note_failure(&self, now: Instant) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let in_a_row = 1 + self.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
        if let Some(further) = in_a_row.checked_sub(FAILURES_TO_EJECT) {
            let time = EJECT_FIRST * 2_u32.pow(further.min(8));
            let until = self.millis_at(now + time.min(EJECT_LONGEST));
            self.ejected_until.store(until, Ordering::Relaxed);
        }
    }

    fn note_success(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.forget_failures();
    }

    fn forget_failures(&self) {
        // A write that changes nothing still takes the cache line from other workers.
        if self.failures_in_a_row.load(Ordering::Relaxed) > 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
            self.ejected_until.store(0, Ordering::Relaxed);
        }
    }
}

/// Why no instance was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// None may take anything: there is none, or all drain, are unhealthy or were tried already.
    NoInstance,
    /// Each that may has as many in flight as the hard limit.
    Busy,
}

/// A request or connection in flight at an instance: counted until it is dropped. It counts as
/// neither served nor failed unless it says so.
#[derive(Debug)]
pub struct Lease {
    group: Arc<Group>,
    index: usize,
}

impl Lease {
    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.group.instances[self.index]
    }

    /// The instance can be reached: earlier failures no longer count.
    pub fn reached(&self) {
        self.instance().load.forget_failures();
    }

    /// The group of the instance.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// The instance answered as it should, to the end.
    pub fn succeeded(&self) {
        self.instance().load.note_success();
    }

    /// The instance could not be reached, or answered wrongly or late.
    pub fn failed(&self, now: Instant) {
        self.instance().load.note_failure(now);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let load = &self.instance().load;
        load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Selects an instance of the group that is not among those `tried` already, and counts one more in
/// flight there.
pub fn select(group: &Arc<Group>, tried: &[Uuid], now: Instant) -> Result<Lease, Unavailable> {
    loop {
        let index = choose(group, tried, now)?;
        let instance = &group.instances[index];
        // Another worker may have been faster; then the choice is made anew.
        if instance.load.take(group.hard_limit) {
            if instance.load.in_flight() > group.soft_limit {
                group.counters.count(GroupCounter::OverSoftLimit);
            }
            let group = Arc::clone(group);
            return Ok(Lease { group, index });
        }
    }
}

fn choose(group: &Group, tried: &[Uuid], now: Instant) -> Result<usize, Unavailable> {
    let may = |instance: &Instance| {
        instance.state == InstanceState::Active
            && instance.weight > 0
            && !tried.contains(&instance.uuid)
    };
    let mut best = Best::default();
    let mut ejected = Best::default();
    let mut is_busy = false;
    for (index, instance) in group.instances.iter().enumerate() {
        if !may(instance) {
            continue;
        }
        let in_flight = instance.load.in_flight();
        if in_flight >= group.hard_limit {
            is_busy = true;
        } else if instance.load.is_ejected(now) {
            ejected.consider(index, in_flight, instance.weight);
        } else {
            best.consider(index, in_flight, instance.weight);
        }
    }
    match best.found.or(ejected.found) {
        Some(candidate) => Ok(candidate.index),
        None if is_busy => Err(Unavailable::Busy),
        None => Err(Unavailable::NoInstance),
    }
}

struct Candidate {
    index: usize,
    in_flight: u64,
    weight: u32,
}

/// The least loaded so far.
#[derive(Default)]
struct Best {
    found: Option<Candidate>,
    /// Sum of the weights of all that are as little loaded.
    weight_of_equals: u64,
}

impl Best {
    fn consider(&mut self, index: usize, in_flight: u64, weight: u32) {
        let order = self
            .found
            .as_ref()
            .map_or(std::cmp::Ordering::Less, |best| {
                let load = u128::from(in_flight) * u128::from(best.weight);
                load.cmp(&(u128::from(best.in_flight) * u128::from(weight)))
            });
        let weight_of_one = u64::from(weight);
        let is_taken = match order {
            std::cmp::Ordering::Less => {
                self.weight_of_equals = weight_of_one;
                true
            }
            std::cmp::Ordering::Equal => {
                // Each of the equals ends up selected in proportion to its weight.
                self.weight_of_equals += weight_of_one;
                fastrand::u64(..self.weight_of_equals) < weight_of_one
            }
            std::cmp::Ordering::Greater => false,
        };
        if is_taken {
            self.found = Some(Candidate {
                index,
                in_flight,
                weight,
            });
        }
    }
}
