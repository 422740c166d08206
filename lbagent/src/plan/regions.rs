//! First-fit allocation of table regions over `SLOTS`.

use std::collections::BTreeSet;

use lbagent_common::VipEntry;

use crate::dataplane::{ActualState, Region};

/// The region of a VIP's table; `None` while it has no slots.
pub fn table_region(entry: &VipEntry) -> Option<Region> {
    (entry.table_len > 0).then_some(Region {
        offset: entry.table_offset,
        len: entry.table_len,
    })
}

/// The region of the table before the last change of size; `None` when there is none.
pub fn previous_region(entry: &VipEntry) -> Option<Region> {
    (entry.previous_len > 0).then_some(Region {
        offset: entry.previous_offset,
        len: entry.previous_len,
    })
}

/// Every region that a VIP entry names, the former tables included.
pub fn named_regions(actual: &ActualState) -> BTreeSet<Region> {
    let entries = actual.vips.values();
    entries
        .flat_map(|entry| [table_region(entry), previous_region(entry)])
        .flatten()
        .collect()
}

/// The gaps between the regions in use.
#[derive(Clone, Debug)]
pub(super) struct Regions {
    /// Disjoint, ordered by offset.
    gaps: Vec<Region>,
}

impl Regions {
    /// `used` may overlap and reach beyond the capacity: actual state is not trusted.
    pub(super) fn new(capacity: u32, used: impl Iterator<Item = Region>) -> Self {
        let mut gaps = Vec::new();
        let mut free_from = 0;
        let mut used: Vec<Region> = used.collect();
        used.sort_unstable();
        for region in used {
            let end = region.offset.saturating_add(region.len).min(capacity);
            if region.offset.min(capacity) > free_from {
                gaps.push(Region {
                    offset: free_from,
                    len: region.offset.min(capacity) - free_from,
                });
            }
            free_from = free_from.max(end);
        }
        if free_from < capacity {
            gaps.push(Region {
                offset: free_from,
                len: capacity - free_from,
            });
        }
        Self { gaps }
    }

    /// The first gap that is large enough gives the region.
    pub(super) fn allocate(&mut self, len: u32) -> Option<Region> {
        let index = self.gaps.iter().position(|gap| gap.len >= len)?;
        let gap = &mut self.gaps[index];
        let region = Region {
            offset: gap.offset,
            len,
        };
        gap.offset += len;
        gap.len -= len;
        if gap.len == 0 {
            self.gaps.remove(index);
        }
        Some(region)
    }

    /// Whether a region of this length could be allocated.
    pub(super) fn has_gap(&self, len: u32) -> bool {
        len == 0 || self.gaps.iter().any(|gap| gap.len >= len)
    }

    /// Slots that no region uses.
    pub(super) fn free(&self) -> u32 {
        self.gaps.iter().map(|gap| gap.len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn region(offset: u32, len: u32) -> Region {
        Region { offset, len }
    }

    #[track_caller]
    fn check(capacity: u32, used: &[Region], wanted: u32, want: Option<Region>) {
        let mut regions = Regions::new(capacity, used.iter().copied());
        assert_eq!(regions.allocate(wanted), want);
    }

    #[test]
    fn the_first_gap_that_fits_is_taken() {
        check(100, &[], 100, Some(region(0, 100)));
        check(100, &[], 101, None);
        check(100, &[region(0, 10)], 90, Some(region(10, 90)));
        check(100, &[region(20, 10)], 20, Some(region(0, 20)));
        check(100, &[region(20, 10)], 21, Some(region(30, 21)));
        check(100, &[region(20, 60), region(30, 10)], 21, None);
        check(
            100,
            &[region(20, 60), region(30, 10)],
            20,
            Some(region(0, 20)),
        );
    }

    #[test]
    fn regions_beyond_the_capacity_take_no_room() {
        check(
            100,
            &[region(90, 50), region(u32::MAX, u32::MAX)],
            90,
            Some(region(0, 90)),
        );
        check(100, &[region(0, u32::MAX)], 1, None);
    }

    #[test]
    fn allocated_regions_are_disjoint() {
        let mut regions = Regions::new(100, [region(30, 5)].into_iter());
        assert_eq!(regions.free(), 95);
        let taken: Vec<_> = std::iter::from_fn(|| regions.allocate(15)).collect();
        assert_eq!(
            taken,
            [
                region(0, 15),
                region(15, 15),
                region(35, 15),
                region(50, 15),
                region(65, 15),
                region(80, 15)
            ]
        );
        assert_eq!(regions.free(), 5);
    }
}
