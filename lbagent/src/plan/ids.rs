//! Dense ids for VIPs and backends, stable while their owner lives.

use std::collections::BTreeSet;

use super::in_use::Uses;

/// Where the search for free ids goes on. Ids are handed out in a circle, so that a freed one
/// rests as long as possible: flows stored for its former owner must not find the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdCursor {
    /// Last VIP id handed out; 0 for none yet.
    pub vip: u32,
    /// Last backend id handed out; 0 for none yet.
    pub backend: u32,
    /// Last policy id handed out; 0 for none yet.
    pub policy: u32,
}

/// Ids of one map: above 0, below its capacity.
#[derive(Clone, Debug)]
pub(super) struct Ids<'a> {
    /// Those in use before the plan.
    taken: &'a Uses<u32>,
    /// Those that the plan has handed out.
    new: BTreeSet<u32>,
    capacity: u32,
    free: u32,
    last: u32,
}

impl<'a> Ids<'a> {
    /// `taken` are the ids in use before the plan: none of them is handed out, even if its owner
    /// is about to go. After a restart, without a cursor, the search begins behind the highest.
    pub(super) fn new(taken: &'a Uses<u32>, capacity: u32, cursor: u32) -> Self {
        let highest = taken.last().unwrap_or(0);
        let last = if cursor == 0 { highest } else { cursor };
        let used = if highest < capacity {
            taken.len() - usize::from(taken.contains(&0))
        } else {
            taken.iter().filter(|id| (1..capacity).contains(id)).count()
        };
        let free = capacity
            .saturating_sub(1)
            .saturating_sub(u32::try_from(used).unwrap_or(u32::MAX));
        Self {
            taken,
            new: BTreeSet::new(),
            capacity,
            free,
            last,
        }
    }

    /// How many may still be handed out.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Hands out the next free id.
    pub(super) fn allocate(&mut self) -> Option<u32> {
        let next = (self.last.saturating_add(1)..self.capacity)
            .chain(1..self.capacity.min(self.last.saturating_add(1)))
            .find(|id| !self.taken.contains(id) && !self.new.contains(id))?;
        self.new.insert(next);
        self.free -= 1;
        self.last = next;
        Some(next)
    }

    /// Takes back what [`allocate`](Self::allocate) handed out in this plan.
    pub(super) fn release(&mut self, id: u32) {
        if self.new.remove(&id) {
            self.free += 1;
        }
    }

    /// The last id handed out, for the next plan.
    pub(super) fn cursor(&self) -> u32 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(actual: &[u32], capacity: u32, cursor: u32, want: &[u32]) {
        let taken = actual.iter().copied().collect();
        let mut ids = Ids::new(&taken, capacity, cursor);
        assert_eq!(ids.free() as usize, want.len());
        let got: Vec<u32> = std::iter::from_fn(|| ids.allocate()).collect();
        assert_eq!(got, want);
        assert_eq!(ids.free(), 0);
    }

    #[test]
    fn ids_go_round_and_never_collide() {
        check(&[], 4, 0, &[1, 2, 3]);
        check(&[1, 2], 6, 0, &[3, 4, 5]);
        check(&[3], 6, 0, &[4, 5, 1, 2]);
        check(&[1], 5, 3, &[4, 2, 3]);
        check(&[], 5, 4, &[1, 2, 3, 4]);
        check(&[0, 9], 3, 0, &[1, 2]);
        check(&[1, 2], 3, 0, &[]);
        check(&[], 1, 0, &[]);
        check(&[], 0, 0, &[]);
    }
}
