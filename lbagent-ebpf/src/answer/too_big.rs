//! "Fragmentation needed" (RFC 792, RFC 1191 section 4) and "packet too big" (RFC 4443 section
//! 3.2): the sender learns the MTU of the way to the backend, less what the gateway adds.
//!
//! The answer comes from the VIP's address and quotes the start of the packet, as much as a packet
//! of the least MTU holds. All packets that are answered are longer than that, so quotes have a
//! fixed length, which the verifier wants for checksums.

use lbagent_common::checksum::Difference;
use lbagent_common::{Outcome, Protocol};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::turn_around;
use crate::outcome::{Packed, Stop};
use crate::packet::{Context, ETHERTYPE_IPV4, ETHERTYPE_IPV6, L3_OFFSET, Packet, is_host};
use crate::{kernel, maps};

/// Bytes of an ICMP error before its quote.
const ICMP_LEN: usize = 8;
/// Bytes quoted of an IPv4 packet: within 576 bytes of answer (RFC 1812, section 4.3.2.3), and what
/// one call of `bpf_csum_diff` takes.
const QUOTE_V4: usize = 512;
/// Bytes quoted of an IPv6 packet: all that fits in the least MTU (RFC 4443, section 3.2).
const QUOTE_V6: usize = MIN_MTU_V6 as usize - Ipv6Hdr::LEN - ICMP_LEN;
/// Every IPv4 host takes packets of this size, and links that carry less are history.
const MIN_MTU_V4: u16 = 576;
/// Every IPv6 link carries packets of this size, so none that is smaller is too big (RFC 8200,
/// section 5).
const MIN_MTU_V6: u16 = 1280;

/// Destination unreachable, fragmentation needed.
const TYPE_V4: u32 = 0x0304_0000;
/// Packet too big.
const TYPE_V6: u32 = 0x0200_0000;
/// Internetwork control (RFC 1812, section 4.3.2.5), 20 bytes of header.
const FIRST_V4: u32 = 0x45c0_0000;
const DONT_FRAGMENT: u32 = 0x4000;
const TTL: u32 = 64;
/// Offsets of both addresses in their headers.
const ADDRESSES_V4: usize = core::mem::offset_of!(Ipv4Hdr, src_addr);
const ADDRESSES_V6: usize = core::mem::offset_of!(Ipv6Hdr, src_addr);

/// Answers a packet that is larger than the way to its backend allows (XDP only).
#[inline(always)]
pub fn answer<C: Context>(ctx: &C, packet: &Packet, mtu: u32) -> Packed {
    Packed::new(Err(match write(ctx, packet, mtu) {
        Answer::Written => Stop::Answer(Outcome::AnswerTooBig),
        Answer::OverLimit => Stop::Drop(Outcome::DropAnswerLimit),
        Answer::None => Stop::Drop(Outcome::DropTooBig),
    }))
}

/// What became of a packet that is too large.
enum Answer {
    /// Its sender is told.
    Written,
    /// This CPU answered enough in this tick.
    OverLimit,
    /// The source is no host's address, the size is not what is wrong with the packet, or there is
    /// not as much of it as is quoted.
    None,
}

#[inline(always)]
fn write<C: Context>(ctx: &C, packet: &Packet, mtu: u32) -> Answer {
    let is_v4 = packet.destination.is_v4();
    let is_useful = if is_v4 {
        packet.ip_len > MIN_MTU_V4
    } else {
        packet.ip_len > MIN_MTU_V6 && mtu >= u32::from(MIN_MTU_V6)
    };
    // Errors are not answered with errors.
    let is_flow = matches!(packet.protocol, Protocol::TCP | Protocol::UDP);
    if !is_useful || !is_flow || !is_host(&packet.source) {
        return Answer::None;
    }
    let per_tick = maps::settings().map_or(0, |settings| settings.answers_per_tick);
    if !maps::take_answer(kernel::tick(), per_tick) {
        return Answer::OverLimit;
    }
    let written = if is_v4 {
        ipv4(ctx, mtu)
    } else {
        ipv6(ctx, mtu)
    };
    written.map_or(Answer::None, |()| Answer::Written)
}

