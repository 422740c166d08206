//! Forwarding mode `nat`: destination becomes the backend, the client's address stays.

use lbagent_common::{Addr, FragmentEntry, Outcome};

use super::Target;
use super::rewrite::{self, Rewrite};
use super::way;
use crate::kernel::Hop;
use crate::outcome::{Egress, Stop};
use crate::packet::{Context, Packet};
use crate::sources;

/// Rewrites a packet for its backend and sends it.
#[inline(always)]
pub fn send<C: Context>(ctx: &C, packet: &Packet, target: &Target<'_>) -> Result<Egress, Stop> {
    // A flow that was stored while packets travelled inside others may be for an address of the
    // other family.
    if target.backend.addr.is_v4() != packet.destination.is_v4() {
        return Err(Stop::Drop(Outcome::DropNoBackend));
    }
    if packet.ttl <= 1 {
        return Err(Stop::Pass(Outcome::PassTtl));
    }
    let mut to = Rewrite {
        source: packet.source,
        source_port: packet.source_port,
        destination: target.backend.addr,
        destination_port: target.vip.destination_port,
    };
    sources::select(packet, target, &mut to)?;
    let mut hop = Hop::unknown(0);
    find_way(ctx, packet, target, &to.source, &mut hop)?;
    rewrite::write(ctx, packet, &to, &hop).ok_or(Stop::Drop(Outcome::DropRewrite))?;
    Ok(hop.egress(ctx))
}

/// Rewrites a later fragment as its first one was.
#[inline(always)]
pub fn send_later<C: Context>(
    ctx: &C,
    packet: &Packet,
    target: &Target<'_>,
    entry: &FragmentEntry,
) -> Result<Egress, Stop> {
    if packet.ttl <= 1 {
        return Err(Stop::Pass(Outcome::PassTtl));
    }
    let mut hop = Hop::unknown(0);
    find_way(ctx, packet, target, &entry.source, &mut hop)?;
    rewrite::write_addresses(ctx, packet, entry, &hop).ok_or(Stop::Drop(Outcome::DropRewrite))?;
    Ok(hop.egress(ctx))
}

/// The way of a packet that leaves with this source.
#[inline(always)]
fn find_way<C: Context>(
    ctx: &C,
    packet: &Packet,
    target: &Target<'_>,
    source: &Addr,
    hop: &mut Hop,
) -> Result<(), Stop> {
    way::to_backend(ctx, packet, target.settings, target.backend, source, hop)?;
    // The kernel would refuse to forward an IPv4 packet whose source is the gateway's own address:
    // fib_validate_source() in net/ipv4/fib_frontend.c. IPv6 has no such check.
    if C::REDIRECTS_BY_XDP
        && !hop.is_direct()
        && packet.destination.is_v4()
        && *source != packet.source
    {
        return Err(Stop::Drop(Outcome::DropNoSource));
    }
    Ok(())
}
