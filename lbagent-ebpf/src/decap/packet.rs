//! Bounds-checked access to a packet, and the helpers that change one. All packet-pointer `unsafe`
//! of these programs is here.
//!
//! Every access computes its pointer from the start again and compares it with the end, so no
//! pointer outlives a call that may move the data.

use core::ptr;

use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_skb_store_bytes, bpf_xdp_adjust_head, bpf_xdp_get_buff_len,
};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Where a packet lies.
pub trait Bytes {
    /// Address of the first byte.
    fn start(&self) -> usize;
    /// Address behind the last byte that can be accessed.
    fn end(&self) -> usize;

    /// A pointer to a `T` at an offset, if it lies within the packet. The compiler makes `<` of the
    /// comparison for a single byte, from which the verifier learns nothing: at an offset that is
    /// not constant read two.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let pointer = self.start() + offset;
        if pointer + size_of::<T>() > self.end() {
            return None;
        }
        Some(pointer as *mut T)
    }

    /// Reads an integer, or an array of them, as it lies on the wire.
    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let pointer = self.at::<T>(offset)?;
        // SAFETY: `at` checked both ends, `Wire` types have no invalid bit pattern. Packet data
        // may be odd-aligned; the BPF instruction set defines such loads, and the verifier
        // refuses them on machines that cannot do them. Volatile, because of a plain copy the
        // compiler would make a call of `memmove`, which goes byte by byte.
        Some(unsafe { pointer.read_volatile() })
    }

    /// Writes what [`read`](Self::read) reads.
    #[inline(always)]
    fn write<T: Wire>(&self, offset: usize, value: T) -> Option<()> {
        let pointer = self.at::<T>(offset)?;
        // SAFETY: as for `read`; the programs own the packet while they run.
        unsafe { pointer.write(value) };
        Some(())
    }
}

impl Bytes for XdpContext {
    #[inline(always)]
    fn start(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.data_end()
    }
}

/// Volatile, because the compiler would otherwise keep both across branches in 32-bit registers,
/// where the verifier forgets that they are pointers.
impl Bytes for TcContext {
    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the context is valid while the program runs; the verifier checks the field.
        (unsafe { ptr::read_volatile(&raw const (*self.skb.skb).data) }) as usize
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above.
        (unsafe { ptr::read_volatile(&raw const (*self.skb.skb).data_end) }) as usize
    }
}

/// Types that any bytes are a valid value of.
///
/// # Safety
///
/// Every bit pattern must be valid and there must be no padding.
pub unsafe trait Wire: Copy {}

// SAFETY: integers and arrays of integers.
unsafe impl Wire for u8 {}
// SAFETY: as above.
unsafe impl Wire for u16 {}
// SAFETY: as above.
unsafe impl Wire for u32 {}
// SAFETY: as above.
unsafe impl Wire for [u8; 2] {}
// SAFETY: as above.
unsafe impl Wire for [u32; 3] {}
// SAFETY: as above.
unsafe impl Wire for [u32; 4] {}

/// Length of the packet, parts that cannot be accessed included.
#[inline(always)]
pub fn len(ctx: &XdpContext) -> u64 {
    // SAFETY: the helper reads the program's own context.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) }
}

/// Takes bytes off the front.
#[inline(always)]
pub fn shrink(ctx: &XdpContext, bytes: usize) -> Option<()> {
    // SAFETY: the helper checks that so many bytes are there.
    let result = unsafe { bpf_xdp_adjust_head(ctx.ctx, bytes as i32) };
    (result == 0).then_some(())
}

/// Makes the bytes before `end` accessible, if the packet is that long.
#[inline(always)]
pub fn ensure(ctx: &TcContext, end: usize) -> Option<()> {
    if ctx.start() + end > ctx.end() {
        ctx.pull_data(end as u32).ok()?;
    }
    (ctx.start() + end <= ctx.end()).then_some(())
}

/// Writes a 16-bit field of an outgoing packet, and what it changes in a transport checksum,
/// complete or partial. `old` and `new` are wire words.
#[inline(always)]
pub fn replace_half(
    ctx: &TcContext,
    offset: usize,
    check_offset: usize,
    [old, new]: [u16; 2],
    is_odd: bool,
) -> Option<()> {
    let skb = ctx.skb.skb.cast();
    // A field at an odd place counts with its bytes swapped.
    let word = |value: u16| u64::from(if is_odd { value.swap_bytes() } else { value });
    // SAFETY: the helper checks the offset; size 2 says that both are 16-bit words. Without the
    // flag for pseudo-headers a partial checksum is left alone, as it does not cover options yet.
    let updated = unsafe { bpf_l4_csum_replace(skb, check_offset as u32, word(old), word(new), 2) };
    if updated != 0 {
        return None;
    }
    let bytes = (&raw const new).cast();
    // SAFETY: the helper checks the offset and reads the two bytes of `new`.
    let stored = unsafe { bpf_skb_store_bytes(skb, offset as u32, bytes, 2, 0) };
    (stored == 0).then_some(())
}
