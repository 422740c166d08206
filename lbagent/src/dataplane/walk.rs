//! All entries of the maps in portions, so that nobody waits for the reading of all of them.

use std::collections::BTreeMap;

use lbagent_common::BackendId;

use super::read::{rules, settings};
use super::typed_maps::Maps;
use super::{ActualState, DataplaneError};

/// Where a walk over the entries of all maps goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// At a place in `VIPS` that the kernel has named, or at its beginning.
    Vips(Option<u32>),
    /// At a backend.
    Backends(BackendId),
    /// At a place in `RETURNS`, likewise.
    Returns(Option<u32>),
    /// At a place in `HOSTS`, likewise.
    Hosts(Option<u32>),
    /// At the rules, which are one portion.
    Rules,
}

impl Walk {
    /// The beginning.
    pub const START: Self = Self::Vips(None);
}

/// Entries of a portion; of `BACKENDS`, used or not.
const PORTION: u32 = 1024;

/// Reads a portion; tells where the next one begins.
pub(super) fn portion(
    maps: &Maps,
    from: Walk,
) -> Result<(ActualState, Option<Walk>), DataplaneError> {
    let mut found = ActualState::default();
    let next = match from {
        Walk::Vips(cursor) => {
            let (entries, next) = maps.vips.portion(cursor, PORTION as usize)?;
            found.vips.extend(entries);
            next.map_or(Walk::Backends(1), |next| Walk::Vips(Some(next)))
        }
        Walk::Backends(first) => {
            let next = first.saturating_add(PORTION);
            found.backends.extend(maps.backends.used_in(first..next));
            match maps.backends.holds(next) {
                true => Walk::Backends(next),
                false => Walk::Returns(None),
            }
        }
        Walk::Returns(cursor) => {
            let (entries, next) = maps.returns.portion(cursor, PORTION as usize)?;
            found.returns.extend(entries);
            next.map_or(Walk::Hosts(None), |next| Walk::Returns(Some(next)))
        }
        Walk::Hosts(cursor) => {
            let (entries, next) = maps.hosts.portion(cursor, PORTION as usize)?;
            found.hosts.extend(entries);
            next.map_or(Walk::Rules, |next| Walk::Hosts(Some(next)))
        }
        Walk::Rules => {
            found.rules = rules(maps)?;
            return Ok((found, None));
        }
    };
    Ok((found, Some(next)))
}

/// Whether the maps hold these settings and entries, rules left out.
pub(super) fn holds(maps: &Maps, entries: &ActualState) -> Result<bool, DataplaneError> {
    if settings(maps)? != entries.settings {
        return Ok(false);
    }
    for (id, entry) in &entries.backends {
        if maps.backends.get(*id).as_ref() != Some(entry) {
            return Ok(false);
        }
    }
    for (key, entry) in &entries.vips {
        if maps.vips.get(key)?.as_ref() != Some(entry) {
            return Ok(false);
        }
    }
    for (key, entry) in &entries.returns {
        if maps.returns.get(key)?.as_ref() != Some(entry) {
            return Ok(false);
        }
    }
    for (key, entry) in &entries.hosts {
        if maps.hosts.get(key)?.as_ref() != Some(entry) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a map has all of these entries.
pub(crate) fn includes<K: Ord, V: PartialEq>(map: &BTreeMap<K, V>, some: &BTreeMap<K, V>) -> bool {
    some.iter().all(|(key, value)| map.get(key) == Some(value))
}
