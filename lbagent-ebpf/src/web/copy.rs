//! Bytes between a frame and memory outside of it, as many as only the packet tells. One of the places
//! that may hold `unsafe`.
//!
//! The verifier wants to see how many they are at most, so each length is masked on its way to the
//! helper, and the memory reaches as far as the mask.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_loop, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;
use lbagent_common::redirect::{Text, end_at};

use crate::packet::{Context, opaque};

/// A TCP header outside of the packet, with room for the longest one.
pub type Header = [u32; 16];
/// The header of a SYN that offers a maximum segment size, SACK, timestamps and a window scale.
const USUAL_LEN: u32 = 40;
/// An answer: twice the longest one, because sums are masked.
pub type Answer = [u64; 128];

/// What one sum takes at most.
pub const PART: u32 = 512;

/// The same number where it is from 1 to `LEN`.
#[inline(always)]
pub fn within<const LEN: u32>(len: u32) -> u32 {
    const { assert!(LEN.is_power_of_two()) };
    (opaque(len.wrapping_sub(1)) & (LEN - 1)) + 1
}

/// Reads up to [`Text::LONGEST`] bytes of a frame.
#[inline(always)]
pub fn load_text(ctx: &XdpContext, offset: usize, text: &mut Text, len: u32) -> bool {
    let to = text.words.as_mut_ptr().cast();
    // SAFETY: the helper checks the frame's end; a text is longer than 2048 bytes.
    (unsafe { bpf_xdp_load_bytes(ctx.ctx, offset as u32, to, within::<2048>(len)) }) == 0
}

/// Reads a TCP header.
#[inline(always)]
pub fn load_header(ctx: &XdpContext, offset: usize, header: &mut Header, len: u32) -> bool {
    // As long as nearly all clients' SYNs have it, without a call.
    if len == USUAL_LEN
        && let Some(words) = ctx.load::<[u32; USUAL_LEN as usize / 4]>(offset)
    {
        for (place, word) in header.iter_mut().zip(words) {
            *place = opaque(word);
        }
        return true;
    }
    let to = header.as_mut_ptr().cast();
    // SAFETY: as above; a header has 64 bytes.
    (unsafe { bpf_xdp_load_bytes(ctx.ctx, offset as u32, to, within::<64>(len)) }) == 0
}

/// Reads an answer back, and ends it with zeros.
#[inline(always)]
pub fn load_answer(ctx: &XdpContext, offset: usize, answer: &mut Answer, len: u32) -> bool {
    let to = answer.as_mut_ptr().cast();
    // SAFETY: as above; an answer has twice as many bytes.
    let result = unsafe { bpf_xdp_load_bytes(ctx.ctx, offset as u32, to, within::<PART>(len)) };
    end_at(answer, opaque(len));
    result == 0
}

/// Writes some bytes of a text, 1 to 512, to a frame.
#[inline(always)]
pub fn store_text(ctx: &XdpContext, offset: u32, text: &mut Text, at: u32, len: u32) -> bool {
    let start: *mut u8 = text.words.as_mut_ptr().cast();
    // SAFETY: as above; a text is 512 bytes longer than the mask of the place.
    unsafe {
        let from = start.add((opaque(at) & 2047) as usize);
        bpf_xdp_store_bytes(ctx.ctx, offset, from.cast(), within::<PART>(len)) == 0
    }
}

/// Writes the first `len` bytes of words that the program knows, through memory of its own: kernels
/// before 6.12 take no other for this helper.
#[inline(always)]
pub fn store_known<const WORDS: usize>(
    ctx: &XdpContext,
    offset: u32,
    known: &[u64; WORDS],
    len: u32,
    memory: &mut Answer,
) -> bool {
    for (place, word) in memory.iter_mut().zip(known) {
        *place = *word;
    }
    let from = memory.as_mut_ptr().cast();
    // SAFETY: the memory has more bytes than the mask.
    (unsafe { bpf_xdp_store_bytes(ctx.ctx, offset, from, within::<PART>(len)) }) == 0
}

/// Sum of the text's part with this number, of 512 bytes or what of them is before `len`, added to
/// another one. The bytes behind `len` are zeros.
#[inline(always)]
pub fn sum_text(text: &mut Text, part: u32, len: u32, seed: u32) -> Option<u32> {
    let start: *mut u8 = text.words.as_mut_ptr().cast();
    // SAFETY: the last of four parts begins 1024 bytes before the text's end.
    unsafe { sum(start.add((part * PART) as usize), len - part * PART, seed) }
}

/// Sum of an answer of this length.
#[inline(always)]
pub fn sum_answer(answer: &mut Answer, len: u32) -> Option<u32> {
    // SAFETY: an answer has 1024 bytes.
    unsafe { sum(answer.as_mut_ptr().cast(), len, 0) }
}

/// # Safety
///
/// 1024 bytes must be readable.
#[inline(always)]
unsafe fn sum(from: *mut u8, len: u32, seed: u32) -> Option<u32> {
    let len = if len > PART { PART } else { len };
    let len = opaque(len + 3) & 0x3fc;
    // SAFETY: as the caller says; without an old text the helper adds only.
    let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, from.cast(), len, seed) };
    u32::try_from(sum).ok()
}

/// Calls a function again and again, `most` times or until it returns 1.
#[inline(always)]
pub fn repeat(most: u32, step: extern "C" fn(u32, *mut c_void) -> u64) {
    // SAFETY: the function takes no pointer: it gets none.
    unsafe { bpf_loop(most, step as *mut c_void, ptr::null_mut(), 0) };
}
