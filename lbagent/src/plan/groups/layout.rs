//! A group's tables of one family: what they should hold, and where they go.

use std::borrow::Cow;
use std::collections::BTreeMap;

use lbagent_common::{BackendId, Slot, VipKey, limits};
use uuid::Uuid;

use super::super::backends::Member;
use super::super::regions::{Regions, previous_region, table_region};
use super::super::tables::{Contents, Former, Ownership, Tables, next_tables};
use super::super::{Family, Reason};
use super::clock::{Clock, tables_after_ageing};
use super::{Builder, count, map_full, of_family};
use crate::dataplane::Region;

/// A group's part of one family, planned but not yet accepted.
pub(super) struct FamilyDraft {
    pub(super) members: Vec<(BackendId, Member)>,
    pub(super) tables: Tables,
    /// For [`lbagent_common::VipEntry::changed_at`].
    pub(super) changed_at: u32,
    pub(super) is_new: bool,
}

/// Regions of the table and of the former table, by family.
pub(super) type Placement = BTreeMap<Family, [Option<Region>; 2]>;

impl<'a> Builder<'a> {
    /// Plans the tables of one family.
    pub(super) fn draft(
        &self,
        group: Uuid,
        family: Family,
        ports: &BTreeMap<VipKey, u16>,
        members: Vec<(BackendId, Member)>,
        table: &[u32],
    ) -> FamilyDraft {
        let active = members.iter().filter(|(_, member)| member.is_active);
        let active: Vec<BackendId> = active.map(|(id, _)| *id).collect();
        let owners = table.iter().map(|index| active[*index as usize]);
        let owners: Vec<BackendId> = owners.collect();
        let is_alive = |(_, member): &&(BackendId, Member)| member.entry.is_alive();
        let alive = members.iter().filter(is_alive).map(|(id, _)| *id).collect();
        let read = self.formers(group, family, ports);
        let formers: Vec<Former<'_>> = read.iter().map(FormerTables::borrow).collect();
        let clock = Clock::of(self.input, group, family, ports);
        let aged = match formers.as_slice() {
            [former] => clock
                .age(former, members.iter().map(|(id, _)| *id))
                .map(|slots| (former, slots)),
            _ => None,
        };
        let is_aged = aged.is_some();
        let next = Ownership {
            owners: &owners,
            alive: &alive,
            has_survivors: members.iter().filter(is_alive).any(|(_, m)| m.was_alive),
            starts_clock: clock.starts() || is_aged,
        };
        let tables = match aged {
            Some((former, slots)) => tables_after_ageing(former, slots, &next),
            None => tables_after(&formers, &next),
        };
        FamilyDraft {
            changed_at: clock.after(&tables, is_aged),
            members,
            tables,
            is_new: formers.is_empty(),
        }
    }

    /// The different tables that the group's ports name, in the order of the ports.
    fn formers(
        &self,
        group: Uuid,
        family: Family,
        ports: &BTreeMap<VipKey, u16>,
    ) -> Vec<FormerTables<'a>> {
        let mut formers: Vec<FormerTables<'a>> = Vec::new();
        for key in of_family(ports, family) {
            let Some(entry) = self.actual.vips.get(key) else {
                continue;
            };
            if entry.service_group != *group.as_bytes() {
                continue;
            }
            let Some(table) = table_region(entry).and_then(|region| self.slots(region)) else {
                continue;
            };
            let previous = previous_region(entry).and_then(|region| self.slots(region));
            let former = FormerTables { table, previous };
            if !formers
                .iter()
                .any(|known| known.regions() == former.regions())
            {
                formers.push(former);
            }
        }
        formers
    }

    pub(super) fn slots(&self, region: Region) -> Option<(Region, Cow<'a, [Slot]>)> {
        let slots = self.actual.table(region)?;
        (slots.len() == region.len as usize).then_some((region, slots))
    }

    /// Finds regions for the tables that are to be written: (table, former table) by family.
    pub(super) fn place(
        &self,
        drafts: &BTreeMap<Family, FamilyDraft>,
    ) -> Result<(Regions, Placement), Reason> {
        let mut regions = self.regions.clone();
        let mut placed = BTreeMap::new();
        let spare = if drafts.values().any(|draft| draft.is_new) {
            self.spare
        } else {
            0
        };
        let needed = drafts
            .values()
            .flat_map(|draft| [&draft.tables.table, &draft.tables.previous]);
        let needed: u32 = needed.map(new_len).sum();
        let full = || {
            let (needed, free) = (needed.saturating_add(spare), self.regions.free());
            map_full(limits::SLOTS, needed, free, self.actual.capacity.slots)
        };
        for (family, FamilyDraft { tables, .. }) in drafts {
            let mut place = |contents: &Option<Contents>| match contents {
                None => Ok(None),
                Some(Contents::Kept(region)) => Ok(Some(*region)),
                Some(Contents::New(slots)) => regions
                    .allocate(count(slots.iter()))
                    .map(Some)
                    .ok_or_else(full),
            };
            placed.insert(*family, [place(&tables.table)?, place(&tables.previous)?]);
        }
        if needed > 0 && !regions.has_gap(spare) {
            return Err(full());
        }
        Ok((regions, placed))
    }

    pub(super) fn write_tables(
        &mut self,
        tables: Tables,
        placed: &[Option<Region>; 2],
    ) -> [Region; 2] {
        for (contents, region) in [tables.table, tables.previous].into_iter().zip(placed) {
            if let (Some(Contents::New(slots)), Some(region)) = (contents, region) {
                self.target.tables.push((*region, slots));
            }
        }
        placed.map(|region| region.unwrap_or(Region { offset: 0, len: 0 }))
    }
}

/// Plans the tables of a group whose ports name these. One table serves all ports of the group. They
/// name different ones only when a pass was cut short: then one that needs no change is what that
/// pass was about to switch the others to; and failing that, the last port has the oldest table, as
/// ports are switched in their order, and the older table knows the flows that the newer one did not
/// store.
/// What a [`Former`] borrows from.
struct FormerTables<'a> {
    table: (Region, Cow<'a, [Slot]>),
    previous: Option<(Region, Cow<'a, [Slot]>)>,
}

impl FormerTables<'_> {
    fn regions(&self) -> (Region, Option<Region>) {
        let previous = self.previous.as_ref();
        (self.table.0, previous.map(|(region, _)| *region))
    }

    fn borrow(&self) -> Former<'_> {
        fn slots<'a>((region, slots): &'a (Region, Cow<'_, [Slot]>)) -> (Region, &'a [Slot]) {
            (*region, slots)
        }
        Former {
            table: slots(&self.table),
            previous: self.previous.as_ref().map(slots),
        }
    }
}

fn tables_after(formers: &[Former<'_>], next: &Ownership<'_>) -> Tables {
    let mut planned = formers.iter().map(|former| next_tables(Some(former), next));
    match planned.clone().find(Tables::is_kept) {
        Some(kept) => kept,
        None => planned
            .next_back()
            .unwrap_or_else(|| next_tables(None, next)),
    }
}

fn new_len(contents: &Option<Contents>) -> u32 {
    match contents {
        Some(Contents::New(slots)) => count(slots.iter()),
        _ => 0,
    }
}
