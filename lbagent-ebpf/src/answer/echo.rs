//! Echo replies (RFC 792; RFC 4443, section 4.2): the request with its addresses changed round, so
//! that whoever pings a VIP learns that its gateway lives, at no cost to the kernel.

use core::mem::offset_of;

use lbagent_common::Outcome;
use lbagent_common::checksum::Difference;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::{is_answerable, turn_around};
use crate::outcome::{Packed, Stop};
use crate::packet::{Context, L3_OFFSET, Packet};
use crate::{kernel, maps};

/// TTL or hop limit of an answer.
const TTL: u8 = 64;
/// Type and code of the replies, as words of the wire.
const REPLY_V4: u16 = 0;
const REPLY_V6: u16 = 0x8100_u16.to_be();

/// Answers an echo request for a VIP, while this CPU may.
#[inline(never)]
pub fn answer<C: Context>(ctx: &C, packet: &Packet) -> Packed {
    Packed::new(Err(if !is_answerable(ctx, packet) {
        Stop::Pass(Outcome::PassIcmp)
    } else if !is_allowed() {
        Stop::Drop(Outcome::DropAnswerLimit)
    } else if write(ctx, packet).is_some() {
        Stop::Answer(Outcome::AnswerEcho)
    } else {
        Stop::Drop(Outcome::DropRewrite)
    }))
}

#[inline(always)]
fn is_allowed() -> bool {
    maps::settings()
        .is_some_and(|settings| maps::take_answer(kernel::tick(), settings.answers_per_tick))
}

#[inline(always)]
fn write<C: Context>(ctx: &C, packet: &Packet) -> Option<()> {
    turn_around(ctx, 0)?;
    // Addresses that change places change no checksum.
    if packet.destination.is_v4() {
        const ADDRESSES: usize = L3_OFFSET + offset_of!(Ipv4Hdr, src_addr);
        const TTL_OFFSET: usize = L3_OFFSET + offset_of!(Ipv4Hdr, ttl);
        const CHECK: usize = L3_OFFSET + offset_of!(Ipv4Hdr, check);
        let (source, destination) = (packet.source.wire_v4(), packet.destination.wire_v4());
        let counted = u16::from_be_bytes(ctx.load(TTL_OFFSET)?);
        let answered = u16::from(TTL) << 8 | counted & 0xff;
        let check: u16 = ctx.load(CHECK)?;
        let check = Difference::NONE
            .half(counted.to_be(), answered.to_be())
            .apply(check);
        ctx.store(TTL_OFFSET, TTL)?;
        ctx.store(CHECK, check)?;
        ctx.store(ADDRESSES, [destination, source])?;
        reply(ctx, L3_OFFSET + Ipv4Hdr::LEN, REPLY_V4)
    } else {
        ctx.store(L3_OFFSET + offset_of!(Ipv6Hdr, hop_limit), TTL)?;
        let offset = L3_OFFSET + offset_of!(Ipv6Hdr, src_addr);
        ctx.store(offset, packet.destination.wire())?;
        ctx.store(offset + 16, packet.source.wire())?;
        reply(ctx, L3_OFFSET + Ipv6Hdr::LEN, REPLY_V6)
    }
}

/// Makes the request at `offset` a reply.
#[inline(always)]
fn reply<C: Context>(ctx: &C, offset: usize, kind: u16) -> Option<()> {
    let [old, check]: [u16; 2] = ctx.load(offset)?;
    let check = match Difference::NONE.half(old, kind).apply(check) {
        // Of the two forms of zero the one that holds for a reply that is all zeros too: a sum is 0
        // only if everything is.
        0 => 0xffff,
        check => check,
    };
    ctx.store(offset, [kind, check])
}
