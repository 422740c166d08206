//! What the agent wrote, read back from the maps.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use lbagent_common::Slot;

use super::kernel::Running;
use super::typed_maps::Maps;
use super::{ActualState, DataplaneError, Region, RuleKey};

/// What the agent wrote into the maps; tables are read when they are asked for.
pub(super) fn read_maps(maps: &Maps) -> Result<ActualState, DataplaneError> {
    Ok(ActualState {
        settings: Running::default().within(&maps.settings.get(0)?),
        slots: Some(maps.slots.live()),
        vips: maps.vips.entries()?.into_iter().collect(),
        backends: maps.backends.used().collect(),
        returns: maps.returns.entries()?.into_iter().collect(),
        rules: rules(maps)?,
        hosts: maps.hosts.entries()?.into_iter().collect(),
        ..ActualState::default()
    })
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

/// The rules of all policies.
fn rules(maps: &Maps) -> Result<BTreeMap<RuleKey, u32>, DataplaneError> {
    let sources = maps.sources.entries()?.into_iter();
    let servers = maps.quic_servers.entries()?.into_iter();
    Ok(sources
        .map(|(key, entry)| (RuleKey::Source(key), entry.verdict))
        .chain(servers.map(|(key, id)| (RuleKey::QuicServer(key), id)))
        .collect())
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
