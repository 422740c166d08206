//! Incremental Internet checksums (RFC 1624, equation 3).
//!
//! One's-complement sums do not depend on byte order as long as every operand is loaded the same
//! way, so everything here works on wire words: network byte order, loaded without a swap.

use crate::Addr;

/// A sum of differences between old and new words, carries not yet folded in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference(u64);

impl Difference {
    /// Nothing changed.
    pub const NONE: Self = Self(0);

    /// Adds the replacement of one 32-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Adds the replacement of one 16-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Adds the replacement of one address by another.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, old: &Addr, new: &Addr) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (old.wire(), new.wire());
        self.word(a, e).word(b, f).word(c, g).word(d, h)
    }

    /// Adds a 32-bit word that was not there before.
    #[inline(always)]
    #[must_use]
    pub const fn added(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds another sum.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The sum as the kernel's helpers take it (`__wsum`: 32 bits, carries folded in).
    #[inline(always)]
    pub const fn wsum(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }

    /// The checksum of a header that consists of the [`added`](Self::added) words, its own field
    /// being zero among them.
    #[inline(always)]
    pub const fn whole(self) -> u16 {
        self.apply(!0)
    }

    /// The checksum field after the change.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        let sum = self.wsum() as u64 + !checksum as u64;
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }
}
