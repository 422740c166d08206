//! Fragments that the programs handed over because the first one of their datagram had not come.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use aya::programs::ProgramError;
use lbagent_common::{FragmentEntry, FragmentKey, HeldFragment, limits};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::read::tick;
use super::syscalls::run_live;
use super::test_run::words;
use super::typed_maps::{Table, failed, take_map};
use super::{DataplaneError, KernelDataplane, LoadError};

/// A fragment that waits for the first one of its datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFrame {
    /// Its datagram.
    pub key: FragmentKey,
    /// When it came, in ns of the monotonic clock.
    pub time_ns: u64,
    /// Interface that it came by.
    pub ifindex: u32,
    /// The whole frame, as it came.
    pub frame: Vec<u8>,
}

/// What the agent knows of fragments: those that wait, and whose first one has come. There is one
/// reader of the ring.
pub struct HeldMaps {
    ring: RingBuf<MapData>,
    decided: Table<FragmentKey, FragmentEntry>,
}

impl HeldMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        let ring = take_map(ebpf, limits::HELD)?;
        Ok(Self {
            ring: RingBuf::try_from(ring).map_err(failed(limits::HELD, "open"))?,
            decided: Table::take(ebpf, limits::FRAGMENTS, limits::MAX_FRAGMENTS)?,
        })
    }

    /// The oldest fragment that was not taken yet.
    pub fn pop(&mut self) -> Option<HeldFrame> {
        let item = self.ring.next()?;
        // SAFETY: the members are integers, whose every bit pattern is valid, without padding.
        let (_, records, _) = unsafe { item.align_to::<HeldFragment>() };
        let held = records.first()?;
        Some(HeldFrame {
            key: held.key,
            time_ns: held.time_ns,
            ifindex: held.ifindex,
            frame: held.frame.get(..held.len as usize)?.to_vec(),
        })
    }

    /// Whether the first fragment of a datagram has come, so that the programs know where later ones
    /// go.
    pub fn is_decided(&self, key: &FragmentKey) -> Result<bool, DataplaneError> {
        let found = self.decided.get(key)?;
        Ok(found.is_some_and(|entry| tick().saturating_sub(entry.seen) <= limits::FRAGMENT_TICKS))
    }
}

/// [`HeldMaps`] and the way back for what they hold.
pub struct HeldFragments {
    maps: HeldMaps,
    program: OwnedFd,
}

impl HeldFragments {
    /// As [`HeldMaps::pop`].
    pub fn pop(&mut self) -> Option<HeldFrame> {
        self.maps.pop()
    }

    /// As [`HeldMaps::is_decided`].
    pub fn is_decided(&self, key: &FragmentKey) -> Result<bool, DataplaneError> {
        self.maps.is_decided(key)
    }

    /// Runs `lb_ingress` on a frame once more, and does with it what the program says: as if it came
    /// in now by the interface that it came by.
    ///
    /// What the program sends, the kernel hands to the driver of the outgoing interface, as for
    /// frames of native XDP; the programs send to no interface that takes none from XDP.
    pub fn send(&mut self, held: &HeldFrame) -> io::Result<()> {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context = words([0, held.frame.len() as u32, 0, held.ifindex, 0, 0]);
        run_live(self.program.as_fd(), &held.frame, &context)
    }

    /// A descriptor that is readable while there is something to [`pop`](Self::pop).
    pub fn readiness(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let ring = self.maps.ring.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is open for as long as the value that owns it lives, and nobody can
        // replace what it refers to.
        let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(registered?)
    }
}

impl KernelDataplane {
    /// The fragments that wait. There is one reader, so only the first call yields it.
    pub fn held_fragments(&mut self) -> Result<Option<HeldFragments>, LoadError> {
        let Some(maps) = self.loaded.maps.held.take() else {
            return Ok(None);
        };
        let failed = |error: ProgramError| LoadError::Program {
            program: limits::PROGRAM_INGRESS,
            source: error.into(),
        };
        let program = self.ingress_program()?.fd().map_err(failed)?;
        // Of its own, because the data plane has a thread of its own.
        let program = program.as_fd().try_clone_to_owned();
        let program = program.map_err(|error| failed(error.into()))?;
        Ok(Some(HeldFragments { maps, program }))
    }
}

impl std::fmt::Debug for HeldFragments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldFragments").finish_non_exhaustive()
    }
}
