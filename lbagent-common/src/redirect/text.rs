//! The beginning of a connection, as it is read.

/// What a client's first segment carries, in words, so that what is written is written fast.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// Bytes in the order of the wire.
    pub words: [u64; Self::WORDS],
}

impl Text {
    /// The most that is read of a segment, in bytes.
    pub const LONGEST: u32 = 2032;
    /// A power of two of them, and what a checksum of any part may reach beyond.
    const WORDS: usize = 320;
    const MASK: u32 = 255;

    /// Without a byte.
    pub const EMPTY: Self = Self {
        words: [0; Self::WORDS],
    };

    /// For tests and tools: the first [`LONGEST`](Self::LONGEST) bytes of these.
    pub fn of(bytes: &[u8]) -> Self {
        let mut text = Self::EMPTY;
        let bytes = bytes.iter().take(Self::LONGEST as usize);
        for (at, byte) in bytes.enumerate() {
            text.words[at / 8] |= u64::from(*byte) << (at % 8 * 8);
        }
        text.words = text.words.map(u64::to_le);
        text
    }

    /// Makes the bytes behind the first `len` zeros, as many as the reader may look at.
    #[inline(always)]
    pub fn end_at(&mut self, len: u32) {
        end_at(&mut self.words, len);
        self.words[(len >> 3 & Self::MASK) as usize + 1] = 0;
    }

    /// One byte.
    #[inline(always)]
    pub fn byte(&self, at: u32) -> u8 {
        self.eight(at) as u8
    }

    /// Eight bytes, the first one lowest.
    #[inline(always)]
    pub fn eight(&self, at: u32) -> u64 {
        const MASK: u32 = Text::MASK << 3 | 7;
        let start: *const u8 = self.words.as_ptr().cast();
        // SAFETY: the mask is 2047, and a text has 512 bytes more than that.
        u64::from_le(unsafe { unaligned(start.add((at & MASK) as usize)) })
    }
}

/// Loads eight bytes from wherever they are.
///
/// # Safety
///
/// They must be readable.
#[inline(always)]
unsafe fn unaligned(from: *const u8) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        // The compiler would load byte by byte. The instruction set defines such loads, and the verifier
        // refuses them on machines that cannot do them.
        let value: u64;
        // SAFETY: as the caller says.
        unsafe {
            core::arch::asm!(
                "{value} = *(u64 *)({from} + 0)",
                value = out(reg) value,
                from = in(reg) from,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        // SAFETY: as the caller says.
        unsafe { from.cast::<u64>().read_unaligned() }
    }
}

/// Makes the bytes zeros that share a word with the last of `len` bytes and are behind it, or those of
/// the next word. Words beyond the first 256 are left alone.
#[inline(always)]
pub fn end_at<const WORDS: usize>(words: &mut [u64; WORDS], len: u32) {
    let kept = u64::MAX << ((len & 7) * 8);
    if let Some(word) = words.get_mut((len >> 3 & Text::MASK) as usize) {
        *word = (u64::from_le(*word) & !kept).to_le();
    }
}
