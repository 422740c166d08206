//! lbagent's BPF programs: entry points, and the one place where an outcome becomes an action.
//!
//! * `lb_ingress` (XDP, client-facing interfaces): clients' packets to VIPs go to backends.
//! * `lb_return` (TC ingress, backend-facing interfaces): backends' replies go back to clients,
//!   and packets to VIPs that start on the backend side are balanced too.
//! * `lb_steer` (socket lookup, network namespace): connections to terminated ports go to the
//!   terminator's listening socket.
//!
//! Read `pipeline.rs` next.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![expect(
    missing_docs,
    reason = "the entry-point macros generate functions without documentation"
)]

mod answer;
mod apart;
mod backend;
mod conntrack;
mod cookie;
mod counters;
mod events;
mod forward;
mod fragments;
mod icmp;
mod kernel;
mod maglev;
mod maps;
mod outcome;
mod packet;
mod pipeline;
mod policy;
mod quic;
mod restore;
mod sources;
mod steer;
mod vip;
mod web;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, sk_action, xdp_action};
use aya_ebpf::macros::{classifier, sk_lookup, xdp};
use aya_ebpf::programs::{SkLookupContext, TcContext, XdpContext};
use lbagent_common::{Outcome, Steered};

use crate::outcome::{Egress, Stop};
use crate::packet::{Context, Tags};

/// A client's packet, before the kernel has seen it.
#[xdp]
pub fn lb_ingress(ctx: XdpContext) -> u32 {
    let bytes = Context::len(&ctx);
    // Looked up once: even where a lookup is no call, six of them are a tenth of a packet's time.
    let Some(settings) = maps::settings() else {
        counters::outcome(Outcome::DropNotConfigured, bytes);
        return xdp_action::XDP_DROP;
    };
    let mut tags = Tags::none(bytes);
    tags.take_off(&ctx);
    events::arrived(&ctx, settings);
    const KEPT: u32 = Tags::KEPT;
    let (mut outcome, mut action, vlan) = match pipeline::from_client(&ctx, settings) {
        Ok(Egress::Transmit { vlan }) => (Outcome::ForwardTx, xdp_action::XDP_TX, vlan),
        Ok(Egress::Redirect { ifindex, vlan }) => {
            (Outcome::ForwardRedirect, kernel::redirect(ifindex), vlan)
        }
        // By its tags the kernel tells where it came in.
        Ok(Egress::Resolve(_)) => (Outcome::ForwardKernel, xdp_action::XDP_PASS, KEPT),
        Err(Stop::Pass(outcome)) => (outcome, xdp_action::XDP_PASS, KEPT),
        Err(Stop::Drop(Outcome::HoldFragment)) => {
            (hold(&ctx, &mut tags), xdp_action::XDP_DROP, KEPT)
        }
        Err(Stop::Drop(outcome)) => (outcome, xdp_action::XDP_DROP, KEPT),
        Err(Stop::Answer(outcome)) => (outcome, xdp_action::XDP_TX, KEPT),
    };
    if !tags.put_on(&ctx, vlan) {
        (outcome, action) = (Outcome::DropRewrite, xdp_action::XDP_DROP);
    }
    counters::outcome(outcome, bytes);
    events::ended(settings, outcome, action)
}

/// Hands a fragment to the agent as it came, tags included.
#[inline(always)]
fn hold(ctx: &XdpContext, tags: &mut Tags) -> Outcome {
    if !tags.put_on(ctx, Tags::KEPT) {
        return Outcome::DropRewrite;
    }
    let outcome = Outcome::from_index(fragments::lb_hold_fragment(ctx.ctx));
    outcome.unwrap_or(Outcome::DropFragment)
}

/// A packet from the backend side: a reply, a call to a VIP, or foreign traffic.
#[classifier]
pub fn lb_return(ctx: TcContext) -> i32 {
    let bytes = Context::len(&ctx);
    let Some(settings) = maps::settings() else {
        counters::outcome(Outcome::DropNotConfigured, bytes);
        return TC_ACT_SHOT;
    };
    let mut tags = Tags::none(bytes);
    tags.pop(&ctx);
    events::arrived(&ctx, settings);
    const KEPT: u32 = Tags::KEPT;
    let (mut outcome, mut action, vlan) = match pipeline::from_backend(&ctx, settings) {
        Ok((direction, Egress::Transmit { vlan })) => {
            let action = kernel::redirect(ctx.arrival_ifindex()) as i32;
            (direction.redirected(), action, vlan)
        }
        Ok((direction, Egress::Redirect { ifindex, vlan })) => {
            let action = kernel::redirect(ifindex) as i32;
            (direction.redirected(), action, vlan)
        }
        Ok((direction, Egress::Resolve(ifindex))) => {
            let action = kernel::redirect_resolving(ifindex);
            (direction.resolved(), action, 0)
        }
        // Not "accept", which would end the chain: other programs may want foreign packets too.
        Err(Stop::Pass(outcome)) => (outcome, TC_ACT_UNSPEC, KEPT),
        Err(Stop::Drop(outcome)) => (outcome, TC_ACT_SHOT, KEPT),
        Err(Stop::Answer(outcome)) => {
            let action = kernel::redirect(ctx.arrival_ifindex()) as i32;
            (outcome, action, KEPT)
        }
    };
    if !tags.push(&ctx, vlan) {
        (outcome, action) = (Outcome::DropRewrite, TC_ACT_SHOT);
    }
    counters::outcome(outcome, bytes);
    events::ended(settings, outcome, action as u32) as i32
}

/// A connection for which the kernel looks for a listening socket.
#[sk_lookup]
pub fn lb_steer(ctx: SkLookupContext) -> u32 {
    let Some(end) = steer::steer(&ctx) else {
        return sk_action::SK_PASS;
    };
    counters::steered(end);
    match end {
        // Without a socket the kernel looks for one as if there were no program.
        Steered::ToTerminator | Steered::MissedPassed | Steered::Refused => sk_action::SK_PASS,
        // Found nothing, says the kernel then, and answers with a reset.
        Steered::MissedReset => sk_action::SK_DROP,
    }
}

/// The kernel reads the licence to decide which helpers the programs may call.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Tells the agent, before it loads anything, whether this object is for it.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "lbagent")]
#[unsafe(no_mangle)]
static OBJECT_INFO: lbagent_common::ObjectInfo =
    lbagent_common::ObjectInfo::new(env!("CARGO_PKG_VERSION"));

/// Lets `cargo check` of the workspace read this crate without the BPF toolchain.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
