//! Headers to one [`Packet`]: the families meet here.

use core::mem::offset_of;

use lbagent_common::{Addr, FragmentKey, Outcome, Port, Protocol};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::udp::UdpHdr;

use super::{Context, L3_OFFSET, extensions, no_address, opaque, unknown_zero, zero};
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
/// More-fragments flag of [`Packet::fragment`] (RFC 791, section 3.1).
pub(super) const MORE_FRAGMENTS: u32 = 0x2000;
/// Fragment offset in [`Packet::fragment`], in units of 8 bytes.
const FRAGMENT_OFFSET: u32 = 0x1fff;
/// Transport headers lie below this offset: Ethernet, IPv6, and the most of extension headers that
/// is walked.
const L4_OFFSET_MASK: usize = 0x1ff;

/// What the stages know of a packet.
pub struct Packet {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Source port; in a later fragment 0 until its datagram is known.
    pub source_port: Port,
    /// Destination port; likewise.
    pub destination_port: Port,
    /// TCP or UDP; in a later IPv6 fragment what follows the fragment header.
    pub protocol: Protocol,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length of the IP packet, header included.
    pub ip_len: u16,
    /// As [`l4_offset`](Self::l4_offset), without its bound.
    pub(super) raw_l4_offset: u32,
    /// The lower half as in IPv4: flags and offset. The upper half holds the identification in
    /// IPv4, and what follows the fragment header in IPv6.
    pub(super) fragment: u32,
    /// Identification in IPv6, as it lies in the packet.
    pub(super) identification: u32,
    tcp_flags: u8,
    _pad: u8,
    _pad_end: u16,
}

impl Packet {
    /// To be filled.
    #[inline(always)]
    pub fn unread() -> Self {
        Self {
            source: no_address(),
            destination: no_address(),
            source_port: Port::from_wire(zero() as u16),
            destination_port: Port::from_wire(zero() as u16),
            protocol: Protocol(zero() as u8),
            ttl: zero() as u8,
            ip_len: zero() as u16,
            raw_l4_offset: zero(),
            fragment: zero(),
            identification: zero(),
            tcp_flags: zero() as u8,
            _pad: zero() as u8,
            _pad_end: zero() as u16,
        }
    }

    /// Offset of the transport header from the Ethernet header, bounded anew, because the verifier
    /// forgets the bounds of what other functions may have changed.
    #[inline(always)]
    pub fn l4_offset(&self) -> usize {
        opaque(self.raw_l4_offset) as usize & L4_OFFSET_MASK
    }

    /// Notes where the transport header lies.
    #[inline(always)]
    pub fn set_l4_offset(&mut self, offset: usize) {
        self.raw_l4_offset = offset as u32;
    }

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

    /// The first fragment of several: it has the ports.
    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        self.fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == MORE_FRAGMENTS
    }

    /// A fragment but the first: the transport header is in another packet.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment & FRAGMENT_OFFSET != 0
    }

    /// Where the fragment's bytes belong in the datagram.
    #[inline(always)]
    pub fn fragment_offset(&self) -> u32 {
        (self.fragment & FRAGMENT_OFFSET) * 8
    }

    /// What tells the fragment's datagram from others.
    #[inline(always)]
    pub fn fragment_key(&self) -> FragmentKey {
        let upper = self.fragment >> 16;
        let (identification, protocol) = if self.destination.is_v4() {
            (upper, self.protocol)
        } else {
            (self.identification, Protocol(upper as u8))
        };
        FragmentKey {
            source: self.source,
            destination: self.destination,
            identification,
            protocol,
            pad: 0,
            pad_end: 0,
        }
    }
}

