//! What differs between two copies of a shared map, at the cost of what they don't share.

use std::cmp::Ordering;
use std::sync::Arc;

use super::SharedMap;
use super::node::{Branch, Leaf};

impl<K: Ord + Clone, V: PartialEq> SharedMap<K, V> {
    /// The keys whose values differ between the two maps, or that only one of them has, in order.
    pub fn changed_keys(&self, other: &Self) -> Vec<K> {
        let mut changed = Vec::new();
        let (mut ours, mut theirs) = (Cursor::of(self), Cursor::of(other));
        loop {
            if ours.skip_shared(&mut theirs) {
                continue;
            }
            let order = match (ours.entry(), theirs.entry()) {
                (None, None) => return changed,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((our_key, our)), Some((their_key, their))) => {
                    let order = our_key.cmp(their_key);
                    if order.is_eq() && our == their {
                        ours.advance();
                        theirs.advance();
                        continue;
                    }
                    order
                }
            };
            let first = if order.is_gt() { &theirs } else { &ours };
            changed.extend(first.entry().map(|(key, _)| key.clone()));
            if order.is_le() {
                ours.advance();
            }
            if order.is_ge() {
                theirs.advance();
            }
        }
    }
}

/// A place in a map.
struct Cursor<'a, K, V> {
    /// From the one on that the place is in.
    branches: &'a [Arc<Branch<Leaf<K, V>>>],
    /// Of that branch, from the one on that the place is in.
    leaves: &'a [Arc<Leaf<K, V>>],
    place: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn of(map: &'a SharedMap<K, V>) -> Self {
        let mut cursor = Self {
            branches: &map.root.0,
            leaves: &[],
            place: 0,
        };
        cursor.enter_branch();
        cursor
    }

    fn entry(&self) -> Option<&'a (K, V)> {
        self.leaves.first().map(|leaf| &leaf.0[self.place])
    }

    fn advance(&mut self) {
        self.place += 1;
        if self.leaves.first().is_some_and(|l| l.0.len() == self.place) {
            self.skip_leaf();
        }
    }

    fn skip_leaf(&mut self) {
        self.leaves = &self.leaves[1..];
        self.place = 0;
        if self.leaves.is_empty() {
            self.skip_branch();
        }
    }

    fn skip_branch(&mut self) {
        self.branches = &self.branches[1..];
        self.enter_branch();
    }

    fn enter_branch(&mut self) {
        self.leaves = self.branches.first().map_or(&[], |branch| &branch.0);
        self.place = 0;
    }

    /// The branch that it is at the beginning of.
    fn begun_branch(&self) -> Option<&'a Arc<Branch<Leaf<K, V>>>> {
        let is_begun =
            |branch: &&Arc<Branch<_>>| self.place == 0 && branch.0.len() == self.leaves.len();
        self.branches.first().filter(is_begun)
    }

    /// The leaf that it is at the beginning of.
    fn begun_leaf(&self) -> Option<&'a Arc<Leaf<K, V>>> {
        self.leaves.first().filter(|_| self.place == 0)
    }

    /// Goes behind a node that both maps have, if both are at its beginning.
    fn skip_shared(&mut self, other: &mut Self) -> bool {
        if is_same(self.begun_branch(), other.begun_branch()) {
            self.skip_branch();
            other.skip_branch();
            true
        } else if is_same(self.begun_leaf(), other.begun_leaf()) {
            self.skip_leaf();
            other.skip_leaf();
            true
        } else {
            false
        }
    }
}

fn is_same<N>(ours: Option<&Arc<N>>, theirs: Option<&Arc<N>>) -> bool {
    matches!((ours, theirs), (Some(ours), Some(theirs)) if Arc::ptr_eq(ours, theirs))
}
