//! Programs for backends without a tunnel device (direct server return): one takes the gateway's
//! outer header off, the other keeps clients from sending segments that would not fit with it.
//!
//! Do no harm: a packet that is not plainly an encapsulated packet for a VIP of this host passes as
//! it came. At most one outer header is taken off.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(
    missing_docs,
    reason = "aya's macros make a second, undocumented function of each program"
)]

mod clamp;
mod maps;
mod packet;
mod strip;
mod tunnel;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use lbagent_common::decap::DecapOutcome;

/// Takes the outer header off packets for VIPs. With `frags`, so that interfaces with jumbo frames
/// take it too.
#[xdp(frags)]
pub fn lb_decap(ctx: XdpContext) -> u32 {
    let bytes = packet::len(&ctx);
    let outcome = decapsulate(&ctx);
    maps::count(outcome, bytes);
    match outcome {
        DecapOutcome::DecapIpip
        | DecapOutcome::DecapGue
        | DecapOutcome::PassForeign
        | DecapOutcome::PassFragment
        | DecapOutcome::PassOtherHost
        | DecapOutcome::PassTruncated
        | DecapOutcome::PassGueUnknown
        | DecapOutcome::PassNotIp
        | DecapOutcome::PassNotVip
        | DecapOutcome::ClampLowered
        | DecapOutcome::ClampKept
        | DecapOutcome::ClampForeign => xdp_action::XDP_PASS,
        DecapOutcome::DropCongestion | DecapOutcome::DropFailed => xdp_action::XDP_DROP,
    }
}

/// Lowers the MSS of outgoing SYNs and SYN-ACKs of VIPs.
#[classifier]
pub fn lb_clamp(ctx: TcContext) -> i32 {
    maps::count(clamp::clamp(&ctx), u64::from(ctx.len()));
    // Other programs of the interface still see the packet.
    TC_ACT_UNSPEC
}

#[inline(always)]
fn decapsulate(ctx: &XdpContext) -> DecapOutcome {
    let tunnel = match tunnel::parse(ctx) {
        Ok(tunnel) => tunnel,
        Err(outcome) => return outcome,
    };
    match strip::strip(ctx, &tunnel) {
        Ok(()) if tunnel.is_gue => DecapOutcome::DecapGue,
        Ok(()) => DecapOutcome::DecapIpip,
        Err(outcome) => outcome,
    }
}

/// The kernel reads the licence to decide which helpers the programs may call.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Lets `cargo check` of the workspace read this crate without the BPF toolchain.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
