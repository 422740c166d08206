//! Rewrites addresses, ports, TTL and link addresses, with incremental checksums.

use lbagent_common::checksum::Difference;
use lbagent_common::{Addr, FragmentEntry, Port};

use crate::kernel::Hop;
use crate::packet::{Context, Packet, no_address, zero};

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
}

impl Rewrite {
    /// To be filled.
    #[inline(always)]
    pub fn unknown() -> Self {
        Self {
            source: no_address(),
            source_port: Port::from_wire(zero() as u16),
            destination: no_address(),
            destination_port: Port::from_wire(zero() as u16),
        }
    }
}

/// Writes the new headers; `None` when one of them lies outside of the packet, which may then be
/// half written.
#[inline(always)]
pub fn write<C: Context>(ctx: &C, packet: &Packet, to: &Rewrite, hop: &Hop) -> Option<()> {
    if C::IS_ROOMY {
        write_here(ctx, packet, to, hop)
    } else {
        write_apart(ctx, packet, to, hop)
    }
}

/// Writes what the headers of a later fragment have: no ports, and no transport checksum, because the
/// first fragment carries the one of the whole datagram.
#[inline(always)]
pub fn write_addresses<C: Context>(
    ctx: &C,
    packet: &Packet,
    to: &FragmentEntry,
    hop: &Hop,
) -> Option<()> {
    if hop.is_direct() {
        ctx.store_link_addresses(hop.link)?;
    }
    if packet.destination.is_v4() {
        ctx.rewrite_v4(to.source.wire_v4(), to.destination.wire_v4())?;
    } else {
        ctx.rewrite_v6(packet, &to.source, &to.destination)?;
    }
    Some(())
}

#[inline(never)]
fn write_apart<C: Context>(ctx: &C, packet: &Packet, to: &Rewrite, hop: &Hop) -> Option<()> {
    write_here(ctx, packet, to, hop)
}

#[inline(always)]
fn write_here<C: Context>(ctx: &C, packet: &Packet, to: &Rewrite, hop: &Hop) -> Option<()> {
    if hop.is_direct() {
        ctx.store_link_addresses(hop.link)?;
    }
    let addresses = if packet.destination.is_v4() {
        ctx.rewrite_v4(to.source.wire_v4(), to.destination.wire_v4())?
    } else {
        ctx.rewrite_v6(packet, &to.source, &to.destination)?
    };
    let ports = Difference::NONE
        .half(packet.source_port.wire(), to.source_port.wire())
        .half(packet.destination_port.wire(), to.destination_port.wire());
    ctx.store_ports(packet.l4_offset(), to.source_port, to.destination_port)?;
    ctx.update_l4_checksum(packet, addresses, ports)
}
