//! Restores the packet, picks a flow, runs the program under test.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_store_bytes,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::programs::XdpContext;

use crate::layout;

#[map]
static CASE: Array<[u64; layout::CASE_WORDS]> = Array::with_max_entries(1, 0);
#[map]
static TARGETS: ProgramArray = ProgramArray::with_max_entries(layout::TARGET_COUNT, 0);
/// State of the generator that picks flows.
#[map]
static GENERATOR: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Knuth's MMIX linear congruential generator: full period, so that its lower 32 bits run through
/// every value before one comes again.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;

/// The whole frame, for programs that answer with another one.
#[map]
static WHOLE: Array<[u64; layout::WHOLE_WORDS]> = Array::with_max_entries(1, 0);

/// An odd number (2^32 over the golden ratio): multiplication by it maps flows one to one to
/// scattered client addresses and ports.
const SCATTER: u32 = 0x9e37_79b1;

/// Restores `WORDS` words of headers, writes a flow into the two lowest bytes of the source
/// address at `ADDRESS` and the source port at `PORT`, and tail-calls the program under test.
#[inline(always)]
pub fn run<const WORDS: usize, const ADDRESS: usize, const PORT: usize>(ctx: &XdpContext) -> u32 {
    let Some(target) = restore::<WORDS, ADDRESS, PORT>(ctx) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the program under test takes the same context. The call returns only when there is
    // no such program, which the runner takes for a failure.
    unsafe { TARGETS.tail_call(ctx, target) };
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn restore<const WORDS: usize, const ADDRESS: usize, const PORT: usize>(
    ctx: &XdpContext,
) -> Option<u32> {
    let case = CASE.get(0)?;
    // The verifier refuses the difference of packet pointers once the compiler has reordered it.
    // SAFETY: the helper reads the context only.
    let current = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    let surplus = current as i64 - case[layout::LENGTH] as i64;
    // Also by 0 bytes, so that every program pays the harness alike: what encapsulates is compared
    // with what does not.
    // SAFETY: the helper checks that the new start lies within the buffer.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, surplus as i32) } != 0 {
        return None;
    }
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + WORDS * size_of::<u64>() > end {
        return None;
    }
    let words = start as *mut u64;
    for index in 0..WORDS {
        // SAFETY: `end` was checked above for all words, and test runs start frames at a multiple
        // of 8 bytes, to which the line above has brought the start back.
        unsafe { words.add(index).write(case[layout::FRAME + index]) };
    }
    let flow = next_flow(case)?.wrapping_mul(SCATTER);
    // SAFETY: both offsets are even and below `WORDS * 8`, which was checked against the end.
    unsafe {
        ((start + ADDRESS) as *mut u16).write((flow >> 16) as u16);
        ((start + PORT) as *mut u16).write(flow as u16);
    }
    Some(case[layout::TARGET] as u32)
}

/// As [`run`], but restores the frame to its end, and its length by the end. Where there is one flow
/// only, the frame is as it was written.
#[inline(always)]
pub fn run_whole<const ADDRESS: usize, const PORT: usize>(ctx: &XdpContext) -> u32 {
    let Some(target) = restore_whole::<ADDRESS, PORT>(ctx) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: as in `run`.
    unsafe { TARGETS.tail_call(ctx, target) };
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn restore_whole<const ADDRESS: usize, const PORT: usize>(ctx: &XdpContext) -> Option<u32> {
    const MASK: u32 = (layout::WHOLE_WORDS * size_of::<u64>()) as u32 - 1;
    let case = CASE.get(0)?;
    let frame = WHOLE.get_ptr_mut(0)?;
    // SAFETY: as in `restore`.
    let current = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    let len = case[layout::LENGTH] as u32;
    // One byte less and the mask, because the verifier wants to see that there is something to copy.
    let less = len.wrapping_sub(1);
    // SAFETY: the helpers check that the end lies within the buffer, and what is written within the
    // frame; the map's value is longer than the mask.
    let result = unsafe {
        bpf_xdp_adjust_tail(ctx.ctx, len.wrapping_sub(current as u32) as i32)
            | bpf_xdp_store_bytes(ctx.ctx, 0, frame.cast(), (less & MASK) + 1)
    };
    if result != 0 {
        return None;
    }
    let flow = next_flow(case)?.wrapping_mul(SCATTER);
    let (start, end) = (ctx.data(), ctx.data_end());
    if case[layout::FLOW_MASK] != 0 {
        if start + PORT + 2 > end {
            return None;
        }
        // SAFETY: both offsets are even, and the higher one was checked against the end.
        unsafe {
            ((start + ADDRESS) as *mut u16).write((flow >> 16) as u16);
            ((start + PORT) as *mut u16).write(flow as u16);
        }
    }
    Some(case[layout::TARGET] as u32)
}

#[inline(always)]
fn next_flow(case: &[u64; layout::CASE_WORDS]) -> Option<u32> {
    let state = GENERATOR.get_ptr_mut(0)?;
    // SAFETY: the value is this CPU's own, and the runner starts one test run at a time.
    let next = unsafe {
        *state = (*state).wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        *state
    };
    Some((next >> (case[layout::FLOW_SHIFT] & 63)) as u32 & case[layout::FLOW_MASK] as u32)
}
