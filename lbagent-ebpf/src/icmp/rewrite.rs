//! Rewrites an ICMP error and the packet that it quotes, with incremental checksums: those of the
//! quoted headers, and that of the message, which covers them.

use lbagent_common::Protocol;
use lbagent_common::checksum::Difference;

use super::Work;
use crate::packet::Context;

/// Offset of the checksum within an ICMP header.
const CHECKSUM_OFFSET: usize = 2;
/// Offset of TTL, protocol and checksum within an IPv4 header; the addresses follow.
const IPV4_TAIL: usize = 8;
/// Offset of the addresses within an IPv6 header.
const IPV6_ADDRESSES: usize = 8;

/// Writes addresses and ports of a [`Work`]; 0 when one of them lies outside of the packet, which may
/// then be half written.
#[inline(never)]
pub fn write<C: Context>(ctx: &C, work: &Work) -> u32 {
    u32::from(write_here(ctx, work).is_some())
}

#[inline(always)]
fn write_here<C: Context>(ctx: &C, work: &Work) -> Option<()> {
    if work.hop.is_direct() {
        ctx.store_link_addresses(work.hop.link)?;
    }
    // All that the message's checksum covers.
    let covered = if work.message.destination.is_v4() {
        ctx.rewrite_v4(work.source.wire_v4(), work.destination.wire_v4())?;
        let (addresses, header_check) = quoted_v4(ctx, work)?;
        transport(ctx, work, addresses)?
            .plus(addresses)
            .plus(header_check)
    } else {
        let outer = ctx.rewrite_v6(&work.message, &work.source, &work.destination)?;
        let addresses = quoted_v6(ctx, work)?;
        transport(ctx, work, addresses)?.plus(addresses).plus(outer)
    };
    let offset = work.icmp_offset() + CHECKSUM_OFFSET;
    let check: u16 = ctx.load(offset)?;
    ctx.store(offset, covered.apply(check))
}

/// The quoted IPv4 header; returns what its addresses change, and what its checksum changes.
#[inline(always)]
fn quoted_v4<C: Context>(ctx: &C, work: &Work) -> Option<(Difference, Difference)> {
    let offset = work.quote_offset() + IPV4_TAIL;
    let [counted, old_source, old_destination]: [u32; 3] = ctx.load(offset)?;
    let (source, destination) = (
        work.quoted_source.wire_v4(),
        work.quoted_destination.wire_v4(),
    );
    let addresses = Difference::NONE
        .word(old_source, source)
        .word(old_destination, destination);
    let old = (u32::from_be(counted) as u16).to_be();
    let new = addresses.apply(old);
    let counted = u32::from_be(counted) & 0xffff_0000 | u32::from(u16::from_be(new));
    ctx.store(offset, [counted.to_be(), source, destination])?;
    Some((addresses, Difference::NONE.half(old, new)))
}

/// The quoted IPv6 header; returns what its addresses change.
#[inline(always)]
fn quoted_v6<C: Context>(ctx: &C, work: &Work) -> Option<Difference> {
    let offset = work.quote_offset() + IPV6_ADDRESSES;
    ctx.store(offset, work.quoted_source.wire())?;
    ctx.store(offset + 16, work.quoted_destination.wire())?;
    // The flow is the quoted packet's, turned round.
    Some(
        Difference::NONE
            .address(&work.flow.destination, &work.quoted_source)
            .address(&work.flow.source, &work.quoted_destination),
    )
}

/// The quoted ports, and the quoted transport checksum where the quote reaches so far; returns what
/// both change.
#[inline(always)]
fn transport<C: Context>(ctx: &C, work: &Work, addresses: Difference) -> Option<Difference> {
    let (source, destination) = (work.quoted_source_port, work.quoted_destination_port);
    ctx.store_ports(work.quoted_l4_offset(), source, destination)?;
    let ports = Difference::NONE
        .half(work.flow.destination_port.wire(), source.wire())
        .half(work.flow.source_port.wire(), destination.wire());
    if work.quoted_check_offset == 0 {
        return Some(ports);
    }
    let offset = work.quoted_check_offset();
    let old: u16 = ctx.load(offset)?;
    let is_udp = work.flow.protocol == Protocol::UDP;
    // As in `Context::update_l4_checksum`: 0 is no checksum.
    if is_udp && old == 0 {
        return Some(ports);
    }
    let new = addresses.plus(ports).apply(old);
    let new = if is_udp && new == 0 { 0xffff } else { new };
    ctx.store(offset, new)?;
    Some(ports.half(old, new))
}
