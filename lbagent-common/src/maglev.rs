//! `SLOTS`: all Maglev tables, one after the other.

use crate::BackendId;

/// One slot: who owns it now and who did before. Size 8, alignment 8, so that a load or a store
/// is atomic and no packet sees a half-written slot.
///
/// * `current == previous`: the owner has not changed; no flow of this slot is stored.
/// * `previous` is another backend: flows from before the change belong to it.
/// * `previous == 0`: the former owner is gone, but flows of this slot may be stored.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Owner of new flows; 0 for none.
    pub current: BackendId,
    /// Owner before the last change.
    pub previous: BackendId,
}

impl Slot {
    /// A slot with one owner and no stored flows.
    #[inline(always)]
    pub const fn settled(owner: BackendId) -> Self {
        Self {
            current: owner,
            previous: owner,
        }
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

    /// Whether the tables alone tell the owner.
    #[inline(always)]
    pub const fn is_settled(self) -> bool {
        self.current == self.previous
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
