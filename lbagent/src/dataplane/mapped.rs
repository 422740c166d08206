//! The maps that are read and written as memory: no system call for an entry.

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::Map;
use lbagent_common::{BackendEntry, BackendId, ConnBucket, ConnEntry, Slot, limits};
use memmap2::{MmapOptions, MmapRaw};

use super::typed_maps::{mismatch, take_map};
use super::{DataplaneError, Region};

/// `CONNS`, mapped into memory.
pub struct Conns {
    memory: MmapRaw,
    buckets: u32,
}

impl Conns {
    pub(super) fn take(ebpf: &mut Ebpf, buckets: u32) -> Result<Self, DataplaneError> {
        let memory = map_memory(
            ebpf,
            limits::CONNS,
            buckets as usize * size_of::<ConnBucket>(),
        )?;
        Ok(Self { memory, buckets })
    }

    /// Number of buckets.
    pub const fn buckets(&self) -> u32 {
        self.buckets
    }

    /// The stored flow with this tag. Programs may be replacing it at this moment; a mixture has
    /// another tag.
    pub fn get(&self, tag: u64) -> Option<ConnEntry> {
        let bucket = self.bucket(tag as u32 & (self.buckets - 1))?;
        bucket
            .ways
            .into_iter()
            .find(|entry| entry.backend != 0 && entry.tag() == tag)
    }

    /// Every stored flow.
    pub fn entries(&self) -> impl Iterator<Item = ConnEntry> {
        (0..self.buckets)
            .filter_map(|index| self.bucket(index))
            .flat_map(|bucket| bucket.ways)
            .filter(|entry| entry.backend != 0)
    }

    /// Replaces a bucket; for tools that say when flows were last seen. Without effect beyond the
    /// end of the map.
    pub fn put_bucket(&mut self, index: u32, bucket: ConnBucket) {
        if index >= self.buckets {
            return;
        }
        // SAFETY: as in `bucket`.
        unsafe {
            let first = self.memory.as_mut_ptr().cast::<ConnBucket>();
            first.add(index as usize).write_volatile(bucket);
        }
    }

    /// The bucket that a flow with this tag may be in.
    pub fn bucket_of(&self, tag: u64) -> Option<ConnBucket> {
        self.bucket(tag as u32 & (self.buckets - 1))
    }

    /// A bucket; `None` beyond the end of the map.
    pub fn bucket(&self, index: u32) -> Option<ConnBucket> {
        if index >= self.buckets {
            return None;
        }
        // SAFETY: the mapping is page-aligned, `self.buckets` buckets long, and lives as long as
        // `self`; the index is below. Programs write while this reads, in aligned words: volatile,
        // and every bit pattern of a bucket's integers is valid.
        Some(unsafe {
            let first = self.memory.as_mut_ptr().cast::<ConnBucket>();
            first.add(index as usize).read_volatile()
        })
    }
}

/// `SLOTS`, mapped into memory: a slot is read and written with one 8-byte access, as the programs
/// do, and a table of 65537 slots costs no system call.
pub struct Slots {
    live: LiveSlots,
}

/// `SLOTS` for reading alone, for as long as anybody wants. Who reads a table while the agent writes
/// it sees some slots from before and some from after; the agent itself does one after the other.
#[derive(Clone)]
pub struct LiveSlots {
    memory: Arc<MmapRaw>,
    len: u32,
}

impl fmt::Debug for LiveSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSlots").field("len", &self.len).finish()
    }
}

/// Where tables can be read tells nothing of what is in them.
impl PartialEq for LiveSlots {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl LiveSlots {
    /// Whether a region lies inside of the map.
    fn holds(&self, region: Region) -> bool {
        region
            .offset
            .checked_add(region.len)
            .is_some_and(|end| end <= self.len)
    }

    /// The slots of a region; `None` if it does not lie inside of the map.
    pub fn read(&self, region: Region) -> Option<Vec<Slot>> {
        let cells = self.cells(region)?.iter();
        Some(
            cells
                .map(|cell| Slot::from_word(cell.load(Ordering::Acquire)))
                .collect(),
        )
    }

