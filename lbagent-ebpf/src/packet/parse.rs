//! Headers to one [`Packet`]: the families meet here.

use core::mem::offset_of;

use lbagent_common::{Addr, Outcome, Port, Protocol};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::udp::UdpHdr;

use super::{Context, L3_OFFSET};
use crate::outcome::Stop;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Offset of the flags in a TCP header (RFC 9293, section 3.1).
const TCP_FLAGS_OFFSET: usize = 13;
const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
/// More-fragments flag and fragment offset (RFC 791, section 3.1).
const FRAGMENT_MASK: u16 = 0x3fff;

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
    ctx.at::<[u8; Ipv4Hdr::LEN]>(L3_OFFSET).ok_or(TRUNCATED)?;
    let version_ihl: u8 = ctx.load(L3_OFFSET).ok_or(TRUNCATED)?;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if header_len < Ipv4Hdr::LEN || version_ihl >> 4 != 4 {
        return Err(TRUNCATED);
    }
    let fragment: u16 = ctx
        .load(L3_OFFSET + offset_of!(Ipv4Hdr, frags))
        .ok_or(TRUNCATED)?;
    if u16::from_be(fragment) & FRAGMENT_MASK != 0 {
        return Err(Stop::Pass(Outcome::PassFragment));
    }
    let load = |offset| ctx.load::<u32>(L3_OFFSET + offset).ok_or(TRUNCATED);
    let source = load(offset_of!(Ipv4Hdr, src_addr))?;
    let destination = load(offset_of!(Ipv4Hdr, dst_addr))?;
    let total_len: u16 = ctx
        .load(L3_OFFSET + offset_of!(Ipv4Hdr, tot_len))
        .ok_or(TRUNCATED)?;
    Ok(Packet {
        source: Addr::from_wire_v4(source),
        destination: Addr::from_wire_v4(destination),
        source_port: Port::default(),
        destination_port: Port::default(),
        protocol: Protocol(
            ctx.load(L3_OFFSET + offset_of!(Ipv4Hdr, proto))
                .ok_or(TRUNCATED)?,
        ),
        ttl: ctx
            .load(L3_OFFSET + offset_of!(Ipv4Hdr, ttl))
            .ok_or(TRUNCATED)?,
        ip_len: u16::from_be(total_len),
        l4_offset: L3_OFFSET + header_len,
        tcp_flags: 0,
    })
}

#[inline(always)]
fn ipv6<C: Context>(ctx: &C) -> Option<Packet> {
    ctx.at::<[u8; Ipv6Hdr::LEN]>(L3_OFFSET)?;
    let payload_len: u16 = ctx.load(L3_OFFSET + offset_of!(Ipv6Hdr, payload_len))?;
    Some(Packet {
        source: Addr::from_wire(ctx.load(L3_OFFSET + offset_of!(Ipv6Hdr, src_addr))?),
        destination: Addr::from_wire(ctx.load(L3_OFFSET + offset_of!(Ipv6Hdr, dst_addr))?),
        source_port: Port::default(),
        destination_port: Port::default(),
        protocol: Protocol(ctx.load(L3_OFFSET + offset_of!(Ipv6Hdr, next_hdr))?),
        ttl: ctx.load(L3_OFFSET + offset_of!(Ipv6Hdr, hop_limit))?,
        ip_len: u16::from_be(payload_len).saturating_add(Ipv6Hdr::LEN as u16),
        l4_offset: L3_OFFSET + Ipv6Hdr::LEN,
        tcp_flags: 0,
    })
}
