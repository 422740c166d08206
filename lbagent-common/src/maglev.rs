//! `SLOTS`: all Maglev tables, one after the other.

use crate::BackendId;

/// One slot: who owns its new flows, and who owns its flows that are not stored. Size 8, alignment
/// 8, so that a load or a store is atomic and no packet sees a half-written slot.
///
/// * *Settled*: one owner for all flows, none of which is stored.
/// * *Changed*: the owner was replaced, once or more often. Since then every flow of the slot is
///   stored when it sends, so a flow without an entry is one of `previous`, however often the
///   owner changed in between. `previous` is 0 when that backend is gone. A changed slot is
///   *aged* when it was changed already at [`crate::VipEntry::changed_at`]: user space settles it
///   again when that is long enough ago, programs do not care.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Owner of new flows; 0 for none.
    pub current: BackendId,
    /// Owner of flows that are not stored, with [`CHANGED`](Self::CHANGED) and perhaps
    /// [`AGED`](Self::AGED) in a changed slot.
    previous: u32,
}

impl Slot {
    /// Marks a changed slot, also where both owners are the same: backend ids stay below.
    const CHANGED: u32 = 1 << 31;
    /// Marks a changed slot that is aged; backend ids stay below too.
    const AGED: u32 = 1 << 30;

    /// A slot with one owner and no stored flows.
    #[inline(always)]
    pub const fn settled(owner: BackendId) -> Self {
        Self {
            current: owner,
            previous: owner,
        }
    }

    /// A slot whose flows may be stored; `previous` owns those that are not.
    #[inline(always)]
    pub const fn changed(current: BackendId, previous: BackendId) -> Self {
        Self {
            current,
            previous: previous | Self::CHANGED,
        }
    }

    /// Owner of flows that are not stored; 0 when it is gone.
    #[inline(always)]
    pub const fn previous(self) -> BackendId {
        self.previous & !(Self::CHANGED | Self::AGED)
    }

    /// A changed slot as an aged one; a settled slot stays as it is.
    #[must_use]
    pub const fn aged(self) -> Self {
        if self.is_settled() {
            return self;
        }
        Self {
            current: self.current,
            previous: self.previous | Self::AGED,
        }
    }

    /// Whether this is a changed slot that is aged.
    pub const fn is_aged(self) -> bool {
        self.previous & Self::AGED != 0
    }

    /// Whether the tables alone tell the owner.
    #[inline(always)]
    pub const fn is_settled(self) -> bool {
        self.current == self.previous
    }

    /// The slot as one number, for loads and stores that must not tear.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        if cfg!(target_endian = "little") {
            (self.previous as u64) << 32 | self.current as u64
        } else {
            (self.current as u64) << 32 | self.previous as u64
        }
    }

    /// The slot from one number loaded from memory.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let (high, low) = ((word >> 32) as u32, word as u32);
        if cfg!(target_endian = "little") {
            Self {
                current: low,
                previous: high,
            }
        } else {
            Self {
                current: high,
                previous: low,
            }
        }
    }
}

/// Table sizes: primes, each about twice the one before.
pub const LADDER: [u32; 8] = [509, 1021, 2039, 4093, 8191, 16381, 32749, 65537];

/// The size of a table for `backends` owners: the first of [`LADDER`] with at least 100 slots for
/// each, so that a removal moves little and shares stay within one percent (Maglev, NSDI 2016,
/// section 5.3). Above 655 backends the largest size serves.
pub const fn table_len(backends: usize) -> u32 {
    let mut step = 0;
    while step < LADDER.len() - 1 && (LADDER[step] as usize) < backends.saturating_mul(100) {
        step += 1;
    }
    LADDER[step]
}
