//! A pass over everything in parts, between which changes are taken up: none waits for more than one
//! part.
//!
//! A part is a pass over what has changed that looks at some groups besides, as if something had happened
//! to them: it is planned, written and remembered as any change is. But it takes nothing for known: what
//! is of these groups is compared with the maps, their ways are asked for, their stored flows read. Beside
//! that all entries of the maps are walked through, portion by portion, to find those that nobody has put
//! there. Where the maps differ, everything is read and planned at once.
//!
//! Groups come in the order of their UUIDs. One that is created or changed meanwhile is looked at by the
//! pass that takes it up, so in the end every group was.

use std::collections::BTreeSet;

use tracing::warn;
use uuid::Uuid;

use super::known::{Known, Part};
use super::pass::{Coverage, Pass};
use crate::dataplane::{Dataplane, DataplaneError, Walk};
use crate::desired::DesiredState;

/// What the groups of a part weigh together: a millisecond or two.
pub(super) const PART_WEIGHT: usize = 256;
/// What a group weighs beside its instances, each of which weighs 1.
const GROUP: usize = 4;

/// How far a pass over everything in parts has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sweep {
    /// Where the walk over the maps goes on; `None` at its end.
    walk: Option<Walk>,
    /// The groups from this one on are left; `None`: no group is.
    groups: Option<Uuid>,
}

impl Sweep {
    const START: Self = Self {
        walk: Some(Walk::START),
        groups: Some(Uuid::nil()),
    };

    /// The groups that come next.
    fn next_groups(
        &mut self,
        known: &Known,
        desired: &DesiredState,
        limit: usize,
    ) -> BTreeSet<Uuid> {
        let mut part = BTreeSet::new();
        let Some(first) = self.groups.take() else {
            return part;
        };
        let mut weight = 0;
        for (group, _) in desired.service_groups.range(&first, &Uuid::max()) {
            if weight >= limit {
                self.groups = Some(*group);
                break;
            }
            weight += GROUP + known.members(*group);
            part.insert(*group);
        }
        part
    }
}

impl Pass {
    /// Begins the next part; returns its groups. `None`: the maps hold something else than what is
    /// known.
    pub(super) fn begin_part(
        &mut self,
        known: &Known,
        dataplane: &mut dyn Dataplane,
    ) -> Result<Option<BTreeSet<Uuid>>, DataplaneError> {
        let mut sweep = match self.memory.sweep.take() {
            Some(sweep) => sweep,
            None if dataplane.begin_round()? == known.actual.host_addresses => Sweep::START,
            None => return Ok(differ()),
        };
        if let Some(from) = sweep.walk {
            let (found, next) = dataplane.walk(from)?;
            if !known.includes(&found, from) {
                return Ok(differ());
            }
            sweep.walk = next;
        }
        let groups = sweep.next_groups(known, &self.desired, self.part_weight);
        self.memory.sweep = Some(sweep);
        Ok(Some(groups))
    }

    /// Compares a part with the maps, and reads which flows keep its slots from settling. `None`: the
    /// maps hold something else.
    pub(super) fn verify(
        &self,
        part: &mut Part,
        dataplane: &mut dyn Dataplane,
    ) -> Result<Option<()>, DataplaneError> {
        if !dataplane.holds(&part.actual)? {
            return Ok(differ());
        }
        part.actual.stored = self.stored_flows(&part.actual, dataplane)?;
        Ok(Some(()))
    }

    /// Ends a part; tells whether everything was looked at.
    pub(super) fn end_part(&mut self, dataplane: &mut dyn Dataplane) -> Coverage {
        let rest = self.memory.sweep.take();
        let rest = rest.filter(|sweep| sweep.walk.is_some() || sweep.groups.is_some());
        self.memory.sweep = rest;
        if rest.is_some() {
            return Coverage::Part;
        }
        for address in dataplane.end_round() {
            self.memory.paths.remove(&address);
        }
        Coverage::Everything
    }
}

/// Others have written the maps.
pub(super) fn differ<T>() -> Option<T> {
    warn!("the maps were not as the agent had left them; they are put right");
    None
}
