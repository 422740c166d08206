//! An outer header of either family around a packet of either family.

use lbagent_common::checksum::Difference;
use lbagent_common::{Addr, BackendEntry, Outcome, Protocol};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use super::{gue, ipip};
use crate::kernel::Hop;
use crate::outcome::{Egress, Stop};
use crate::packet::{Context, ETHERTYPE_IPV4, ETHERTYPE_IPV6, L3_OFFSET, Packet};

/// TTL or hop limit of outer headers.
const OUTER_TTL: u32 = 64;
/// Don't fragment (RFC 791, section 3.1), identification 0: with it a packet needs none (RFC 6864).
const DONT_FRAGMENT: u32 = 0x4000;

/// No outer headers are longer; for the verifier.
const OVERHEAD_MASK: usize = 0x3f;

/// There is no room for an outer header, or no address.
const NO_HEADER: Stop = Stop::Drop(Outcome::DropEncapsulation);

/// Bytes that the outer headers of packets to a backend add.
#[inline(always)]
pub fn overhead_of(backend: &BackendEntry, is_udp: bool) -> Result<u32, Stop> {
    if backend.source == Addr::UNSPECIFIED {
        return Err(NO_HEADER);
    }
    Ok(overhead(backend.addr.is_v4(), is_udp))
}

/// Puts a packet into another one for its backend and sends it.
#[inline(always)]
pub fn send<C: Context>(
    ctx: &C,
    packet: &Packet,
    backend: &BackendEntry,
    is_udp: bool,
    flow: &Packet,
    hop: &Hop,
) -> Result<Egress, Stop> {
    let is_outer_v4 = backend.addr.is_v4();
    // The kernel forwards no IPv4 packet whose source is its own address, as that of the outer
    // header is: fib_validate_source() in net/ipv4/fib_frontend.c.
    if C::REDIRECTS_BY_XDP && !hop.is_direct() && is_outer_v4 {
        return Err(Stop::Drop(Outcome::DropNoSource));
    }
    if hop.mtu != 0 && packet.starts_connection() {
        let headers = hop.overhead + inner_headers(packet);
        ctx.lower_mss(packet.l4_offset() as u32, hop.mtu.saturating_sub(headers));
    }
    let written = if is_udp {
        write::<C, true>(ctx, packet, backend, flow, hop)
    } else {
        write::<C, false>(ctx, packet, backend, flow, hop)
    };
    written.ok_or(NO_HEADER)?;
    Ok(hop.egress(ctx))
}

/// Bytes that the outer headers add.
#[inline(always)]
fn overhead(is_outer_v4: bool, is_udp: bool) -> u32 {
    let ip = if is_outer_v4 {
        Ipv4Hdr::LEN
    } else {
        Ipv6Hdr::LEN
    };
    (ip + if is_udp { UdpHdr::LEN } else { 0 }) as u32
}

/// Bytes of a packet that its MSS option does not count: headers without options (RFC 6691).
#[inline(always)]
fn inner_headers(packet: &Packet) -> u32 {
    let ip = if packet.destination.is_v4() {
        Ipv4Hdr::LEN
    } else {
        Ipv6Hdr::LEN
    };
    (ip + TcpHdr::LEN) as u32
}

/// Writes the outer headers and the link addresses; `None` when there is no room, the packet being
/// unchanged. A stack frame of its own, given to the routing table before.
#[inline(never)]
fn write<C: Context, const IS_UDP: bool>(
    ctx: &C,
    packet: &Packet,
    backend: &BackendEntry,
    flow: &Packet,
    hop: &Hop,
) -> Option<()> {
    let is_outer_v4 = backend.addr.is_v4();
    ctx.insert_headers(packet, is_outer_v4, IS_UDP)?;
    let overhead = hop.overhead as usize & OVERHEAD_MASK;
    if hop.is_direct() {
        ctx.store_link_addresses(hop.link)?;
    } else {
        ctx.keep_link_addresses(overhead)?;
    }
    let is_inner_v4 = packet.destination.is_v4();
    let first = u32::from_be(ctx.load(L3_OFFSET + overhead)?);
    // Type of service or traffic class, congestion bits included (RFC 6040, section 4.1).
    let class = first >> if is_inner_v4 { 16 } else { 20 } & 0xff;
    let protocol = if IS_UDP {
        Protocol::UDP
    } else {
        ipip::protocol(is_inner_v4)
    };
    let entropy = if IS_UDP || !is_outer_v4 {
        entropy(flow)
    } else {
        0
    };
    let l4_offset = if is_outer_v4 {
        ctx.store(L3_OFFSET - 2, ETHERTYPE_IPV4.to_be())?;
        let len = packet.ip_len.wrapping_add(overhead as u16);
        let (source, destination) = (backend.source.wire_v4(), backend.addr.wire_v4());
        let words = ipv4(class, len, protocol, [source, destination]);
        ctx.store(L3_OFFSET, words)?;
        L3_OFFSET + Ipv4Hdr::LEN
    } else {
        ctx.store(L3_OFFSET - 2, ETHERTYPE_IPV6.to_be())?;
        let udp_len = if IS_UDP { UdpHdr::LEN as u16 } else { 0 };
        let len = packet.ip_len.wrapping_add(udp_len);
        // The flow label lets routers and receive queues tell the flows of a tunnel apart
        // (RFC 6438).
        let first = 6 << 28 | class << 20 | entropy & 0xf_ffff;
        let second = u32::from(len) << 16 | u32::from(protocol.0) << 8 | OUTER_TTL;
        ctx.store(L3_OFFSET, [first.to_be(), second.to_be()])?;
        ctx.store(L3_OFFSET + 8, backend.source.wire())?;
        ctx.store(L3_OFFSET + 24, backend.addr.wire())?;
        L3_OFFSET + Ipv6Hdr::LEN
    };
    if IS_UDP {
        ctx.store(l4_offset, gue::header(entropy, packet.ip_len))?;
    }
    Some(())
}

/// Twenty bits for headers that have to differ between flows: the sum of a flow's client and ports,
/// spread by a multiplication (Knuth, The Art of Computer Programming, section 6.4). Nothing is chosen
/// by it but a way, so that no key is needed.
#[inline(always)]
fn entropy(flow: &Packet) -> u32 {
    let [a, b, c, d] = flow.source.wire();
    // In host order: what differs most often must be in the low bits, which reach all others.
    let ports = u32::from(flow.destination_port.get()) << 16 | u32::from(flow.source_port.get());
    let sum = u32::from_be(a ^ b ^ c ^ d).wrapping_add(ports);
    sum.wrapping_mul(0x9e37_79b1) >> 12
}

/// An IPv4 header as words of the wire; the addresses are source and destination.
#[inline(always)]
fn ipv4(class: u32, len: u16, protocol: Protocol, [source, destination]: [u32; 2]) -> [u32; 5] {
    let first = (0x45 << 24 | class << 16 | u32::from(len)).to_be();
    let second = DONT_FRAGMENT.to_be();
    let third = OUTER_TTL << 24 | u32::from(protocol.0) << 16;
    let check = [first, second, third.to_be(), source, destination]
        .into_iter()
        .fold(Difference::NONE, Difference::added)
        .whole();
    let third = third | u32::from(u16::from_be(check));
    [first, second, third.to_be(), source, destination]
}

const _: () = assert!(
    L3_OFFSET == EthHdr::LEN,
    "outer headers follow the Ethernet header"
);
