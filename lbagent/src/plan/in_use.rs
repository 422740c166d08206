//! What is in use of everything that a plan hands out: ids, regions, room in maps.

use std::collections::BTreeMap;

use lbagent_common::{BackendId, VipEntry};

use super::regions::{NamedRegions, previous_region, table_region};
use crate::dataplane::{ActualState, Region, RuleKey, Step};

/// Things with the number of users that each has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uses<T>(BTreeMap<T, u32>);

impl<T> Default for Uses<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Copy> Uses<T> {
    /// Returns whether it had no user before.
    pub(super) fn add(&mut self, thing: T) -> bool {
        let uses = self.0.entry(thing).or_default();
        *uses += 1;
        *uses == 1
    }

    /// Returns whether it has no user any more.
    pub(super) fn remove(&mut self, thing: T) -> bool {
        let Some(uses) = self.0.get_mut(&thing) else {
            return false;
        };
        *uses -= 1;
        let is_last = *uses == 0;
        if is_last {
            self.0.remove(&thing);
        }
        is_last
    }

    pub(super) fn contains(&self, thing: &T) -> bool {
        self.0.contains_key(thing)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn last(&self) -> Option<T> {
        self.0.last_key_value().map(|(thing, _)| *thing)
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = T> {
        self.0.keys().copied()
    }
}

impl<T: Ord + Copy> FromIterator<T> for Uses<T> {
    fn from_iter<I: IntoIterator<Item = T>>(things: I) -> Self {
        let mut uses = Self::default();
        for thing in things {
            uses.add(thing);
        }
        uses
    }
}

/// What everything that there is uses, whether a plan is about it or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    pub(super) vip_ids: Uses<u32>,
    pub(super) backend_ids: Uses<BackendId>,
    pub(super) policy_ids: Uses<u32>,
    pub(super) regions: NamedRegions,
    pub(super) vips: usize,
    pub(super) returns: usize,
    /// Rules for sources.
    pub(super) sources: usize,
    pub(super) hosts: usize,
    /// VIP entries whose SYNs may be answered with cookies.
    cookies: usize,
}

impl InUse {
    /// What a whole state uses.
    pub fn of(actual: &ActualState) -> Self {
        let mut in_use = Self::default();
        actual.vips.values().for_each(|entry| in_use.add_vip(entry));
        let ids = actual.backends.keys().copied();
        in_use.backend_ids = ids.collect();
        in_use.returns = actual.returns.len();
        in_use.hosts = actual.hosts.len();
        actual.rules.keys().for_each(|key| in_use.add_rule(key));
        in_use
    }

    /// Whether a VIP entry names the region.
    pub fn is_named(&self, region: &Region) -> bool {
        self.regions.contains(region)
    }

    /// Whether some port's SYNs may be answered with cookies.
    pub const fn has_cookies(&self) -> bool {
        self.cookies > 0
    }

    /// A VIP entry is written.
    pub fn add_vip(&mut self, entry: &VipEntry) {
        self.vips += 1;
        self.cookies += usize::from(has_cookies(entry));
        self.vip_ids.add(entry.vip_id);
        self.policy_ids.add(entry.policy_id);
        regions(entry).for_each(|region| self.regions.add(region));
    }

    /// A VIP entry is removed.
    pub fn remove_vip(&mut self, entry: &VipEntry) {
        self.vips -= 1;
        self.cookies -= usize::from(has_cookies(entry));
        self.vip_ids.remove(entry.vip_id);
        self.policy_ids.remove(entry.policy_id);
        regions(entry).for_each(|region| self.regions.remove(region));
    }

    /// A backend is written that was not there.
    pub fn add_backend(&mut self, id: BackendId) {
        self.backend_ids.add(id);
    }

    /// A backend is cleared.
    pub fn remove_backend(&mut self, id: BackendId) {
        self.backend_ids.remove(id);
    }

    /// A reply source is written that was not there.
    pub fn add_return(&mut self) {
        self.returns += 1;
    }

    /// A reply source is removed.
    pub fn remove_return(&mut self) {
        self.returns -= 1;
    }

    /// A host name is written that was not there.
    pub fn add_host(&mut self) {
        self.hosts += 1;
    }

    /// A host name is removed.
    pub fn remove_host(&mut self) {
        self.hosts -= 1;
    }

    /// A rule is written that was not there.
    pub fn add_rule(&mut self, key: &RuleKey) {
        self.policy_ids.add(key.policy_id());
        self.sources += usize::from(matches!(key, RuleKey::Source(_)));
    }

    /// A rule is removed.
    pub fn remove_rule(&mut self, key: &RuleKey) {
        self.policy_ids.remove(key.policy_id());
        self.sources -= usize::from(matches!(key, RuleKey::Source(_)));
    }
}

/// Whether a step makes a port's SYNs be answered with cookies.
pub fn gives_cookies(step: &Step) -> bool {
    matches!(step, Step::PutVip(_, entry) if has_cookies(entry))
}

/// Whether the port's SYNs may be answered with cookies.
const fn has_cookies(entry: &VipEntry) -> bool {
    entry.flags & (VipEntry::FLAG_REDIRECT | VipEntry::FLAG_SHIELD) != 0
}

/// The regions that an entry names.
fn regions(entry: &VipEntry) -> impl Iterator<Item = Region> {
    let regions = [table_region(entry), previous_region(entry)];
    regions.into_iter().flatten()
}
