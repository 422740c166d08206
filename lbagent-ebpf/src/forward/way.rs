//! The way to a backend: as the agent resolved it, else as the kernel's routing table says.

use lbagent_common::{Addr, BackendEntry, Outcome, Settings};

use crate::kernel::{self, Hop, Route};
use crate::outcome::Stop;
use crate::packet::{Context, Packet};

/// Finds the way of a packet that leaves with this source address; `hop` says how much longer. A
/// packet that is too large for it may have become an answer.
#[inline(always)]
pub fn to_backend<C: Context>(
    ctx: &C,
    packet: &Packet,
    settings: &Settings,
    backend: &BackendEntry,
    source: &Addr,
    hop: &mut Hop,
) -> Result<(), Stop> {
    let route = if !backend.has_next_hop() || kernel::tick() > settings.next_hops_until {
        ctx.route(packet, source, &backend.addr, hop)
    } else {
        hop.ifindex = backend.ifindex;
        hop.link = backend.link;
        hop.direct = Hop::DIRECT | u32::from(backend.vlan);
        hop.mtu = 0;
        Route::Out
    };
    if hop.mtu == 0 {
        hop.mtu = u32::from(backend.mtu);
    }
    let overhead = hop.overhead;
    let is_too_big = |mtu| ctx.segment_len(packet) + overhead > mtu;
    match route {
        Route::Out if hop.mtu == 0 || !is_too_big(hop.mtu) => {}
        // In TC the packets are those of backends, whose super-packets devices cut up.
        Route::Out | Route::TooBig if !C::REDIRECTS_BY_XDP => {
            return Err(Stop::Drop(Outcome::DropTooBig));
        }
        Route::Out | Route::TooBig => {
            let mtu = hop.mtu.saturating_sub(overhead);
            return ctx.answer_too_big(packet, mtu).onwards();
        }
        Route::Local | Route::None => return Err(Stop::Drop(Outcome::DropNoRoute)),
    }
    if !sends_itself(ctx, backend, hop.ifindex) {
        hop.direct = 0;
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
