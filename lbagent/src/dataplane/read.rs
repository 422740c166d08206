//! What the agent wrote, read back from the maps.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lbagent_common::{AnswerBudget, ConnEntry, Settings, Slot, VipEntry};

use super::running::Running;
use super::typed_maps::Maps;
use super::{ActualState, DataplaneError, Path, Region, RuleKey, StoredFlows};

/// What the agent wrote into the maps; tables are read when they are asked for.
pub(super) fn read_maps(maps: &Maps) -> Result<ActualState, DataplaneError> {
    Ok(ActualState {
        settings: settings(maps)?,
        slots: Some(maps.slots.live()),
        vips: maps.vips.entries()?.into_iter().collect(),
        backends: maps.backends.used().collect(),
        returns: maps.returns.entries()?.into_iter().collect(),
        rules: rules(maps)?,
        hosts: maps.hosts.entries()?.into_iter().collect(),
        ..ActualState::default()
    })
}

/// The settings that a plan asks for.
pub(super) fn settings(maps: &Maps) -> Result<Settings, DataplaneError> {
    Ok(Running::default().within(&maps.settings.get(0)?))
}

/// What [`super::Dataplane::stored_flows`] tells.
pub(super) fn stored_flows(
    maps: &Maps,
    vips: &[u32],
    idle_ticks: u32,
) -> Result<StoredFlows, DataplaneError> {
    let now = tick();
    let mut stored = StoredFlows::default();
    for id in vips {
        let refused = maps.refusals.get(*id)?;
        if refused != 0 && now.saturating_sub(refused) <= idle_ticks {
            stored.refused.insert(*id);
        }
    }
    if stored.refused.len() == vips.len() {
        return Ok(stored);
    }
    let is_recent = |entry: &ConnEntry| now.saturating_sub(entry.tick()) <= idle_ticks;
    for entry in maps.conns.entries().filter(is_recent) {
        let flows = stored.flows.entry(entry.backend).or_default();
        flows.push((entry.tag() >> 32) as u32);
    }
    Ok(stored)
}

/// The tables in these regions.
pub(super) fn read_tables(
    maps: &Maps,
    regions: impl Iterator<Item = Region>,
) -> Result<BTreeMap<Region, Vec<Slot>>, DataplaneError> {
    let mut tables = BTreeMap::new();
    // Only damage names slots that are not there. The plan does without such a table and writes a
    // new one; an error here would keep it from ever doing so.
    for region in regions.filter(|region| maps.slots.holds(*region)) {
        if let Entry::Vacant(vacant) = tables.entry(region) {
            vacant.insert(maps.slots.read(region)?);
        }
    }
    Ok(tables)
}

/// The paths to those of the addresses that have one.
pub(super) fn known_paths(
    paths: &BTreeMap<IpAddr, Path>,
    addresses: &BTreeSet<IpAddr>,
) -> BTreeMap<IpAddr, Path> {
    let known = |ip: &IpAddr| Some((*ip, *paths.get(ip)?));
    addresses.iter().filter_map(known).collect()
}

/// The rules of all policies.
pub(super) fn rules(maps: &Maps) -> Result<BTreeMap<RuleKey, u32>, DataplaneError> {
    let sources = maps.sources.entries()?.into_iter();
    let servers = maps.quic_servers.entries()?.into_iter();
    Ok(sources
        .map(|(key, entry)| (RuleKey::Source(key), entry.verdict))
        .chain(servers.map(|(key, id)| (RuleKey::QuicServer(key), id)))
        .collect())
}

/// VIPs, by index, whose SYNs some CPU answers now or did in the last tick because they are many.
pub(super) fn flooded(maps: &Maps) -> Result<Vec<u8>, DataplaneError> {
    let settings = maps.settings.get(0)?;
    if settings.shield_mode != Settings::SHIELD_AUTO {
        return Ok(Vec::new());
    }
    let now = tick();
    let mut flooded = Vec::new();
    for index in 1..=VipEntry::MAX_VIP_INDEX {
        let syns = maps.shield.by_cpu(index.into())?;
        let is_above = |syns: &AnswerBudget| {
            syns.used > settings.shield_per_tick && now.wrapping_sub(syns.tick) <= 1
        };
        if syns.iter().any(is_above) {
            flooded.push(index);
        }
    }
    Ok(flooded)
}

/// The clock that the programs read, in ticks of 2^30 ns.
pub(super) fn tick() -> u32 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC_COARSE;
    // Every kernel that runs the programs has this clock.
    let now = clock
        .now()
        .map(std::time::Duration::from)
        .unwrap_or_default();
    u32::try_from(now.as_nanos() >> 30).unwrap_or(u32::MAX)
}
