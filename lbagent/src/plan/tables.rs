//! The next Maglev table of a group, from the table it has and the owners it should have.

use std::collections::BTreeSet;

use lbagent_common::hash::slot_index;
use lbagent_common::{BackendId, Slot};

use crate::dataplane::Region;

/// The tables that a VIP entry names now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Former<'a> {
    /// The table.
    pub(super) table: (Region, &'a [Slot]),
    /// The table before the last change of size.
    pub(super) previous: Option<(Region, &'a [Slot])>,
}

/// Who owns what from now on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ownership<'a> {
    /// Owner of every slot; empty when nobody takes new flows.
    pub(super) owners: &'a [BackendId],
    /// Backends that packets may be sent to, draining ones included.
    pub(super) alive: &'a BTreeSet<BackendId>,
    /// Whether one of them was there before: only then can there be flows to remember.
    pub(super) has_survivors: bool,
    /// Whether the table's clock starts now, so that slots that change now are aged; see
    /// [`settle`](super::settle).
    pub(super) starts_clock: bool,
}

/// Slots that are there already, or that need a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// As they are.
    Kept(Region),
    /// To be written.
    New(Vec<Slot>),
}

/// The tables that a VIP entry is to name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    /// The table; `None` while the group has nobody and remembers nobody.
    pub(super) table: Option<Contents>,
    /// The table before the last change of size.
    pub(super) previous: Option<Contents>,
    /// Whether some slot is changed, so that flows are stored.
    pub(super) has_changed: bool,
    /// Whether the table has another size than before.
    pub(super) is_resized: bool,
}

impl Tables {
    /// Whether nothing has to be written.
    pub(super) fn is_kept(&self) -> bool {
        [&self.table, &self.previous]
            .into_iter()
            .all(|contents| !matches!(contents, Some(Contents::New(_))))
    }
}

/// Plans the tables. An established flow keeps its backend through any number of changes, as long
/// as the backend lives: either the tables say who owns the flows that are not stored, or the data
/// plane has stored it.
pub(super) fn next_tables(former: Option<&Former<'_>>, next: &Ownership<'_>) -> Tables {
    let Some(former) = former.filter(|_| next.has_survivors) else {
        let fresh: Vec<Slot> = next
            .owners
            .iter()
            .map(|owner| Slot::settled(*owner))
            .collect();
        let table = (!fresh.is_empty()).then_some(Contents::New(fresh));
        return Tables {
            table,
            ..Tables::default()
        };
    };
    let (region, slots) = former.table;
    // Without owners the size stays, so that whoever comes back finds its slots.
    let resized = !next.owners.is_empty() && next.owners.len() != slots.len();
    if resized {
        let fresh = next
            .owners
            .iter()
            .map(|owner| Slot::settled(*owner))
            .collect();
        let (region, slots, remembered) = match former.previous {
            None => (region, slots, slots.to_vec()),
            Some((region, older)) => (region, older, marked(older, slots)),
        };
        let remembered = without_dead(remembered, next.alive);
        return Tables {
            table: Some(Contents::New(fresh)),
            previous: Some(kept_or_new(region, slots, remembered)),
            has_changed: true,
            is_resized: true,
        };
    }
    let owners = next.owners.iter().copied().chain(std::iter::repeat(0));
    let changed: Vec<Slot> = slots
        .iter()
        .zip(owners)
        .map(|(slot, owner)| next_slot(*slot, owner, next))
        .collect();
    Tables {
        has_changed: former.previous.is_some() || changed.iter().any(|slot| !slot.is_settled()),
        is_resized: false,
        table: Some(kept_or_new(region, slots, changed)),
        previous: former.previous.map(|(region, slots)| {
            kept_or_new(region, slots, without_dead(slots.to_vec(), next.alive))
        }),
    }
}

fn kept_or_new(region: Region, slots: &[Slot], wanted: Vec<Slot>) -> Contents {
    if slots == wanted {
        Contents::Kept(region)
    } else {
        Contents::New(wanted)
    }
}

/// A slot under its new owner (0 for none). Once changed, a slot stays so until it is settled by
/// age: flows of every owner that it had since may be stored.
///
/// Flows that are not stored are those of the first owner while it lives. When it is gone, nobody
/// is left whose flows are not stored but those that came after it and found no room here, or that
/// another gateway saw: they are the next owner's.
fn next_slot(slot: Slot, owner: BackendId, next: &Ownership<'_>) -> Slot {
    if slot == Slot::settled(owner) {
        return slot;
    }
    let is_alive = |id: &BackendId| next.alive.contains(id);
    if slot.is_settled() {
        return match Some(slot.current).filter(is_alive) {
            Some(previous) if next.starts_clock => Slot::changed(owner, previous).aged(),
            Some(previous) => Slot::changed(owner, previous),
            // All flows of the slot went with their owner.
            None => Slot::settled(owner),
        };
    }
    let mut heirs = [slot.previous(), slot.current, owner].into_iter();
    let changed = Slot::changed(owner, heirs.find(is_alive).unwrap_or(0));
    if slot.is_aged() {
        changed.aged()
    } else {
        changed
    }
}

