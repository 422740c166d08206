//! First-fit allocation of table regions over `SLOTS`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use lbagent_common::VipEntry;

use super::in_use::Uses;
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

/// The regions that VIP entries name, and what is between them, kept up as entries come and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NamedRegions {
    uses: Uses<Region>,
    sizes: Uses<u32>,
    cover: Cover,
}

impl NamedRegions {
    pub(super) fn contains(&self, region: &Region) -> bool {
        self.uses.contains(region)
    }

    /// The size of the largest.
    pub(super) fn largest(&self) -> u32 {
        self.sizes.last().unwrap_or(0)
    }

    /// An entry names the region.
    pub(super) fn add(&mut self, region: Region) {
        if self.uses.add(region) {
            self.sizes.add(region.len);
            self.cover.change(region, |regions| regions + 1);
        }
    }

    /// An entry names it no longer.
    pub(super) fn remove(&mut self, region: Region) {
        if self.uses.remove(region) {
            self.sizes.remove(region.len);
            self.cover.change(region, |regions| regions - 1);
        }
    }
}

/// How many regions cover each slot: regions may overlap, because actual state is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cover {
    /// The first slots of runs that as many regions cover, with how many that are; neighbours differ.
    runs: BTreeMap<u32, u32>,
    /// The runs that none covers.
    gaps: BTreeSet<u32>,
}

impl Default for Cover {
    fn default() -> Self {
        Self {
            runs: [(0, 0)].into(),
            gaps: [0].into(),
        }
    }
}

impl Cover {
    fn change(&mut self, region: Region, by: impl Fn(u32) -> u32) {
        let (offset, end) = (region.offset, end(&region));
        self.part(offset);
        self.part(end);
        for (start, regions) in self.runs.range_mut(offset..end) {
            *regions = by(*regions);
            if *regions == 0 {
                self.gaps.insert(*start);
            } else {
                self.gaps.remove(start);
            }
        }
        self.join(end);
        self.join(offset);
    }

    /// Makes a run begin here.
    fn part(&mut self, start: u32) {
        let Some((_, regions)) = self.runs.range(..=start).next_back() else {
            return;
        };
        let regions = *regions;
        self.runs.insert(start, regions);
        if regions == 0 {
            self.gaps.insert(start);
        }
    }

    /// Makes one run of those that meet here, if they are alike.
    fn join(&mut self, start: u32) {
        let before = self.runs.range(..start).next_back();
        if before.is_some_and(|(_, regions)| self.runs.get(&start) == Some(regions)) {
            self.runs.remove(&start);
            self.gaps.remove(&start);
        }
    }

    /// What no region covers, in order.
    fn gaps(&self) -> impl Iterator<Item = Region> {
        self.gaps.iter().map(|start| {
            let behind = (Bound::Excluded(start), Bound::Unbounded);
            let next = self.runs.range(behind).next();
            let end = next.map_or(u32::MAX, |(end, _)| *end);
            Region {
                offset: *start,
                len: end - start,
            }
        })
    }
}

const fn end(region: &Region) -> u32 {
    region.offset.saturating_add(region.len)
}

/// The gaps between the regions in use.
#[derive(Clone, Debug)]
pub(super) struct Regions {
    /// Disjoint, ordered by offset.
    gaps: Vec<Region>,
}

impl Regions {
    /// What lies below `capacity` and is neither named nor retired.
    pub(super) fn new(capacity: u32, named: &NamedRegions, retired: &BTreeSet<Region>) -> Self {
        let mut gaps = Vec::new();
        let mut keep = |from: u32, to: u32| {
            if from < to {
                let (offset, len) = (from, to - from);
                gaps.push(Region { offset, len });
            }
        };
        let mut retired = retired.iter().peekable();
        let mut free_from = 0;
        for gap in named.cover.gaps() {
            let gap_end = end(&gap).min(capacity);
            free_from = gap.offset.max(free_from);
            while let Some(region) = retired.next_if(|region| region.offset < gap_end) {
                keep(free_from, region.offset);
                free_from = free_from.max(end(region));
            }
            keep(free_from, gap_end);
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
    use proptest::prelude::*;

    use super::*;

    const fn region(offset: u32, len: u32) -> Region {
        Region { offset, len }
    }

    fn named(regions: &[Region]) -> NamedRegions {
        let mut named = NamedRegions::default();
        regions.iter().for_each(|region| named.add(*region));
        named
    }

    fn regions(capacity: u32, used: &[Region]) -> Regions {
        Regions::new(capacity, &named(used), &BTreeSet::new())
    }

    /// It makes no difference whether regions are named or retired.
    #[track_caller]
    fn check(capacity: u32, used: &[Region], wanted: u32, want: Option<Region>) {
        for split in 0..=used.len() {
            let (used, retired) = used.split_at(split);
            let retired = retired.iter().copied().collect();
            let mut regions = Regions::new(capacity, &named(used), &retired);
            assert_eq!(regions.allocate(wanted), want, "{retired:?}");
        }
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
        let mut regions = regions(100, &[region(30, 5)]);
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

    const CAPACITY: u32 = 60;

    fn any_region() -> impl Strategy<Value = Region> {
        let len = prop_oneof![9 => 1..25_u32, 1 => Just(u32::MAX)];
        (0..70_u32, len).prop_map(|(offset, len)| region(offset, len))
    }

    proptest! {
        /// Regions that overlap, and that several entries name.
        #[test]
        fn what_is_kept_up_is_what_is_made_anew(
            came in prop::collection::vec(any_region(), 0..12),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            retired in prop::collection::btree_set(any_region(), 0..3),
        ) {
            let mut left = came;
            let mut kept_up = named(&left);
            for gone in gone {
                if !left.is_empty() {
                    kept_up.remove(left.swap_remove(gone.index(left.len())));
                }
            }
            prop_assert_eq!(&kept_up, &named(&left));
            let sizes = left.iter().map(|region| region.len);
            prop_assert_eq!(kept_up.largest(), sizes.max().unwrap_or(0));
            let found = Regions::new(CAPACITY, &kept_up, &retired);
            let is_free = |slot: &u32| {
                let mut used = left.iter().chain(&retired);
                !used.any(|used| (used.offset..end(used)).contains(slot))
            };
            let slots = found.gaps.iter().flat_map(|gap| gap.offset..end(gap));
            prop_assert!(slots.eq((0..CAPACITY).filter(is_free)));
            prop_assert!(found.gaps.windows(2).all(|gaps| end(&gaps[0]) < gaps[1].offset));
        }
    }
}