    fn cells(&self, region: Region) -> Option<&[AtomicU64]> {
        if !self.holds(region) {
            return None;
        }
        // SAFETY: the mapping is page-aligned, `self.len` times 8 bytes long, writable, and lives
        // as long as `self`; the region was found to lie inside of it. Everything else that
        // touches this memory, programs included, does so with whole 8-byte accesses.
        let cells = unsafe {
            let first = self.memory.as_mut_ptr().cast::<AtomicU64>();
            std::slice::from_raw_parts(first.add(region.offset as usize), region.len as usize)
        };
        Some(cells)
    }
}

impl Slots {
    pub(super) fn take(ebpf: &mut Ebpf, len: u32) -> Result<Self, DataplaneError> {
        let memory = map_memory(ebpf, limits::SLOTS, len as usize * size_of::<Slot>())?;
        let memory = Arc::new(memory);
        Ok(Self {
            live: LiveSlots { memory, len },
        })
    }

    /// For whoever only reads.
    pub fn live(&self) -> LiveSlots {
        self.live.clone()
    }

    /// Whether a region lies inside of the map.
    pub fn holds(&self, region: Region) -> bool {
        self.live.holds(region)
    }

    /// The slots of a region.
    pub fn read(&self, region: Region) -> Result<Vec<Slot>, DataplaneError> {
        self.live.read(region).ok_or_else(|| self.full())
    }

    /// Fills a region; slots beyond `slots` stay as they are.
    pub fn write(&mut self, region: Region, slots: &[Slot]) -> Result<(), DataplaneError> {
        if slots.len() != region.len as usize {
            return Err(mismatch(limits::SLOTS, "table and region differ in length"));
        }
        let cells = self.live.cells(region).ok_or_else(|| self.full())?;
        for (cell, slot) in cells.iter().zip(slots) {
            cell.store(slot.to_word(), Ordering::Release);
        }
        Ok(())
    }

    fn full(&self) -> DataplaneError {
        DataplaneError::MapFull {
            map: limits::SLOTS,
            capacity: self.live.len,
        }
    }
}

/// `BACKENDS`, mapped into memory.
pub struct Backends {
    memory: MmapRaw,
    len: u32,
}

impl Backends {
    pub(super) fn take(ebpf: &mut Ebpf, len: u32) -> Result<Self, DataplaneError> {
        let memory = map_memory(
            ebpf,
            limits::BACKENDS,
            len as usize * size_of::<BackendEntry>(),
        )?;
        Ok(Self { memory, len })
    }

    /// One entry, in use or not; `None` beyond the end of the map.
    pub fn get(&self, id: BackendId) -> Option<BackendEntry> {
        let cell = self.cell(id)?;
        // SAFETY: `cell` points to an entry inside of the mapping. Only this process writes
        // entries, and every bit pattern of an entry's integers is valid.
        Some(unsafe { cell.read_volatile() })
    }

    /// Entries in use, by id; 0 is no backend.
    pub fn used(&self) -> impl Iterator<Item = (BackendId, BackendEntry)> {
        self.used_in(1..self.len)
    }

    /// Those of some ids.
    pub(super) fn used_in(
        &self,
        ids: Range<BackendId>,
    ) -> impl Iterator<Item = (BackendId, BackendEntry)> {
        ids.take_while(|id| self.holds(*id))
            .filter_map(|id| Some((id, self.get(id)?)))
            .filter(|(_, entry)| entry.flags != 0)
    }

    /// Replaces an entry. A program may see half of it for one packet, as after a system call: the
    /// kernel copies an array's value in pieces too.
    pub fn put(&mut self, id: BackendId, entry: &BackendEntry) -> Result<(), DataplaneError> {
        let cell = self.cell(id).ok_or(DataplaneError::MapFull {
            map: limits::BACKENDS,
            capacity: self.len,
        })?;
        // SAFETY: `cell` points to an entry inside of the mapping, which is writable; `self` is
        // borrowed exclusively, and programs do not write entries.
        unsafe { cell.write_volatile(*entry) };
        Ok(())
    }

    /// Whether there can be a backend with this id.
    pub(super) const fn holds(&self, id: BackendId) -> bool {
        id < self.len
    }

    fn cell(&self, id: BackendId) -> Option<*mut BackendEntry> {
        let first = self.memory.as_mut_ptr().cast::<BackendEntry>();
        // The mapping is page-aligned and `self.len` entries long.
        self.holds(id).then(|| first.wrapping_add(id as usize))
    }
}

/// Maps an array into memory.
fn map_memory(ebpf: &mut Ebpf, name: &'static str, len: usize) -> Result<MmapRaw, DataplaneError> {
    let Map::Array(data) = take_map(ebpf, name)? else {
        return Err(mismatch(name, "not an array"));
    };
    MmapOptions::new()
        .len(len)
        .map_raw(data.fd().as_fd().as_raw_fd())
        .map_err(|error| DataplaneError::Map {
            map: name,
            operation: "mapping it into memory",
            source: error.into(),
        })
}