/// Takes owners that are gone out of a former table, which tells who owns flows that are not
/// stored.
fn without_dead(mut slots: Vec<Slot>, alive: &BTreeSet<BackendId>) -> Vec<Slot> {
    let keep = |id: BackendId| if alive.contains(&id) { id } else { 0 };
    for slot in &mut slots {
        let (current, previous) = (keep(slot.current), keep(slot.previous()));
        if (current, previous) != (slot.current, slot.previous()) {
            *slot = Slot::changed(current, previous);
        }
    }
    slots
}

/// The oldest table, once the one that replaced it is replaced too by one of another size. It still
/// tells who owns flows that are not stored; flows of slots whose owner differed between the two
/// were stored, so those slots are marked as changed, or nobody would look for them.
fn marked(oldest: &[Slot], replaced: &[Slot]) -> Vec<Slot> {
    let len = u32::try_from(oldest.len()).unwrap_or(u32::MAX);
    (0..)
        .zip(oldest)
        .map(|(index, slot)| {
            if overlapping(index, len, replaced).all(|other| other == *slot) {
                *slot
            } else {
                Slot::changed(slot.current, slot.previous())
            }
        })
        .collect()
}

/// The slots of `other` that share flows with slot `index` of a table of `len`.
fn overlapping(index: u32, len: u32, other: &[Slot]) -> impl Iterator<Item = Slot> {
    let other_len = u32::try_from(other.len()).unwrap_or(u32::MAX);
    // Slot `index` is that of the hashes whose upper half lies in `first ..= last`.
    let bound = |index: u32| (u64::from(index) << 32).div_ceil(u64::from(len));
    let (first, last) = (bound(index), bound(index + 1) - 1);
    let of = |upper: u64| slot_index(upper << 32, other_len) as usize;
    other[of(first)..=of(last)].iter().copied()
}

#[cfg(test)]
mod tests {
    use super::super::choose::Owners;
    use super::*;

    /// Whether the flows of this hash are told by the tables alone.
    fn is_settled(hash: u64, table: &[Slot], previous: Option<&[Slot]>) -> bool {
        Owners::lookup(hash, table, previous).is_some_and(|owners| owners.settled)
    }

    use Slot as S;

    #[track_caller]
    fn check(was: Slot, owner: BackendId, alive: &[BackendId], want: Slot) {
        let alive = alive.iter().copied().collect();
        let mut next = Ownership {
            owners: &[],
            alive: &alive,
            has_survivors: true,
            starts_clock: false,
        };
        assert_eq!(next_slot(was, owner, &next), want);
        assert_eq!(next_slot(was.aged(), owner, &next), want_aged(was, want));
        next.starts_clock = true;
        let is_new = was.is_settled();
        assert_eq!(
            next_slot(was, owner, &next),
            if is_new { want.aged() } else { want }
        );
    }

    /// A changed slot stays as old as it is.
    fn want_aged(was: Slot, want: Slot) -> Slot {
        if was.is_settled() { want } else { want.aged() }
    }

    #[test]
    fn an_unchanged_owner_keeps_its_history() {
        check(S::settled(1), 1, &[1], S::settled(1));
        check(S::changed(1, 2), 1, &[1, 2], S::changed(1, 2));
        check(S::changed(1, 0), 1, &[1], S::changed(1, 1));
    }

    #[test]
    fn a_new_owner_leaves_the_flows_that_are_not_stored_to_theirs() {
        check(S::settled(1), 2, &[1, 2], S::changed(2, 1));
        check(S::changed(1, 3), 2, &[1, 2, 3], S::changed(2, 3));
        check(S::changed(0, 3), 2, &[2, 3], S::changed(2, 3));
    }

    #[test]
    fn the_flows_of_an_owner_that_is_gone_are_gone() {
        check(S::settled(1), 2, &[2], S::settled(2));
        check(S::settled(0), 2, &[2], S::settled(2));
        // Who came after it may have flows that found no room, and owns them.
        check(S::changed(1, 3), 2, &[1, 2], S::changed(2, 1));
        check(S::changed(1, 3), 2, &[2], S::changed(2, 2));
        check(S::changed(1, 2), 1, &[1], S::changed(1, 1));
    }

