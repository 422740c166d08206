//! The packet that an ICMP error quotes. Eight bytes of its transport header are enough, the least
//! that RFC 792 asks for: they hold the ports.

use lbagent_common::{Addr, Port, Protocol};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::Work;
use super::message::ICMP_LEN;
use crate::packet::{Context, L3_OFFSET, l4_checksum_offset};

/// Bytes of the transport header that must be there.
const LEAST: usize = 8;
/// Fragment offset in the second word of an IPv4 header (RFC 791, section 3.1).
const FRAGMENT_OFFSET: u32 = 0x1fff;
/// Next header of a fragment header, its length, and its fragment offset (RFC 8200, section 4.5).
const IPV6_FRAGMENT: u8 = 44;
const IPV6_FRAGMENT_LEN: usize = 8;
const IPV6_FRAGMENT_OFFSET: u16 = 0xfff8;

/// Reads the quoted packet; 0 where it is no TCP or UDP packet with ports.
#[inline(never)]
pub fn read<C: Context>(ctx: &C, work: &mut Work) -> u32 {
    u32::from(read_here(ctx, work).is_some())
}

#[inline(always)]
fn read_here<C: Context>(ctx: &C, work: &mut Work) -> Option<()> {
    let quote = work.icmp_offset() + ICMP_LEN;
    // The message ends before the frame does where the link pads.
    let end = L3_OFFSET + usize::from(work.message.ip_len);
    let l4 = if work.message.destination.is_v4() {
        ipv4(ctx, work, quote)?
    } else {
        ipv6(ctx, work, quote)?
    };
    if l4 + LEAST > end {
        return None;
    }
    ctx.at::<[u8; LEAST]>(l4)?;
    let [source, destination]: [u16; 2] = ctx.load(l4)?;
    let flow = &mut work.flow;
    flow.source_port = Port::from_wire(destination);
    flow.destination_port = Port::from_wire(source);
    let check = l4
        + match flow.protocol {
            Protocol::TCP | Protocol::UDP => l4_checksum_offset(flow.protocol),
            _ => return None,
        };
    work.quote_offset = quote as u32;
    work.quoted_l4_offset = l4 as u32;
    work.quoted_check_offset = if check + 2 <= end { check as u32 } else { 0 };
    Some(())
}

/// The transport header's offset.
#[inline(always)]
fn ipv4<C: Context>(ctx: &C, work: &mut Work, quote: usize) -> Option<usize> {
    let [first, second, third, source, destination]: [u32; 5] = ctx.load(quote)?;
    let first = u32::from_be(first);
    let header_len = (first >> 24 & 0x0f) as usize * 4;
    if first >> 28 != 4 || header_len < Ipv4Hdr::LEN || u32::from_be(second) & FRAGMENT_OFFSET != 0
    {
        return None;
    }
    work.flow.source = Addr::from_wire_v4(destination);
    work.flow.destination = Addr::from_wire_v4(source);
    work.flow.protocol = Protocol((u32::from_be(third) >> 16) as u8);
    Some(quote + header_len)
}

/// The transport header's offset.
#[inline(always)]
fn ipv6<C: Context>(ctx: &C, work: &mut Work, quote: usize) -> Option<usize> {
    let [first, second, a, b, c, d, e, f, g, h]: [u32; 10] = ctx.load(quote)?;
    if u32::from_be(first) >> 28 != 6 {
        return None;
    }
    work.flow.source = Addr::from_wire([e, f, g, h]);
    work.flow.destination = Addr::from_wire([a, b, c, d]);
    let next = (u32::from_be(second) >> 8) as u8;
    let l4 = quote + Ipv6Hdr::LEN;
    if next != IPV6_FRAGMENT {
        work.flow.protocol = Protocol(next);
        return Some(l4);
    }
    let [next, offset]: [u16; 2] = ctx.load(l4)?;
    if u16::from_be(offset) & IPV6_FRAGMENT_OFFSET != 0 {
        return None;
    }
    work.flow.protocol = Protocol((u16::from_be(next) >> 8) as u8);
    Some(l4 + IPV6_FRAGMENT_LEN)
}
