//! TCP segments from the VIP to a client, made of the client's own frame.

use aya_ebpf::programs::XdpContext;
use lbagent_common::Protocol;
use lbagent_common::checksum::Difference;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use crate::answer::turn_around;
use crate::kernel;
use crate::packet::{Context, L3_OFFSET, Packet};

/// Flags of a TCP header, where they are in its fourth word (RFC 9293, section 3.1).
pub const FIN: u32 = 0x01 << 16;
/// Likewise.
pub const SYN: u32 = 0x02 << 16;
/// Likewise.
pub const RST: u32 = 0x04 << 16;
/// Likewise.
pub const PSH: u32 = 0x08 << 16;
/// Likewise.
pub const ACK: u32 = 0x10 << 16;
/// Likewise; so many 32-bit words the header has.
pub const HEADER_SHIFT: u32 = 28;

/// Version 4, 20 bytes of header.
const FIRST_V4: u32 = 0x4500_0000;
/// Version 6.
const FIRST_V6: u32 = 0x6000_0000;
const DONT_FRAGMENT: u32 = 0x4000;
const TTL: u32 = 64;
/// What a client may send before it is answered: ten segments, as many as it begins with (RFC 6928).
/// Windows are not scaled.
const WINDOW: u32 = 14_600;
/// Kind and length of the option "maximum segment size".
const MSS: u32 = 0x0204_0000;
/// Bytes of it.
const MSS_LEN: usize = 4;

/// What a reply says; numbers in host order.
pub struct Reply {
    /// Of its first byte.
    pub sequence: u32,
    /// The next byte that is expected.
    pub acknowledged: u32,
    /// Of the fourth word.
    pub flags: u32,
    /// The option of this name; 0 for none.
    pub mss: u32,
}

/// Offset of the TCP header behind an IP header without options.
#[inline(always)]
pub fn tcp_offset(is_v4: bool) -> usize {
    L3_OFFSET + if is_v4 { Ipv4Hdr::LEN } else { Ipv6Hdr::LEN }
}

/// Offset of what a segment without options carries.
#[inline(always)]
pub fn payload_offset(is_v4: bool) -> usize {
    tcp_offset(is_v4) + TcpHdr::LEN
}

/// Makes the frame as long as a reply of its own that carries so many bytes.
#[inline(always)]
pub fn resize(ctx: &XdpContext, is_v4: bool, mss: u32, payload_len: u32) -> Option<()> {
    let option = if mss == 0 { 0 } else { MSS_LEN as u32 };
    let wanted = payload_offset(is_v4) as u32 + option + payload_len;
    kernel::cut_end(ctx, Context::len(ctx) as i32 - wanted as i32)
}

/// Writes the headers of a reply that carries `payload_len` bytes, whose sum is known.
#[inline(always)]
pub fn write(
    ctx: &XdpContext,
    packet: &Packet,
    reply: &Reply,
    payload_len: u32,
    payload_sum: u32,
) -> Option<()> {
    const PROTOCOL: u32 = Protocol::TCP.0 as u32;
    let option = if reply.mss == 0 { 0 } else { MSS_LEN as u32 };
    let tcp_len = TcpHdr::LEN as u32 + option + payload_len;
    turn_around(ctx, 0)?;
    // The pseudo-header: addresses, length, protocol.
    let (from, to) = (&packet.destination, &packet.source);
    let sum = Difference::NONE
        .added((tcp_len + PROTOCOL).to_be())
        .added(payload_sum);
    let (offset, sum) = if from.is_v4() {
        let [first, second, third] = [
            (FIRST_V4 + tcp_len + Ipv4Hdr::LEN as u32).to_be(),
            DONT_FRAGMENT.to_be(),
            (TTL << 24 | PROTOCOL << 16).to_be(),
        ];
        let (from, to) = (from.wire_v4(), to.wire_v4());
        let addresses = Difference::NONE.added(from).added(to);
        let check = addresses.added(first).added(second).added(third).whole();
        let third = third | (u32::from(u16::from_be(check))).to_be();
        ctx.store(L3_OFFSET, [first, second, third, from, to])?;
        (tcp_offset(true), sum.plus(addresses))
    } else {
        let [a, b, c, d] = from.wire();
        let [e, f, g, h] = to.wire();
        let second = (tcp_len << 16 | PROTOCOL << 8 | TTL).to_be();
        ctx.store(
            L3_OFFSET,
            [FIRST_V6.to_be(), second, a, b, c, d, e, f, g, h],
        )?;
        let sum = [a, b, c, d, e, f, g, h]
            .into_iter()
            .fold(sum, Difference::added);
        (tcp_offset(false), sum)
    };
    tcp(ctx, offset, packet, reply, sum)
}

/// Writes the TCP header; `sum` is that of all else that its checksum covers.
#[inline(always)]
fn tcp(
    ctx: &XdpContext,
    offset: usize,
    packet: &Packet,
    reply: &Reply,
    sum: Difference,
) -> Option<()> {
    let words = if reply.mss == 0 { 5 } else { 6 };
    let ports =
        u32::from(packet.destination_port.get()) << 16 | u32::from(packet.source_port.get());
    let [first, second, third, fourth] = [
        ports.to_be(),
        reply.sequence.to_be(),
        reply.acknowledged.to_be(),
        (words << HEADER_SHIFT | reply.flags | WINDOW).to_be(),
    ];
    let option = if reply.mss == 0 {
        0
    } else {
        (MSS | reply.mss).to_be()
    };
    let check = [first, second, third, fourth, option]
        .into_iter()
        .fold(sum, Difference::added)
        .whole();
    // No urgent data behind the checksum.
    let last = (u32::from(u16::from_be(check)) << 16).to_be();
    ctx.store(offset, [first, second, third, fourth, last])?;
    if reply.mss != 0 {
        ctx.store(offset + TcpHdr::LEN, option)?;
    }
    Some(())
}
