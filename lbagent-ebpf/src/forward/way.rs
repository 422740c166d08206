//! The way to a backend: as the agent resolved it, else as the kernel's routing table says.

use lbagent_common::{BackendEntry, Outcome, Settings};

use crate::answer::too_big;
use crate::kernel::{self, Hop, Leg, Route};
use crate::maps;
use crate::outcome::{Packed, Stop};
use crate::packet::{Context, Packet};

/// [`to_backend`] for the modes in which the backend answers the client directly: whatever header
/// leaves in front, it comes from the gateway itself. A stack frame of its own, because the caller
/// holds what `nat` needs. [`Packed::ONWARDS`] when the hop is filled.
#[inline(never)]
pub fn around_nat<C: Context>(
    ctx: &C,
    packet: &Packet,
    backend: &BackendEntry,
    overhead: u32,
    hop: &mut Hop,
) -> Packed {
    let Some(settings) = maps::settings() else {
        return Packed::new(Err(Stop::Drop(Outcome::DropNotConfigured)));
    };
    let leg = Leg {
        source: &backend.source,
        destination: &backend.addr,
        overhead: overhead as u16,
    };
    match to_backend(ctx, packet, settings, backend, &leg, hop) {
        Ok(()) => Packed::ONWARDS,
        Err(stop) => Packed::new(Err(stop)),
    }
}

/// Finds the way of a packet that leaves with this source address and `overhead` more bytes. A
/// packet that is too large for it may have become an answer.
#[inline(always)]
pub fn to_backend<C: Context>(
    ctx: &C,
    packet: &Packet,
    settings: &Settings,
    backend: &BackendEntry,
    leg: &Leg<'_>,
    hop: &mut Hop,
) -> Result<(), Stop> {
    let is_tagged_alike = backend.vlan == 0 || u32::from(backend.vlan) == packet.vlan;
    let is_known = backend.has_next_hop() && is_tagged_alike;
    let route = if !is_known || kernel::tick() > settings.next_hops_until {
        kernel::route(ctx, packet, leg, hop)
    } else {
        *hop = Hop {
            ifindex: backend.ifindex,
            link: backend.link,
            is_direct: 1,
            mtu: 0,
        };
        Route::Out
    };
    if hop.mtu == 0 {
        hop.mtu = u32::from(backend.mtu);
    }
    let overhead = u32::from(leg.overhead);
    let is_too_big = |mtu| ctx.segment_len(packet) + overhead > mtu;
    match route {
        Route::Out if hop.mtu == 0 || !is_too_big(hop.mtu) => {}
        Route::Out | Route::TooBig => {
            let mtu = hop.mtu.saturating_sub(overhead);
            return Err(too_big::stop(ctx, packet, mtu));
        }
        Route::Local | Route::None => return Err(Stop::Drop(Outcome::DropNoRoute)),
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