/// Leaves the Ethernet header and the quote, and makes room in front of them.
#[inline(always)]
fn cut<C: Context>(ctx: &C, quote: usize, added: usize) -> Option<()> {
    let surplus = ctx.len() as i32 - (L3_OFFSET + quote) as i32;
    if surplus < 0 {
        return None;
    }
    kernel::cut_end(ctx, surplus)?;
    kernel::grow_front(ctx, added as i32)
}

#[inline(always)]
fn ipv4<C: Context>(ctx: &C, mtu: u32) -> Option<()> {
    const ADDED: usize = Ipv4Hdr::LEN + ICMP_LEN;
    const LEN: u32 = (ADDED + QUOTE_V4) as u32;
    let [destination, source]: [u32; 2] = ctx.load(L3_OFFSET + ADDRESSES_V4)?;
    cut(ctx, QUOTE_V4, ADDED)?;
    turn_around(ctx, ADDED)?;
    ctx.store(L3_OFFSET - 2, ETHERTYPE_IPV4.to_be())?;
    let protocol = u32::from(Protocol::ICMP.0);
    let [first, second, third] = [FIRST_V4 | LEN, DONT_FRAGMENT, TTL << 24 | protocol << 16];
    let check = [
        first.to_be(),
        second.to_be(),
        third.to_be(),
        source,
        destination,
    ]
    .into_iter()
    .fold(Difference::NONE, Difference::added)
    .whole();
    let third = third | u32::from(u16::from_be(check));
    ctx.store(
        L3_OFFSET,
        [
            first.to_be(),
            second.to_be(),
            third.to_be(),
            source,
            destination,
        ],
    )?;
    let quoted = kernel::sum::<C, QUOTE_V4>(ctx, L3_OFFSET + ADDED, 0)?;
    let sum = Difference::NONE.added(quoted);
    icmp(ctx, L3_OFFSET + Ipv4Hdr::LEN, TYPE_V4, mtu & 0xffff, sum)
}

#[inline(always)]
fn ipv6<C: Context>(ctx: &C, mtu: u32) -> Option<()> {
    const ADDED: usize = Ipv6Hdr::LEN + ICMP_LEN;
    const LEN: u32 = (ICMP_LEN + QUOTE_V6) as u32;
    const PART: usize = 512;
    const REST: usize = QUOTE_V6 - 2 * PART;
    cut(ctx, QUOTE_V6, ADDED)?;
    turn_around(ctx, ADDED)?;
    ctx.store(L3_OFFSET - 2, ETHERTYPE_IPV6.to_be())?;
    let quote = L3_OFFSET + ADDED;
    let destination: [u32; 4] = ctx.load(quote + ADDRESSES_V6)?;
    let source: [u32; 4] = ctx.load(quote + ADDRESSES_V6 + 16)?;
    let protocol = u32::from(Protocol::ICMPV6.0);
    let second = LEN << 16 | protocol << 8 | TTL;
    ctx.store(L3_OFFSET, [(6_u32 << 28).to_be(), second.to_be()])?;
    ctx.store(L3_OFFSET + ADDRESSES_V6, source)?;
    ctx.store(L3_OFFSET + ADDRESSES_V6 + 16, destination)?;
    // The pseudo-header (RFC 8200, section 8.1): addresses, length, protocol.
    let pseudo = source
        .into_iter()
        .chain(destination)
        .chain([LEN.to_be(), protocol.to_be()])
        .fold(Difference::NONE, Difference::added);
    let sum = kernel::sum::<C, PART>(ctx, quote, pseudo.wsum())?;
    let sum = kernel::sum::<C, PART>(ctx, quote + PART, sum)?;
    let sum = kernel::sum::<C, REST>(ctx, quote + 2 * PART, sum)?;
    let sum = Difference::NONE.added(sum);
    icmp(ctx, L3_OFFSET + Ipv6Hdr::LEN, TYPE_V6, mtu, sum)
}

/// Writes the ICMP header; `sum` is that of all else that its checksum covers.
#[inline(always)]
fn icmp<C: Context>(ctx: &C, offset: usize, kind: u32, mtu: u32, sum: Difference) -> Option<()> {
    let check = sum.added(kind.to_be()).added(mtu.to_be()).whole();
    let kind = kind | u32::from(u16::from_be(check));
    ctx.store(offset, [kind.to_be(), mtu.to_be()])
}
