//! Rewrites addresses, ports, TTL and link addresses, with incremental checksums.

use lbagent_common::checksum::Difference;
use lbagent_common::{Addr, Port};

use crate::kernel::{self, Hop, Route};
use crate::outcome::Egress;
use crate::packet::{Context, Field, Packet};

/// The 4-tuple that the packet gets.
pub struct Rewrite {
    /// Source address.
    pub source: Addr,
    /// Source port.
    pub source_port: Port,
    /// Destination address.
    pub destination: Addr,
    /// Destination port.
    pub destination_port: Port,
    /// The interface towards the destination takes no frames from XDP.
    pub via_kernel: bool,
}

/// Why a packet could not be sent; what that means depends on the direction.
#[derive(Clone, Copy)]
pub enum Refusal {
    /// The way leads to the host itself.
    Local,
    /// Larger than the way allows.
    TooBig,
    /// There is no way.
    NoRoute,
    /// The kernel would have to send it, and takes no packet whose source is its own address.
    OwnSource,
    /// A header lies outside of the packet.
    OutOfBounds,
}

/// Finds the way out, writes the new headers and tells where the packet leaves. A refusal before
/// the first write leaves the packet as it was; [`Refusal::OutOfBounds`] is the only later one.
///
/// A function of its own because BPF programs have 512 bytes of stack, and the stages before need
/// theirs only until they return.
#[inline(never)]
pub fn send<C: Context>(ctx: &C, packet: &Packet, to: &Rewrite) -> Result<Egress, Refusal> {
    let mut hop = match kernel::route(ctx, packet, to.source, to.destination) {
        Route::Out(hop) => hop,
        Route::Local => return Err(Refusal::Local),
        Route::TooBig => return Err(Refusal::TooBig),
        Route::None => return Err(Refusal::NoRoute),
    };
    if C::REDIRECTS_BY_XDP && to.via_kernel && hop.ifindex != ctx.arrival_ifindex() {
        hop.resolved = false;
    }
    if C::REDIRECTS_BY_XDP && !hop.resolved && is_martian(packet, to) {
        return Err(Refusal::OwnSource);
    }
    write(ctx, packet, to, &hop).ok_or(Refusal::OutOfBounds)?;
    Ok(hop.egress(ctx))
}

/// Whether the kernel would refuse to forward the rewritten packet: its source is the gateway's
/// own address. fib_validate_source() in net/ipv4/fib_frontend.c says so; IPv6 has no such check.
#[cold]
#[inline(never)]
fn is_martian(packet: &Packet, to: &Rewrite) -> bool {
    packet.destination.is_v4() && to.source != packet.source
}

#[inline(always)]
fn write<C: Context>(ctx: &C, packet: &Packet, to: &Rewrite, hop: &Hop) -> Option<()> {
    let v4 = packet.destination.is_v4();
    if hop.resolved {
        ctx.store_link_addresses(hop.destination, hop.source)?;
    }
    let mut addresses = Difference::NONE;
    if to.source != packet.source {
        addresses = addresses.plus(address(ctx, v4, Field::Source, &packet.source, &to.source)?);
    }
    if to.destination != packet.destination {
        let field = Field::Destination;
        addresses = addresses.plus(address(
            ctx,
            v4,
            field,
            &packet.destination,
            &to.destination,
        )?);
    }
    ctx.decrement_ttl(v4, addresses)?;
    let ports = Difference::NONE
        .half(packet.source_port.wire(), to.source_port.wire())
        .half(packet.destination_port.wire(), to.destination_port.wire());
    ctx.store_ports(packet.l4_offset, to.source_port, to.destination_port)?;
    ctx.update_l4_checksum(packet, addresses, ports)
}

#[inline(always)]
fn address<C: Context>(
    ctx: &C,
    v4: bool,
    field: Field,
    old: &Addr,
    new: &Addr,
) -> Option<Difference> {
    if v4 {
        ctx.store_v4(field, new.wire_v4())?;
        return Some(Difference::NONE.word(old.wire_v4(), new.wire_v4()));
    }
    let (old, new) = (old.wire(), new.wire());
    ctx.store_v6(field, new)?;
    Some(
        Difference::NONE
            .word(old[0], new[0])
            .word(old[1], new[1])
            .word(old[2], new[2])
            .word(old[3], new[3]),
    )
}