    #[test]
    fn an_owner_that_comes_back_finds_its_flows_and_leaves_the_stored_ones() {
        check(S::changed(1, 2), 2, &[1, 2], S::changed(2, 2));
        check(S::changed(2, 2), 3, &[1, 2, 3], S::changed(3, 2));
    }

    #[test]
    fn without_an_owner_the_slot_stays_open_for_stored_flows() {
        check(S::settled(1), 0, &[1], S::changed(0, 1));
        check(S::settled(1), 0, &[5], S::settled(0));
        check(S::changed(1, 2), 0, &[2], S::changed(0, 2));
        check(S::changed(1, 2), 0, &[5], S::changed(0, 0));
    }

    const REGION: Region = Region { offset: 8, len: 4 };

    fn tables(
        table: &[Slot],
        previous: Option<&[Slot]>,
        owners: &[BackendId],
        alive: &[BackendId],
        has_survivors: bool,
    ) -> Tables {
        let former = Former {
            table: (REGION, table),
            previous: previous.map(|slots| {
                (
                    Region {
                        offset: 100,
                        len: slots.len() as u32,
                    },
                    slots,
                )
            }),
        };
        let alive = alive.iter().copied().collect();
        next_tables(
            Some(&former),
            &Ownership {
                owners,
                alive: &alive,
                has_survivors,
                starts_clock: false,
            },
        )
    }

    #[test]
    fn nothing_changed_nothing_written() {
        let table = [S::settled(1), S::changed(2, 1)];
        let next = tables(&table, None, &[1, 2], &[1, 2], true);
        assert_eq!(
            next,
            Tables {
                table: Some(Contents::Kept(REGION)),
                has_changed: true,
                ..Tables::default()
            }
        );
    }

    #[test]
    fn a_group_that_was_empty_starts_without_history() {
        let next = tables(
            &[S::settled(0), S::changed(1, 2)],
            None,
            &[7, 7],
            &[7],
            false,
        );
        let fresh = vec![Slot::settled(7); 2];
        assert_eq!(
            next,
            Tables {
                table: Some(Contents::New(fresh)),
                ..Tables::default()
            }
        );
        assert_eq!(
            tables(&[S::settled(1)], None, &[], &[], false),
            Tables::default()
        );
    }

    #[test]
    fn a_change_of_size_names_the_former_table() {
        let table = [S::settled(1), S::settled(2)];
        let next = tables(&table, None, &[1, 1, 2], &[1, 2], true);
        assert_eq!(
            next.table,
            Some(Contents::New([1, 1, 2].map(Slot::settled).to_vec()))
        );
        assert_eq!(next.previous, Some(Contents::Kept(REGION)));
    }

    #[test]
    fn the_dead_are_cleaned_from_the_former_table() {
        let previous = [S::settled(3), S::changed(1, 3)];
        let clean = [S::changed(0, 0), S::changed(1, 0)];
        let next = tables(&[S::settled(1)], Some(&previous), &[1], &[1], true);
        assert_eq!(next.previous, Some(Contents::New(clean.to_vec())));
        assert_eq!(next.table, Some(Contents::Kept(REGION)));
        // What is clean is not written again.
        assert!(tables(&[S::settled(1)], Some(&clean), &[1], &[1], true).is_kept());
    }

    #[test]
    fn two_changes_of_size_do_not_hide_stored_flows() {
        // 5 owned all flows; then 1 got all slots of a table of 2: all flows were stored.
        let (table, previous) = ([S::settled(1); 2], [S::settled(5)]);
        assert!(!is_settled(0, &table, Some(&previous)));
        let next = tables(&table, Some(&previous), &[5, 5, 5], &[1, 5], true);
        let Some(Contents::New(remembered)) = next.previous else {
            panic!("{next:?}")
        };
        assert_eq!(remembered, [S::changed(5, 5)]);
        for hash in [0, u64::MAX / 2, u64::MAX] {
            assert!(!is_settled(
                hash,
                &[5, 5, 5].map(Slot::settled),
                Some(&remembered)
            ));
        }
    }

    #[test]
    fn slots_overlap_by_hash() {
        let other: Vec<Slot> = (0..7).map(Slot::settled).collect();
        for len in [3_u32, 5, 7, 11] {
            for hash in (0..2000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let index = slot_index(hash, len);
                let there = other[slot_index(hash, 7) as usize];
                assert!(overlapping(index, len, &other).any(|slot| slot == there));
            }
            let all: usize = (0..len).map(|i| overlapping(i, len, &other).count()).sum();
            assert!(all < (len + 7) as usize, "{all} pairs of {len} and 7 slots");
        }
    }
}
