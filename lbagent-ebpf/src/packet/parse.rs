//! Headers to one [`Packet`]: the families meet here.

use core::mem::offset_of;

use lbagent_common::{Addr, Outcome, Port, Protocol};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::udp::UdpHdr;

use super::{Context, L3_OFFSET};
use crate::outcome::Stop;

/// EtherTypes in host order.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherTypes in host order.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Offset of the flags in a TCP header (RFC 9293, section 3.1).
const TCP_FLAGS_OFFSET: usize = 13;
const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
/// More-fragments flag and fragment offset (RFC 791, section 3.1).
const FRAGMENT_MASK: u32 = 0x3fff;

/// What the stages know of a packet.
pub struct Packet {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Source port.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length of the IP packet, header included.
    pub ip_len: u16,
    /// Offset of the transport header from the Ethernet header.
    pub l4_offset: usize,
    tcp_flags: u8,
}

impl Packet {
    /// A SYN that is no SYN-ACK.
    #[inline(always)]
    pub fn starts_connection(&self) -> bool {
        self.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }

    /// A FIN or a RST.
    #[inline(always)]
    pub fn ends_connection(&self) -> bool {
        self.tcp_flags & (TCP_FIN | TCP_RST) != 0
    }
}

/// Reads the headers of an untagged TCP or UDP packet that is no fragment; everything else passes.
#[inline(always)]
pub fn parse<C: Context>(ctx: &C) -> Result<Packet, Stop> {
    const TRUNCATED: Stop = Stop::Pass(Outcome::PassTruncated);
    if ctx.has_vlan_tag() {
        return Err(Stop::Pass(Outcome::PassNotIp));
    }
    ctx.make_accessible();
    let ethertype: u16 = ctx.load(offset_of!(EthHdr, ether_type)).ok_or(TRUNCATED)?;
    let mut packet = match u16::from_be(ethertype) {
        ETHERTYPE_IPV4 => ipv4(ctx)?,
        ETHERTYPE_IPV6 => ipv6(ctx).ok_or(TRUNCATED)?,
        _ => return Err(Stop::Pass(Outcome::PassNotIp)),
    };
    let [source, destination]: [u16; 2] = match packet.protocol {
        Protocol::TCP => {
            packet.tcp_flags = ctx
                .load(packet.l4_offset + TCP_FLAGS_OFFSET)
                .ok_or(TRUNCATED)?;
            // The checksum field lies behind the flags: its presence is what a rewrite needs.
            ctx.at::<[u8; 20]>(packet.l4_offset).ok_or(TRUNCATED)?;
            ctx.load(packet.l4_offset).ok_or(TRUNCATED)?
        }
        Protocol::UDP => {
            ctx.at::<[u8; UdpHdr::LEN]>(packet.l4_offset)
                .ok_or(TRUNCATED)?;
            ctx.load(packet.l4_offset).ok_or(TRUNCATED)?
        }
        _ => return Err(Stop::Pass(Outcome::PassProtocol)),
    };
    packet.source_port = Port::from_wire(source);
    packet.destination_port = Port::from_wire(destination);
    Ok(packet)
}

#[inline(always)]
fn ipv4<C: Context>(ctx: &C) -> Result<Packet, Stop> {
    const TRUNCATED: Stop = Stop::Pass(Outcome::PassTruncated);
    // One load of the whole header: one comparison with the packet's end.
    let header: [u32; 5] = ctx.load(L3_OFFSET).ok_or(TRUNCATED)?;
    let [first, second, third, source, destination] = header;
    let [first, second, third] = [first, second, third].map(u32::from_be);
    let header_len = (first >> 24 & 0x0f) as usize * 4;
    if header_len < Ipv4Hdr::LEN || first >> 28 != 4 {
        return Err(TRUNCATED);
    }
    if second & FRAGMENT_MASK != 0 {
        return Err(Stop::Pass(Outcome::PassFragment));
    }
    Ok(Packet {
        source: Addr::from_wire_v4(source),
        destination: Addr::from_wire_v4(destination),
        source_port: Port::default(),
        destination_port: Port::default(),
        protocol: Protocol((third >> 16) as u8),
        ttl: (third >> 24) as u8,
        ip_len: first as u16,
        l4_offset: L3_OFFSET + header_len,
        tcp_flags: 0,
    })
}

#[inline(always)]
fn ipv6<C: Context>(ctx: &C) -> Option<Packet> {
    let header: [u32; 10] = ctx.load(L3_OFFSET)?;
    let [_, second, a, b, c, d, e, f, g, h] = header;
    let second = u32::from_be(second);
    Some(Packet {
        source: Addr::from_wire([a, b, c, d]),
        destination: Addr::from_wire([e, f, g, h]),
        source_port: Port::default(),
        destination_port: Port::default(),
        protocol: Protocol((second >> 8) as u8),
        ttl: second as u8,
        ip_len: ((second >> 16) as u16).saturating_add(Ipv6Hdr::LEN as u16),
        l4_offset: L3_OFFSET + Ipv6Hdr::LEN,
        tcp_flags: 0,
    })
}
