//! Sampled packets: which are told, and what the data plane tells of them.

use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, RingBuf};
use lbagent_common::{EventDraft, FlowEvent, limits};

use super::DataplaneError;
use super::typed_maps::{failed, take_map};

/// Which packets are told to whoever watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// One in 2^(n-1); 0 is none.
    pub shift: u32,
    /// Bits by [`lbagent_common::Outcome`] index.
    pub outcomes: u64,
}

impl Sampling {
    /// Nothing is told.
    pub const OFF: Self = Self {
        shift: 0,
        outcomes: 0,
    };
    /// How long the programs go on sampling without hearing from the agent.
    pub const LEASE: Duration = Duration::from_secs(10);
    /// The same in the programs' ticks of 2^30 ns, rounded down.
    pub(super) const LEASE_TICKS: u32 = 9;
}

/// Takes events out of their ring, which has one reader.
pub struct EventReader {
    ring: RingBuf<MapData>,
    drafts: PerCpuArray<MapData, EventDraft>,
}

impl EventReader {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        let ring = take_map(ebpf, limits::EVENTS)?;
        let drafts = take_map(ebpf, limits::EVENT_DRAFTS)?;
        Ok(Self {
            ring: RingBuf::try_from(ring).map_err(failed(limits::EVENTS, "open"))?,
            drafts: PerCpuArray::try_from(drafts).map_err(failed(limits::EVENT_DRAFTS, "open"))?,
        })
    }

    /// The oldest event that was not taken yet.
    pub fn pop(&mut self) -> Option<FlowEvent> {
        let item = self.ring.next()?;
        let bytes: &[u8] = &item;
        if bytes.len() != size_of::<FlowEvent>() {
            return None;
        }
        // SAFETY: as many bytes as the type has, whose integers have no invalid bit pattern; they
        // need not be aligned.
        Some(unsafe { bytes.as_ptr().cast::<FlowEvent>().read_unaligned() })
    }

    /// Events for which the ring had no room, since the maps were made.
    pub fn lost(&self) -> Result<u64, DataplaneError> {
        let drafts = self.drafts.get(&0, 0);
        let drafts = drafts.map_err(failed(limits::EVENT_DRAFTS, "read"))?;
        Ok(drafts.iter().map(|draft| draft.lost).sum())
    }
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventReader").finish_non_exhaustive()
    }
}
