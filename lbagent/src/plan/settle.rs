//! When slots that changed hands settle again, so that their flows need not be stored any longer.
//!
//! A flow that was silent for the *window* ([`GatewaySettings::settle_after`]) counts as gone. Every
//! flow of a changed slot that sends is stored, so once a slot has been changed for the window, a
//! flow without an entry counts as gone, and so does one whose entry was not used for the window.
//! What is left has an entry that was used within the window: where all such entries of a slot name
//! the slot's owner, the slot can be settled, and no flow that anybody remembers moves.
//!
//! One number a table, [`VipEntry::changed_at`], and one bit a slot tell how long a slot has been
//! changed: those that were changed already at `changed_at` are *aged*. A window later they settle,
//! those changed since become aged, and the clock starts again. So a slot settles one to two windows
//! after its first change, however often the table changes meanwhile.

use lbagent_common::hash::slot_index;
use lbagent_common::{BackendId, Slot, VipEntry};

use super::GatewaySettings;
use crate::dataplane::{ActualState, StoredFlows};

/// The VIPs of tables that a plan could settle if it knew the stored flows; for
/// [`Dataplane::stored_flows`](crate::dataplane::Dataplane::stored_flows).
pub fn due_vips(actual: &ActualState, gateway: &GatewaySettings) -> Vec<u32> {
    let entries = actual.vips.values();
    entries
        .filter(|entry| is_due(entry.changed_at, actual.tick, gateway))
        .map(|entry| entry.vip_id)
        .collect()
}

/// Whether a table's clock has run for more than the window.
pub(super) fn is_due(changed_at: u32, now: u32, gateway: &GatewaySettings) -> bool {
    changed_at != 0 && now.saturating_sub(changed_at) > gateway.settle_after_ticks()
}

/// Whether every flow of these VIPs that sent within the window, on a changed slot, is stored.
pub(super) fn all_are_stored<'a>(
    stored: &StoredFlows,
    vips: impl IntoIterator<Item = &'a VipEntry>,
) -> bool {
    vips.into_iter()
        .all(|entry| !stored.refused.contains(&entry.vip_id))
}

/// The table once its clock has run for the window. A former table, if there is one, is no longer
/// needed beside it.
pub(super) fn age(
    table: &[Slot],
    has_former: bool,
    backends: impl IntoIterator<Item = BackendId>,
    stored: &StoredFlows,
) -> Vec<Slot> {
    let is_held = held_slots(table, backends, stored);
    table
        .iter()
        .zip(is_held)
        .map(|(slot, is_held)| match (slot.is_settled(), is_held) {
            // The former table differed here, and a flow from then on goes on.
            (true, true) if has_former => Slot::changed(slot.current, slot.current).aged(),
            (true, _) => *slot,
            (false, false) if slot.is_aged() && !has_former => Slot::settled(slot.current),
            (false, _) => slot.aged(),
        })
        .collect()
}

/// Which slots have stored flows that go elsewhere than to the owner.
fn held_slots(
    table: &[Slot],
    backends: impl IntoIterator<Item = BackendId>,
    stored: &StoredFlows,
) -> Vec<bool> {
    let len = u32::try_from(table.len()).unwrap_or(u32::MAX);
    let mut is_held = vec![false; table.len()];
    for id in backends {
        for upper in stored.flows.get(&id).into_iter().flatten() {
            let index = slot_index(u64::from(*upper) << 32, len) as usize;
            if table.get(index).is_some_and(|slot| slot.current != id) {
                is_held[index] = true;
            }
        }
    }
    is_held
}

#[cfg(test)]
mod tests {
    use super::*;

    use Slot as S;

    #[track_caller]
    fn check(was: Slot, has_former: bool, stored: &[BackendId], want: Slot) {
        let flows = stored.iter().map(|id| (*id, vec![7])).collect();
        let stored = StoredFlows {
            flows,
            ..StoredFlows::default()
        };
        assert_eq!(age(&[was], has_former, [1, 2, 3], &stored), [want]);
    }

    #[test]
    fn an_aged_slot_settles_unless_a_flow_goes_elsewhere() {
        let aged = S::changed(1, 2).aged();
        check(aged, false, &[], S::settled(1));
        check(aged, false, &[1], S::settled(1));
        check(aged, false, &[1, 2], aged);
        // Flows of backends that are gone hold nothing.
        check(aged, false, &[9], S::settled(1));
        check(
            S::changed(0, 2).aged(),
            false,
            &[2],
            S::changed(0, 2).aged(),
        );
        check(S::changed(0, 0).aged(), false, &[], S::settled(0));
    }

    #[test]
    fn a_slot_that_changed_lately_becomes_aged() {
        check(S::changed(1, 2), false, &[], S::changed(1, 2).aged());
        check(S::changed(1, 2), true, &[], S::changed(1, 2).aged());
        check(S::settled(1), false, &[2], S::settled(1));
    }

    #[test]
    fn flows_of_a_former_table_keep_their_slot_open() {
        check(S::settled(1), true, &[1], S::settled(1));
        check(S::settled(1), true, &[2], S::changed(1, 1).aged());
    }

    #[test]
    fn the_window_ends_after_its_last_tick() {
        let gateway = super::super::testing::gateway(&[]);
        let window = gateway.settle_after_ticks();
        for (changed_at, now, want) in [
            (0, 100_000, false),
            (10, 10 + window, false),
            (10, 11 + window, true),
            (10, 9, false),
        ] {
            assert_eq!(
                is_due(changed_at, now, &gateway),
                want,
                "{changed_at} {now}"
            );
        }
    }
}
