//! What a request's host is looked up under.

use super::bytes::{first, lower_case};
use super::{Head, Text};
use crate::HostKey;

/// The names that a host is looked up under, as [`HostKey`]s in words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostNames {
    /// As it is.
    pub exact: [u64; Self::WORDS as usize],
    /// What a wildcard is stored as that stands for its first label; zeros for a name of one label.
    pub wildcard: [u64; Self::WORDS as usize],
}

impl HostNames {
    /// Words of a name.
    pub const WORDS: u32 = HostKey::MAX_LEN as u32 / 8;

    /// Makes all words this zero, which is one that the compiler does not know (see [`Head::begin`]).
    #[inline(always)]
    pub fn clear(&mut self, zero: u64) {
        // By index: verifiers do not see the end of what iterators go through.
        for index in 0..Self::WORDS as usize {
            self.exact[index] = zero;
            self.wildcard[index] = zero;
        }
    }
}

impl Head {
    /// Where the host name begins, as the client wrote it.
    #[inline(always)]
    pub const fn host_at(&self) -> u32 {
        self.host
    }

    /// How many bytes it has: at least one.
    #[inline(always)]
    pub const fn host_len(&self) -> u32 {
        self.host_end.wrapping_sub(self.host)
    }

    /// Where the target begins: with a slash.
    #[inline(always)]
    pub const fn target_at(&self) -> u32 {
        self.target
    }

    /// How many bytes it has.
    #[inline(always)]
    pub const fn target_len(&self) -> u32 {
        self.target_end.wrapping_sub(self.target)
    }

    /// How many of the names' words are to be filled in; the others stay zeros.
    #[inline(always)]
    pub const fn name_words(&self) -> u32 {
        if self.is_read() {
            (self.host_len() + 7) >> 3
        } else {
            0
        }
    }

    /// Fills in the names' words at an index, once the head is read. A call a word, for the verifier's
    /// sake.
    #[inline(always)]
    pub fn name(&mut self, text: &Text, names: &mut HostNames, index: u32) {
        const MASK: u32 = HostNames::WORDS - 1;
        // A dot at the end of a full name is no part of it.
        let has_end = text.byte(self.host_end.wrapping_sub(1)) == b'.';
        let end = self.host_end.wrapping_sub(u32::from(has_end));
        // Without a dot before its end the name has no parent.
        let dot = if self.dot == 0 { end } else { self.dot };
        let (place, bytes) = ((index & MASK) as usize, 8 * (index & MASK));
        names.exact[place] = word_of_name(text, self.host + bytes, end);
        names.wildcard[place] = word_of_name(text, dot + bytes, end);
        // An absolute target names the same host, letter for letter, so that there is no doubt.
        let count = left(self.host + bytes, self.host_end);
        let other = first(count, text.eight(self.authority + bytes));
        if other != first(count, text.eight(self.host + bytes)) {
            self.differs = 1;
        }
    }
}

/// How many of eight bytes are before an end.
#[inline(always)]
const fn left(at: u32, end: u32) -> u32 {
    match end.saturating_sub(at) {
        count @ 0..8 => count,
        _ => 8,
    }
}

/// Eight bytes of a name as a key has them: lower case, and zeros behind the end.
#[inline(always)]
fn word_of_name(text: &Text, at: u32, end: u32) -> u64 {
    lower_case(first(left(at, end), text.eight(at))).to_le()
}
