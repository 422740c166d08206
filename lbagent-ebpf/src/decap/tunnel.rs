//! What a packet carries: the outer header of either family, IP-in-IP or GUE behind it, and the
//! inner header that decides whether the packet is ours.

use aya_ebpf::programs::XdpContext;
use lbagent_common::Addr;
use lbagent_common::decap::{DecapOutcome, DecapSettings, ROLE_HOST, ROLE_VIP};

use crate::maps;
use crate::packet::{self, Bytes};

/// Offset of the EtherType in a frame without a tag.
pub const ETHERTYPE_OFFSET: usize = 12;
/// Bytes of a VLAN tag.
pub const VLAN_LEN: usize = 4;

pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
pub const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
const ETHERTYPE_QINQ: u16 = 0x88a8_u16.to_be();

/// IP protocol numbers.
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_OPTIONS: u8 = 60;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
/// More-fragments flag and fragment offset (RFC 791, section 3.1).
const FRAGMENT_MASK: u16 = 0x3fff_u16.to_be();
/// Version 0, no control message; the rest of the byte is the length of the options in words.
const GUE_FIRST_MASK: u8 = 0xe0;

/// An encapsulated packet for a VIP of this host.
pub struct Tunnel {
    /// Offset of the outer IP header: 14, 18 or 22.
    pub l3_offset: usize,
    /// Offset of the inner IP header.
    pub inner_offset: usize,
    /// Whether the inner header is IPv4.
    pub inner_v4: bool,
    /// Whether UDP and GUE headers lie between them.
    pub is_gue: bool,
    /// Congestion bits of the outer header.
    pub outer_ecn: u8,
}

/// The outer IP header.
struct Outer {
    protocol: u8,
    is_fragment: bool,
    ecn: u8,
    destination: Addr,
    /// Offset of what follows the header.
    payload: usize,
    /// Offset behind the packet, as the header tells it.
    end: usize,
}

/// Finds an encapsulated packet for a VIP of this host; everything else ends with its reason.
#[inline(always)]
pub fn parse(ctx: &XdpContext) -> Result<Tunnel, DecapOutcome> {
    let settings = maps::settings().ok_or(DecapOutcome::PassForeign)?;
    let (l3_offset, ethertype) = network(ctx).ok_or(DecapOutcome::PassForeign)?;
    let outer = match ethertype {
        ETHERTYPE_IPV4 => ipv4(ctx, l3_offset)?,
        ETHERTYPE_IPV6 => ipv6(ctx, l3_offset)?,
        _ => return Err(DecapOutcome::PassForeign),
    };
    let is_gue = match outer.protocol {
        PROTOCOL_IPV4 | PROTOCOL_IPV6 if settings.modes & DecapSettings::MODE_IPIP != 0 => false,
        PROTOCOL_UDP if settings.modes & DecapSettings::MODE_GUE != 0 => true,
        _ => return Err(DecapOutcome::PassForeign),
    };
    if outer.is_fragment {
        return Err(DecapOutcome::PassFragment);
    }
    if is_gue {
        let port: u16 = ctx
            .read(outer.payload + 2)
            .ok_or(DecapOutcome::PassTruncated)?;
        if port != settings.gue_port.wire() {
            return Err(DecapOutcome::PassForeign);
        }
    }
    if !maps::has_role(&outer.destination, ROLE_HOST) {
        return Err(DecapOutcome::PassOtherHost);
    }
    if outer.end as u64 > packet::len(ctx) {
        return Err(DecapOutcome::PassTruncated);
    }
    let (inner_offset, inner_v4, end) = if is_gue {
        gue(ctx, &outer)?
    } else {
        let is_v4 = outer.protocol == PROTOCOL_IPV4;
        (outer.payload, is_v4, outer.end)
    };
    let destination = inner(ctx, inner_offset, inner_v4, end)?;
    if !maps::has_role(&destination, ROLE_VIP) {
        return Err(DecapOutcome::PassNotVip);
    }
    Ok(Tunnel {
        l3_offset,
        inner_offset,
        inner_v4,
        is_gue,
        outer_ecn: outer.ecn,
    })
}

/// Offset of the IP header behind up to two VLAN tags, and the EtherType.
#[inline(always)]
fn network(ctx: &XdpContext) -> Option<(usize, u16)> {
    let is_tag = |ethertype| ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ;
    let mut offset = ETHERTYPE_OFFSET;
    let mut ethertype: u16 = ctx.read(offset)?;
    if is_tag(ethertype) {
        offset += VLAN_LEN;
        ethertype = ctx.read(offset)?;
        if is_tag(ethertype) {
            offset += VLAN_LEN;
            ethertype = ctx.read(offset)?;
        }
    }
    Some((offset + 2, ethertype))
}

#[inline(always)]
fn ipv4(ctx: &XdpContext, offset: usize) -> Result<Outer, DecapOutcome> {
    const TRUNCATED: DecapOutcome = DecapOutcome::PassTruncated;
    ctx.at::<[u8; IPV4_LEN]>(offset).ok_or(TRUNCATED)?;
    let [version_ihl, service]: [u8; 2] = ctx.read(offset).ok_or(TRUNCATED)?;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < IPV4_LEN {
        return Err(TRUNCATED);
    }
    let total_len = usize::from(u16::from_be(ctx.read(offset + 2).ok_or(TRUNCATED)?));
    let fragment: u16 = ctx.read(offset + 6).ok_or(TRUNCATED)?;
    Ok(Outer {
        protocol: ctx.read(offset + 9).ok_or(TRUNCATED)?,
        is_fragment: fragment & FRAGMENT_MASK != 0,
        ecn: service & 3,
        destination: Addr::from_wire_v4(ctx.read(offset + 16).ok_or(TRUNCATED)?),
        payload: offset + header_len,
        end: offset + total_len,
    })
}

