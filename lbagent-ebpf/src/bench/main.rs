//! Programs of `cargo xtask bench datapath`: a harness that restores the packet before each run of
//! the program under test, and floor programs that show what the least work costs.
//!
//! `BPF_PROG_TEST_RUN` with a repeat count hands a program its own output. So the harness is what
//! is repeated: it makes the frame anew, picks one of N flows and tail-calls the program under
//! test, whose result becomes the harness's.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(
    missing_docs,
    reason = "aya's macros make a second, undocumented function of each program"
)]

mod floors;
mod harness;
mod layout;
mod live;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Restores an IPv4 frame and runs the program under test.
#[xdp]
pub fn harness_v4(ctx: XdpContext) -> u32 {
    harness::run::<{ layout::FRAME_WORDS_V4 }, 28, 34>(&ctx)
}

/// Restores an IPv6 frame and runs the program under test.
#[xdp]
pub fn harness_v6(ctx: XdpContext) -> u32 {
    harness::run::<{ layout::FRAME_WORDS_V6 }, 36, 54>(&ctx)
}

/// The least that a program can do.
#[xdp]
pub fn floor_tx(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// The unit of every ratio: parse, look one VIP up, encapsulate, send.
#[xdp]
pub fn floor_ref(ctx: XdpContext) -> u32 {
    floors::encapsulate_to_vip(&ctx).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

/// A balancer without memory of flows: VIP, table, backend, encapsulate, send.
#[xdp]
pub fn floor_stateless(ctx: XdpContext) -> u32 {
    floors::encapsulate_to_backend(&ctx).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

/// Restores an IPv4 frame to its end and runs the program under test.
#[xdp]
pub fn harness_whole_v4(ctx: XdpContext) -> u32 {
    harness::run_whole::<28, 34>(&ctx)
}

/// Restores an IPv6 frame to its end and runs the program under test.
#[xdp]
pub fn harness_whole_v6(ctx: XdpContext) -> u32 {
    harness::run_whole::<36, 54>(&ctx)
}

/// Lets a veth peer deliver what `XDP_TX` and `XDP_REDIRECT` send to it.
#[xdp]
pub fn xdp_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Makes the next frame of `cargo xtask bench traffic` and sends it out of the test run's device.
#[xdp]
pub fn live_generator(ctx: XdpContext) -> u32 {
    live::generate(&ctx).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

/// Counts and drops the frames of `live_generator`, whatever has become of them.
#[xdp]
pub fn live_sink(ctx: XdpContext) -> u32 {
    live::count(&ctx).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Sends every frame on as it is: what devices and redirection cost.
#[xdp]
pub fn live_forward(_ctx: XdpContext) -> u32 {
    live::forward().unwrap_or(xdp_action::XDP_ABORTED)
}

/// The kernel reads the licence to decide which helpers the programs may call.
#[cfg(target_arch = "bpf")]
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Lets `cargo check` of the workspace read this crate without the BPF toolchain.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
/// Lets `cargo check` of the workspace read this crate without the BPF toolchain.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
