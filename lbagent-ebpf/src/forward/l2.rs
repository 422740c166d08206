//! Forwarding mode `dsr-l2`: the frame goes to the backend as it is, from link address to link
//! address. The IP packet stays as the client sent it, TTL included.

use lbagent_common::{BackendEntry, Outcome};

use crate::kernel::Hop;
use crate::outcome::{Egress, Stop};
use crate::packet::{Context, Packet};

/// Whether the packet can go to this backend; it gets no longer.
#[inline(always)]
pub fn check(packet: &Packet, backend: &BackendEntry) -> Result<u32, Stop> {
    // As in `nat`.
    if backend.addr.is_v4() != packet.destination.is_v4() {
        return Err(Stop::Drop(Outcome::DropNoBackend));
    }
    // A router would send the packet, which is still for the VIP, back to the gateway.
    if !backend.shares_link() {
        return Err(Stop::Drop(Outcome::DropNoRoute));
    }
    Ok(0)
}

/// Sends a packet over the link that gateway and backend share.
#[inline(always)]
pub fn send<C: Context>(ctx: &C, hop: &Hop) -> Result<Egress, Stop> {
    // The kernel can't help with the link address: for it the packet is the host's own, or one for
    // the router that the VIP's route names.
    if !hop.is_direct() {
        return Err(Stop::Drop(Outcome::DropNoRoute));
    }
    ctx.store_link_addresses(hop.link)
        .ok_or(Stop::Drop(Outcome::DropRewrite))?;
    Ok(hop.egress(ctx))
}
