//! Stage 6: rewrite for the backend and send.

mod encapsulate;
mod gue;
mod ipip;
mod l2;
pub mod mss;
pub mod nat;
pub mod rewrite;
pub mod way;

use lbagent_common::{BackendEntry, BackendId, Outcome, Settings, VipEntry};

use crate::kernel::Hop;
use crate::maps;
use crate::outcome::{Egress, Packed, Stop};
use crate::packet::{Context, Packet};

/// Where a packet goes, and by which rules.
pub struct Target<'a> {
    /// Global settings.
    pub settings: &'a Settings,
    /// The published port.
    pub vip: &'a VipEntry,
    /// The backend.
    pub id: BackendId,
    /// Its entry.
    pub backend: &'a BackendEntry,
}

/// Sends a packet to its backend in its service group's forwarding mode.
#[inline(always)]
pub fn send<C: Context>(ctx: &C, packet: &Packet, target: &Target<'_>) -> Result<Egress, Stop> {
    if target.vip.forwarding_mode == VipEntry::MODE_NAT {
        return nat::send(ctx, packet, target);
    }
    let sent = ctx.send_around_nat(packet, target.vip, target.backend, packet);
    sent.result().unwrap_or(Err(NOT_CONFIGURED))
}

const NOT_CONFIGURED: Stop = Stop::Drop(Outcome::DropNotConfigured);

/// Sends a packet in one of the modes in which the backend answers the client directly: whatever
/// header leaves in front, it comes from the gateway itself. `flow` is the packet's own, unless the
/// packet is about another one's: all packets of a flow take one way.
#[inline(always)]
pub fn send_around_nat<C: Context>(
    ctx: &C,
    packet: &Packet,
    vip: &VipEntry,
    backend: &BackendEntry,
    flow: &Packet,
) -> Packed {
    Packed::new(send_dsr(ctx, packet, vip, backend, flow))
}

#[inline(always)]
fn send_dsr<C: Context>(
    ctx: &C,
    packet: &Packet,
    vip: &VipEntry,
    backend: &BackendEntry,
    flow: &Packet,
) -> Result<Egress, Stop> {
    let settings = maps::settings().ok_or(NOT_CONFIGURED)?;
    let mut hop = Hop::unknown(overhead(packet, vip, backend)?);
    way::to_backend(ctx, packet, settings, backend, &backend.source, &mut hop)?;
    if vip.forwarding_mode == VipEntry::MODE_DSR_L2 {
        return l2::send(ctx, &hop);
    }
    let is_udp = vip.forwarding_mode == VipEntry::MODE_DSR_GUE;
    encapsulate::send(ctx, packet, backend, is_udp, flow, &hop)
}

/// How many bytes longer the packet leaves, if it can be sent.
#[inline(always)]
fn overhead(packet: &Packet, vip: &VipEntry, backend: &BackendEntry) -> Result<u32, Stop> {
    match vip.forwarding_mode {
        VipEntry::MODE_DSR_L2 => l2::check(packet, backend),
        VipEntry::MODE_DSR_IPIP => encapsulate::overhead_of(backend, false),
        VipEntry::MODE_DSR_GUE => encapsulate::overhead_of(backend, true),
        _ => Err(NOT_CONFIGURED),
    }
}
