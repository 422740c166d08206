//! IPv6 extension headers (RFC 8200, section 4) in front of the transport header.

use lbagent_common::{Outcome, Protocol};
use network_types::ip::Ipv6Hdr;

use super::parse::{MORE_FRAGMENTS, Packet};
use super::{Context, L3_OFFSET, unknown_zero};
use crate::outcome::Packed;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// The most headers that are walked.
const MAX_HEADERS: u32 = 6;
/// The most bytes of them: more passes, as a host may refuse it too (RFC 8504, section 5.3).
const MAX_BYTES: usize = 256;
/// Ethernet, IPv6, the most of extension headers that is walked, and TCP without options.
const WANTED: u32 = (START + MAX_BYTES) as u32 + 20;
const START: usize = L3_OFFSET + Ipv6Hdr::LEN;

/// Whether a fragmentable part that starts with this header may hold a TCP or UDP packet.
#[inline(always)]
pub fn may_hold_transport(protocol: Protocol) -> bool {
    protocol == Protocol::TCP
        || protocol == Protocol::UDP
        || protocol.0 == ROUTING
        || protocol.0 == DESTINATION_OPTIONS
}

/// Finds the transport header behind extension headers, or the end at a later fragment's header.
///
/// Passed instead: what is longer than the limits; a routing header that sends the packet on
/// elsewhere; everything that is no TCP or UDP, authentication headers included, because what they
/// sign would be rewritten.
#[inline(never)]
pub fn walk<C: Context>(ctx: &C, packet: &mut Packet) -> Packed {
    const ELSE: Packed = Packed::passed(Outcome::PassProtocol);
    const TRUNCATED: Packed = Packed::passed(Outcome::PassTruncated);
    let mut next = packet.protocol.0;
    let mut offset = START;
    let mut count = 0;
    // Opaque to the compiler, so that the verifier walks one copy of the body.
    let most = core::hint::black_box(MAX_HEADERS);
    if is_extension(next) {
        ctx.pull(WANTED);
    }
    while count < most && count < MAX_HEADERS && is_extension(next) {
        let Some(word) = ctx.load::<u32>(offset) else {
            return TRUNCATED;
        };
        let [following, units, third, fourth] = word.to_ne_bytes();
        let mut len = 8 + usize::from(units) * 8;
        if next == FRAGMENT {
            let Some(identification) = ctx.load::<u32>(offset + 4) else {
                return TRUNCATED;
            };
            // Offset, two reserved bits, "more": 13 + 2 + 1 bits (RFC 8200, section 4.5).
            let field = u32::from(u16::from_be_bytes([third, fourth]));
            packet.fragment = u32::from(following) << 16 | field >> 3;
            if field & 1 != 0 {
                packet.fragment |= MORE_FRAGMENTS;
            }
            packet.identification = identification;
            len = 8;
        }
        if next == ROUTING && fourth != 0 {
            return ELSE;
        }
        next = following;
        // Unknown, so that the verifier does not tell apart by which headers it came to be.
        offset += len + unknown_zero(word) as usize;
        // Hop-by-hop options stand first or are none.
        if offset > START + MAX_BYTES || next == HOP_BY_HOP {
            return ELSE;
        }
        if packet.is_later_fragment() {
            break;
        }
        count += 1;
    }
    packet.protocol = Protocol(next);
    packet.raw_l4_offset = offset as u32 + unknown_zero(ctx.len());
    Packed::ONWARDS
}

#[inline(always)]
fn is_extension(header: u8) -> bool {
    header == HOP_BY_HOP || header == ROUTING || header == FRAGMENT || header == DESTINATION_OPTIONS
}
