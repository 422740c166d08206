//! From the target to ordered steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lbagent_common::{
    BackendEntry, BackendId, HostEntry, HostKey, ReturnEntry, ReturnKey, Settings, VipEntry, VipKey,
};

use super::{Condition, IdCursor};
use crate::dataplane::{ActualState, Region, RuleKey, Step};

/// What the maps and the host are to hold.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) settings: Settings,
    pub(super) host_addresses: BTreeSet<IpAddr>,
    pub(super) vips: BTreeMap<VipKey, VipEntry>,
    /// Tables that are to be written; those that stay are not here.
    pub(super) tables: Vec<(Region, Vec<lbagent_common::Slot>)>,
    pub(super) backends: BTreeMap<BackendId, BackendEntry>,
    pub(super) returns: BTreeMap<ReturnKey, ReturnEntry>,
    pub(super) rules: BTreeMap<RuleKey, u32>,
    pub(super) hosts: BTreeMap<HostKey, HostEntry>,
    pub(super) conditions: Vec<Condition>,
    pub(super) cursor: IdCursor,
}

/// Whether a step makes room.
pub(super) fn is_deletion(step: &Step) -> bool {
    matches!(
        step,
        Step::DeleteBackend(_)
            | Step::DeleteVip(..)
            | Step::DeleteReturn(_)
            | Step::DeleteRule(_)
            | Step::DeleteHost(_)
            | Step::PutVip(..)
    )
}

/// The steps from the actual state to the target. What is named comes before what names it, and
/// goes after it. The target's tables become the steps': there may be a gigabyte of them.
pub(super) fn steps(actual: &ActualState, target: &mut Target) -> Vec<Step> {
    let mut steps = Vec::new();
    if actual.settings != target.settings {
        steps.push(Step::PutSettings(target.settings));
    }
    let added = target.host_addresses.difference(&actual.host_addresses);
    steps.extend(added.copied().map(Step::AddHostAddress));
    for (id, entry) in &target.backends {
        put_backend(actual, *id, entry, &mut steps);
    }
    let tables = std::mem::take(&mut target.tables).into_iter();
    steps.extend(tables.map(|(region, slots)| Step::PutTable(region, slots)));
    let returns = target
        .returns
        .iter()
        .filter(|(key, entry)| actual.returns.get(key) != Some(entry));
    steps.extend(returns.map(|(key, entry)| Step::PutReturn(*key, *entry)));
    let rules = target
        .rules
        .iter()
        .filter(|(key, value)| actual.rules.get(key) != Some(value));
    steps.extend(rules.map(|(key, value)| Step::PutRule(*key, *value)));
    put_hosts(actual, target, &mut steps);
    for (key, entry) in &target.vips {
        put_vip(actual, *key, entry, &mut steps);
    }
    let vips = actual
        .vips
        .iter()
        .filter(|(key, _)| !target.vips.contains_key(key));
    steps.extend(vips.map(|(key, entry)| Step::DeleteVip(*key, *entry)));
    let returns = actual
        .returns
        .keys()
        .filter(|key| !target.returns.contains_key(key));
    steps.extend(returns.copied().map(Step::DeleteReturn));
    let rules = actual
        .rules
        .keys()
        .filter(|key| !target.rules.contains_key(key));
    steps.extend(rules.copied().map(Step::DeleteRule));
    let backends = actual
        .backends
        .keys()
        .filter(|id| !target.backends.contains_key(id));
    steps.extend(backends.copied().map(Step::DeleteBackend));
    let removed = actual.host_addresses.difference(&target.host_addresses);
    steps.extend(removed.copied().map(Step::DeleteHostAddress));
    steps
}

fn put_backend(actual: &ActualState, id: BackendId, entry: &BackendEntry, steps: &mut Vec<Step>) {
    let former = actual.backends.get(&id);
    if former == Some(entry) {
        return;
    }
    steps.push(Step::PutBackend(id, *entry));
    let way = |entry: &BackendEntry| (entry.addr, entry.ifindex, entry.source);
    let address = IpAddr::from(entry.addr);
    // The first packet should find the neighbour resolved.
    if let Some(path) = actual.paths.get(&address)
        && former.map(way) != Some(way(entry))
    {
        steps.push(Step::Probe(address, *path));
    }
}

/// A name that is missing is the terminator's, so those that go make room first.
fn put_hosts(actual: &ActualState, target: &Target, steps: &mut Vec<Step>) {
    let gone = actual.hosts.keys();
    let gone = gone.filter(|key| !target.hosts.contains_key(key));
    steps.extend(gone.copied().map(Step::DeleteHost));
    let hosts = target.hosts.iter();
    let changed = hosts.filter(|(key, entry)| actual.hosts.get(key) != Some(entry));
    steps.extend(changed.map(|(key, entry)| Step::PutHost(*key, *entry)));
}

fn put_vip(actual: &ActualState, key: VipKey, entry: &VipEntry, steps: &mut Vec<Step>) {
    match actual.vips.get(&key) {
        Some(former) if former == entry => return,
        // A port with another id starts with counters of its own.
        Some(former) if former.vip_id != entry.vip_id => {
            steps.push(Step::DeleteVip(key, *former));
        }
        _ => {}
    }
    steps.push(Step::PutVip(key, *entry));
}
