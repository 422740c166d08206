//! A group's tables grow old: when slots that changed hands settle.

use std::collections::BTreeMap;

use lbagent_common::{BackendId, Slot, VipEntry, VipKey};
use uuid::Uuid;

use super::super::settle;
use super::super::tables::{Contents, Former, Ownership, Tables, next_tables};
use super::super::{Family, PlanInput};
use super::of_family;

/// The entries that a group's ports of one family have, and how long their table's clock has run.
pub(super) struct Clock<'a> {
    input: &'a PlanInput<'a>,
    entries: Vec<&'a VipEntry>,
    /// When the clock started; 0 when it does not run, because every slot is settled.
    started: u32,
}

impl<'a> Clock<'a> {
    pub(super) fn of(
        input: &'a PlanInput<'a>,
        group: Uuid,
        family: Family,
        ports: &BTreeMap<VipKey, u16>,
    ) -> Self {
        let entries: Vec<_> = of_family(ports, family)
            .filter_map(|key| input.actual.vips.get(key))
            .filter(|entry| entry.service_group == *group.as_bytes())
            .collect();
        let started = entries.iter().map(|entry| entry.changed_at).max();
        Self {
            input,
            entries,
            // A time to come is damage, and would keep the table from ever settling.
            started: started.unwrap_or(0).min(input.actual.tick),
        }
    }

    /// Whether the clock of a table that changes now starts now.
    pub(super) fn starts(&self) -> bool {
        self.started == 0
    }

    /// The slots of the table in a window's time, if it is over: some are settled, and the former
    /// table is gone.
    pub(super) fn age(
        &self,
        former: &Former<'_>,
        backends: impl Iterator<Item = BackendId>,
    ) -> Option<Vec<Slot>> {
        let PlanInput {
            actual, gateway, ..
        } = *self.input;
        let stored = actual.stored.as_ref()?;
        let is_due = settle::is_due(self.started, actual.tick, gateway)
            && settle::all_are_stored(stored, self.entries.iter().copied());
        let (_, slots) = former.table;
        is_due.then(|| settle::age(slots, former.previous.is_some(), backends, stored))
    }

    /// When the clock of planned tables started.
    pub(super) fn after(&self, tables: &Tables, is_aged: bool) -> u32 {
        match self.started {
            _ if !tables.has_changed => 0,
            started if started != 0 && !is_aged && !tables.is_resized => started,
            _ => self.input.actual.tick.max(1),
        }
    }
}

/// Plans the tables that follow on a table whose slots have aged.
pub(super) fn tables_after_ageing(
    former: &Former<'_>,
    aged: Vec<Slot>,
    next: &Ownership<'_>,
) -> Tables {
    let (region, slots) = former.table;
    let as_former = Former {
        table: (region, &aged),
        previous: None,
    };
    let mut tables = next_tables(Some(&as_former), next);
    let is_different = aged != slots;
    for contents in [&mut tables.table, &mut tables.previous] {
        if *contents == Some(Contents::Kept(region)) && is_different {
            *contents = Some(Contents::New(aged.clone()));
        }
    }
    tables
}
