//! The way to a backend: as the agent resolved it, else as the kernel's routing table says.

use lbagent_common::BackendEntry;

use super::Target;
use crate::kernel::{self, Hop, Leg, Route};
use crate::packet::{Context, Packet};

/// Why there is no way.
#[derive(Clone, Copy)]
pub enum Obstacle {
    /// Larger than the way allows.
    TooBig,
    /// Nowhere, or the host itself.
    NoRoute,
}

/// Finds the way of a packet that leaves with this source address and `overhead` more bytes.
#[inline(always)]
pub fn to_backend<C: Context>(
    ctx: &C,
    packet: &Packet,
    target: &Target<'_>,
    leg: &Leg<'_>,
    hop: &mut Hop,
) -> Result<(), Obstacle> {
    let backend = target.backend;
    let is_tagged_alike = backend.vlan == 0 || u32::from(backend.vlan) == packet.vlan;
    let is_known = backend.has_next_hop() && is_tagged_alike;
    if !is_known || kernel::tick() > target.settings.next_hops_until {
        match kernel::route(ctx, packet, leg, hop) {
            Route::Out => {}
            Route::TooBig => return Err(Obstacle::TooBig),
            Route::Local | Route::None => return Err(Obstacle::NoRoute),
        }
    } else {
        let len = u32::from(ctx.mtu_len(packet)) + u32::from(leg.overhead);
        if backend.mtu != 0 && len > u32::from(backend.mtu) {
            return Err(Obstacle::TooBig);
        }
        *hop = Hop {
            ifindex: backend.ifindex,
            link: backend.link,
            is_direct: 1,
        };
    }
    // Tags are kept, so a frame for another VLAN is the kernel's to tag.
    if !sends_itself(ctx, backend, hop.ifindex) || C::REDIRECTS_BY_XDP && !is_tagged_alike {
        hop.is_direct = 0;
    }
    Ok(())
}

/// Whether the program can send the frame by this interface without the kernel's forwarding. The
/// entry tells it about its own interface only: where the routing table names another one (the
/// bridge of a port, say), nobody knows whether that one sends what is redirected to it.
#[inline(always)]
fn sends_itself<C: Context>(ctx: &C, backend: &BackendEntry, ifindex: u32) -> bool {
    let is_known_to_send = ifindex == backend.ifindex && !backend.is_via_kernel();
    !C::REDIRECTS_BY_XDP || is_known_to_send || ifindex == ctx.arrival_ifindex()
}