/// Reads the headers of an IP packet without VLAN tags up to the transport header; of a later
/// fragment, those that it has. What is no IP passes.
///
/// Fills the reader's packet instead of returning one, which would take its place on the stack
/// twice.
#[inline(always)]
pub fn parse_ip<C: Context>(ctx: &C, packet: &mut Packet) -> Result<(), Stop> {
    const TRUNCATED: Stop = Stop::Pass(Outcome::PassTruncated);
    ctx.make_accessible();
    let ethertype: u16 = ctx.load(offset_of!(EthHdr, ether_type)).ok_or(TRUNCATED)?;
    match u16::from_be(ethertype) {
        ETHERTYPE_IPV4 => ipv4(ctx, packet).ok_or(TRUNCATED)?,
        ETHERTYPE_IPV6 => {
            ipv6(ctx, packet).ok_or(TRUNCATED)?;
            if packet.protocol != Protocol::TCP
                && packet.protocol != Protocol::UDP
                && let Some(Err(stop)) = extensions::walk(ctx, packet).result()
            {
                return Err(stop);
            }
        }
        _ => return Err(Stop::Pass(Outcome::PassNotIp)),
    }
    Ok(())
}

/// Reads the ports of a TCP or UDP packet that is no later fragment; everything else passes.
#[inline(always)]
pub fn parse_transport<C: Context>(ctx: &C, packet: &mut Packet) -> Result<(), Stop> {
    const TRUNCATED: Stop = Stop::Pass(Outcome::PassTruncated);
    let offset = packet.l4_offset();
    let [source, destination]: [u16; 2] = match packet.protocol {
        Protocol::TCP => {
            packet.tcp_flags = ctx.load(offset + TCP_FLAGS_OFFSET).ok_or(TRUNCATED)?;
            // The checksum field lies behind the flags: its presence is what a rewrite needs.
            ctx.at::<[u8; 20]>(offset).ok_or(TRUNCATED)?;
            ctx.load(offset).ok_or(TRUNCATED)?
        }
        Protocol::UDP => {
            ctx.at::<[u8; UdpHdr::LEN]>(offset).ok_or(TRUNCATED)?;
            ctx.load(offset).ok_or(TRUNCATED)?
        }
        _ if packet.is_first_fragment() => return Err(Stop::Pass(Outcome::PassFragment)),
        _ => return Err(Stop::Pass(Outcome::PassProtocol)),
    };
    packet.source_port = Port::from_wire(source);
    packet.destination_port = Port::from_wire(destination);
    Ok(())
}

#[inline(always)]
fn ipv4<C: Context>(ctx: &C, packet: &mut Packet) -> Option<()> {
    // One load of the whole header: one comparison with the packet's end.
    let header: [u32; 5] = ctx.load(L3_OFFSET)?;
    let [first, second, third, source, destination] = header;
    let [first, second, third] = [first, second, third].map(u32::from_be);
    let header_len = (first >> 24 & 0x0f) as usize * 4;
    if header_len < Ipv4Hdr::LEN || first >> 28 != 4 {
        return None;
    }
    packet.source = Addr::from_wire_v4(source);
    packet.destination = Addr::from_wire_v4(destination);
    packet.protocol = Protocol((third >> 16) as u8);
    packet.ttl = (third >> 24) as u8;
    packet.ip_len = first as u16;
    packet.raw_l4_offset = (L3_OFFSET + header_len) as u32;
    packet.fragment = second;
    Some(())
}

#[inline(always)]
fn ipv6<C: Context>(ctx: &C, packet: &mut Packet) -> Option<()> {
    let header: [u32; 10] = ctx.load(L3_OFFSET)?;
    let [_, second, a, b, c, d, e, f, g, h] = header;
    let second = u32::from_be(second);
    // Unknown as what a walk finds is.
    let none = unknown_zero(second);
    packet.source = Addr::from_wire([a, b, c, d]);
    packet.destination = Addr::from_wire([e, f, g, h]);
    packet.protocol = Protocol((second >> 8) as u8);
    packet.ttl = second as u8;
    packet.ip_len = ((second >> 16) as u16).saturating_add(Ipv6Hdr::LEN as u16);
    packet.raw_l4_offset = (L3_OFFSET + Ipv6Hdr::LEN) as u32 + none;
    packet.fragment = none;
    packet.identification = none;
    Some(())
}
