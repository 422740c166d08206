//! Forwarding mode `nat`: destination becomes the backend, the client's address stays.

use lbagent_common::Outcome;

use super::Target;
use super::rewrite::{self, Rewrite};
use super::way::{self, Obstacle};
use crate::kernel::{Hop, Leg};
use crate::outcome::{Egress, Stop};
use crate::packet::{Context, Packet};
use crate::sources;

/// Rewrites a packet for its backend and sends it.
#[inline(always)]
pub fn send<C: Context>(ctx: &C, packet: &Packet, target: &Target<'_>) -> Result<Egress, Stop> {
    if packet.ttl <= 1 {
        return Err(Stop::Pass(Outcome::PassTtl));
    }
    let (source, source_port) = sources::select(packet, target)?;
    let leg = Leg {
        source: &source,
        destination: &target.backend.addr,
        overhead: 0,
    };
    let mut hop = Hop::NONE;
    match way::to_backend(ctx, packet, target, &leg, &mut hop) {
        Ok(()) => {}
        Err(Obstacle::TooBig) => return Err(Stop::Drop(Outcome::DropTooBig)),
        Err(Obstacle::NoRoute) => return Err(Stop::Drop(Outcome::DropNoRoute)),
    }
    // The kernel would refuse to forward an IPv4 packet whose source is the gateway's own address:
    // fib_validate_source() in net/ipv4/fib_frontend.c. IPv6 has no such check.
    if C::REDIRECTS_BY_XDP
        && hop.is_direct == 0
        && packet.destination.is_v4()
        && source != packet.source
    {
        return Err(Stop::Drop(Outcome::DropNoSource));
    }
    let to = Rewrite {
        source,
        source_port,
        destination: target.backend.addr,
        destination_port: target.vip.destination_port,
    };
    rewrite::write(ctx, packet, &to, &hop).ok_or(Stop::Drop(Outcome::DropRewrite))?;
    Ok(hop.egress(ctx))
}
