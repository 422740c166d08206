//! The headers of an ICMP message.

use core::mem::offset_of;

use lbagent_common::{Addr, Protocol};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::Work;
use crate::packet::{Context, ETHERTYPE_IPV4, ETHERTYPE_IPV6, L3_OFFSET};
use network_types::eth::EthHdr;

/// Bytes of an ICMP header; what is quoted follows.
pub const ICMP_LEN: usize = 8;
/// Ethernet, IPv4 with all options, ICMP, quoted IPv4 with all options, quoted TCP: the most that is
/// read or written.
const WANTED: u32 = 14 + 60 + ICMP_LEN as u32 + 60 + 20;
/// More-fragments flag and fragment offset (RFC 791, section 3.1).
const FRAGMENT_MASK: u32 = 0x3fff;

/// What an ICMP message is.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// No ICMP message, or one that is not whole.
    Foreign,
    /// An echo request.
    Echo,
    /// An error that quotes the packet which it is about.
    Error,
    /// Anything else.
    Other,
}

/// Reads the headers of an ICMP message that is no fragment and lies behind the IP header.
#[inline(never)]
pub fn read<C: Context>(ctx: &C, work: &mut Work) -> Message {
    read_here(ctx, work).unwrap_or(Message::Foreign)
}

#[inline(always)]
fn read_here<C: Context>(ctx: &C, work: &mut Work) -> Option<Message> {
    ctx.pull(WANTED);
    let ethertype: u16 = ctx.load(offset_of!(EthHdr, ether_type))?;
    let message = &mut work.message;
    let (offset, is_v4) = match u16::from_be(ethertype) {
        ETHERTYPE_IPV4 => {
            let [first, second, third, source, destination]: [u32; 5] = ctx.load(L3_OFFSET)?;
            let [first, second, third] = [first, second, third].map(u32::from_be);
            let header_len = (first >> 24 & 0x0f) as usize * 4;
            if first >> 28 != 4 || header_len < Ipv4Hdr::LEN || second & FRAGMENT_MASK != 0 {
                return None;
            }
            message.source = Addr::from_wire_v4(source);
            message.destination = Addr::from_wire_v4(destination);
            message.protocol = Protocol((third >> 16) as u8);
            message.ttl = (third >> 24) as u8;
            message.ip_len = first as u16;
            (L3_OFFSET + header_len, true)
        }
        ETHERTYPE_IPV6 => {
            let [first, second, a, b, c, d, e, f, g, h]: [u32; 10] = ctx.load(L3_OFFSET)?;
            let second = u32::from_be(second);
            if u32::from_be(first) >> 28 != 6 {
                return None;
            }
            message.source = Addr::from_wire([a, b, c, d]);
            message.destination = Addr::from_wire([e, f, g, h]);
            message.protocol = Protocol((second >> 8) as u8);
            message.ttl = second as u8;
            message.ip_len = ((second >> 16) as u16).saturating_add(Ipv6Hdr::LEN as u16);
            (L3_OFFSET + Ipv6Hdr::LEN, false)
        }
        _ => return None,
    };
    message.set_l4_offset(offset);
    let end = L3_OFFSET + usize::from(message.ip_len);
    if offset + ICMP_LEN > end || end > ctx.len() as usize {
        return None;
    }
    let [kind, code]: [u8; 2] = ctx.load(offset)?;
    Some(match (message.protocol, is_v4) {
        (Protocol::ICMP, true) => icmp(kind, code),
        (Protocol::ICMPV6, false) => icmpv6(kind, code),
        _ => Message::Foreign,
    })
}

/// RFC 792. Not source quench (RFC 6633 took it back) and not redirects, which are about the link.
#[inline(always)]
fn icmp(kind: u8, code: u8) -> Message {
    match kind {
        3 | 11 | 12 => Message::Error,
        8 if code == 0 => Message::Echo,
        _ => Message::Other,
    }
}

/// RFC 4443. Everything else, neighbour discovery among it, is the kernel's.
#[inline(always)]
fn icmpv6(kind: u8, code: u8) -> Message {
    match kind {
        1..=4 => Message::Error,
        128 if code == 0 => Message::Echo,
        _ => Message::Other,
    }
}
