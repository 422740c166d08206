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
use crate::maglev;
use crate::outcome::{Egress, Stop};
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
    let overhead = dsr_overhead(packet, target.vip, target.backend)?;
    let mut hop = Hop::NONE;
    way::around_nat(ctx, packet, target.backend, overhead, &mut hop).onwards()?;
    send_dsr(ctx, packet, target, entropy(target.settings, packet), &hop)
}

/// In the modes in which the backend answers the client directly: how many bytes longer the packet
/// leaves, if it can be sent.
#[inline(always)]
pub fn dsr_overhead(packet: &Packet, vip: &VipEntry, backend: &BackendEntry) -> Result<u32, Stop> {
    match vip.forwarding_mode {
        VipEntry::MODE_DSR_L2 => l2::check(packet, backend),
        VipEntry::MODE_DSR_IPIP => encapsulate::overhead_of(backend, false),
        VipEntry::MODE_DSR_GUE => encapsulate::overhead_of(backend, true),
        _ => Err(Stop::Drop(Outcome::DropNotConfigured)),
    }
}

/// Bits of a flow's hash, for outer headers that have to differ between flows. Computed again,
/// because the stages that chose the backend have given their stack back.
#[inline(always)]
pub fn entropy(settings: &Settings, flow: &Packet) -> u32 {
    maglev::hash(settings, flow) as u32
}

/// Sends a packet in one of these modes, once the way is known.
#[inline(always)]
pub fn send_dsr<C: Context>(
    ctx: &C,
    packet: &Packet,
    target: &Target<'_>,
    entropy: u32,
    hop: &Hop,
) -> Result<Egress, Stop> {
    let Target { vip, backend, .. } = *target;
    match vip.forwarding_mode {
        VipEntry::MODE_DSR_L2 => l2::send(ctx, hop),
        VipEntry::MODE_DSR_IPIP => {
            encapsulate::send::<C, false>(ctx, packet, backend, entropy, hop)
        }
        VipEntry::MODE_DSR_GUE => encapsulate::send::<C, true>(ctx, packet, backend, entropy, hop),
        _ => Err(Stop::Drop(Outcome::DropNotConfigured)),
    }
}