#[inline(always)]
fn ipv6(ctx: &XdpContext, offset: usize) -> Result<Outer, DecapOutcome> {
    const TRUNCATED: DecapOutcome = DecapOutcome::PassTruncated;
    ctx.at::<[u8; IPV6_LEN]>(offset).ok_or(TRUNCATED)?;
    let [_, class_and_flow]: [u8; 2] = ctx.read(offset).ok_or(TRUNCATED)?;
    let payload_len = usize::from(u16::from_be(ctx.read(offset + 4).ok_or(TRUNCATED)?));
    let mut protocol: u8 = ctx.read(offset + 6).ok_or(TRUNCATED)?;
    let mut payload = offset + IPV6_LEN;
    // Senders may state an encapsulation limit in an option (RFC 2473, section 4.1.1), as Linux
    // does by default.
    if protocol == PROTOCOL_OPTIONS {
        let [next, words]: [u8; 2] = ctx.read(payload).ok_or(TRUNCATED)?;
        protocol = next;
        payload += 8 + usize::from(words) * 8;
    }
    let is_fragment = protocol == PROTOCOL_FRAGMENT;
    if is_fragment {
        let [next, _]: [u8; 2] = ctx.read(payload).ok_or(TRUNCATED)?;
        protocol = next;
    }
    Ok(Outer {
        protocol,
        is_fragment,
        ecn: class_and_flow >> 4 & 3,
        destination: Addr::from_wire(ctx.read(offset + 24).ok_or(TRUNCATED)?),
        payload,
        end: offset + IPV6_LEN + payload_len,
    })
}

/// Offset and family of the packet in a GUE packet, and the offset behind it. Variant 1 has the IP
/// packet directly behind the UDP header, told by its version; variant 0 has a header of its own
/// (draft-ietf-intarea-gue-09, sections 3 and 4). Its flags announce options that may change what
/// the payload means, so only options without flags are skipped.
#[inline(always)]
fn gue(ctx: &XdpContext, outer: &Outer) -> Result<(usize, bool, usize), DecapOutcome> {
    const TRUNCATED: DecapOutcome = DecapOutcome::PassTruncated;
    let udp_len = usize::from(u16::from_be(ctx.read(outer.payload + 4).ok_or(TRUNCATED)?));
    let end = outer.payload + udp_len;
    if udp_len <= UDP_LEN || end > outer.end {
        return Err(TRUNCATED);
    }
    let header = outer.payload + UDP_LEN;
    let [first, protocol]: [u8; 2] = ctx.read(header).ok_or(TRUNCATED)?;
    match first >> 4 {
        4 => return Ok((header, true, end)),
        6 => return Ok((header, false, end)),
        _ => {}
    }
    if first & GUE_FIRST_MASK != 0 {
        return Err(DecapOutcome::PassGueUnknown);
    }
    let flags: u16 = ctx.read(header + 2).ok_or(TRUNCATED)?;
    let is_v4 = protocol == PROTOCOL_IPV4;
    if flags != 0 || !is_v4 && protocol != PROTOCOL_IPV6 {
        return Err(DecapOutcome::PassGueUnknown);
    }
    Ok((header + 4 + usize::from(first) * 4, is_v4, end))
}

/// Destination of the inner packet, which must be whole and end before `end`.
#[inline(always)]
fn inner(ctx: &XdpContext, offset: usize, is_v4: bool, end: usize) -> Result<Addr, DecapOutcome> {
    const TRUNCATED: DecapOutcome = DecapOutcome::PassTruncated;
    let [first, _]: [u8; 2] = ctx.read(offset).ok_or(TRUNCATED)?;
    let (destination, inner_end) = if is_v4 {
        ctx.at::<[u8; IPV4_LEN]>(offset).ok_or(TRUNCATED)?;
        let total_len = usize::from(u16::from_be(ctx.read(offset + 2).ok_or(TRUNCATED)?));
        let header_len = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || header_len < IPV4_LEN {
            return Err(DecapOutcome::PassNotIp);
        }
        if total_len < header_len {
            return Err(TRUNCATED);
        }
        let destination = Addr::from_wire_v4(ctx.read(offset + 16).ok_or(TRUNCATED)?);
        (destination, offset + total_len)
    } else {
        ctx.at::<[u8; IPV6_LEN]>(offset).ok_or(TRUNCATED)?;
        let payload_len = usize::from(u16::from_be(ctx.read(offset + 4).ok_or(TRUNCATED)?));
        if first >> 4 != 6 {
            return Err(DecapOutcome::PassNotIp);
        }
        let destination = Addr::from_wire(ctx.read(offset + 24).ok_or(TRUNCATED)?);
        (destination, offset + IPV6_LEN + payload_len)
    };
    if inner_end > end {
        return Err(TRUNCATED);
    }
    Ok(destination)
}
