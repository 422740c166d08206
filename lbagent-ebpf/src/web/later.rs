//! Segments that are not a connection's first one.
//!
//! Most are of connections that the kernel has. The others are of connections that were answered
//! here, or of such whose first segment is still on its way. What a cookie was made from tells them
//! by how many more bytes the client has acknowledged than sent: an answered client has acknowledged
//! the answer, the other one nothing yet.

use aya_ebpf::programs::XdpContext;
use lbagent_common::redirect::{LONGEST_ANSWER, Passed};
use lbagent_common::{Outcome, Settings};

use super::notes::{ANSWERED, OPENED, PASSED};
use super::reply::{HEADER_SHIFT, SYN};
use super::{Segment, Work, acknowledge, notes, pass};
use crate::outcome::{Packed, Stop};
use crate::packet::Packet;
use crate::{cookie, kernel};

/// An answer and its end.
const ANSWER: u32 = LONGEST_ANSWER + 1;
/// How far a client may send ahead of what is acknowledged.
const WINDOW: i32 = 0xffff;
/// Cookies tell a client's maximum segment size by their lowest bits, so they differ by up to 3.
const SIZES: i32 = 3;

/// What becomes of such a segment.
#[inline(always)]
pub fn segment(
    ctx: &XdpContext,
    packet: &Packet,
    settings: &Settings,
    work: &mut Work,
    segment: &Segment,
) -> Packed {
    let is_silent = segment.len == 0 && segment.fin == 0;
    let tick = kernel::tick();
    let mut kind = 0;
    if let Some(place) = notes::place(settings, packet) {
        let note = place.get();
        kind = note.kind_for(segment, tick, ANSWER);
        if kind == ANSWERED {
            return close(ctx, packet, segment, is_silent);
        }
        // The kernel may not have got to the first segment yet.
        if kind == PASSED && note.is_fresh(tick) {
            return pass(Passed::CookieInvalid);
        }
    }
    if cookie::has_connection(ctx, packet, &mut work.header) {
        return pass(Passed::CookieInvalid);
    }
    if kind == OPENED {
        return early(is_silent);
    }
    match distance(ctx, packet, work, segment) {
        Some(distance) if is_silent && distance.unsigned_abs() <= WINDOW as u32 => early(true),
        Some(distance) if distance > SIZES && distance <= SIZES + ANSWER as i32 => {
            close(ctx, packet, segment, is_silent)
        }
        Some(distance) if (-WINDOW..0).contains(&distance) => early(false),
        // Of a connection that this host does not know: the kernel resets it.
        _ => pass(Passed::CookieInvalid),
    }
}

/// After an answer: what else the client sends is acknowledged, so that it can close.
#[inline(always)]
fn close(ctx: &XdpContext, packet: &Packet, segment: &Segment, is_silent: bool) -> Packed {
    if is_silent {
        Packed::absorbed()
    } else {
        acknowledge(ctx, packet, segment, 0)
    }
}

/// Before the first segment: whatever this one carries comes again, behind it.
#[inline(always)]
fn early(is_silent: bool) -> Packed {
    if is_silent {
        Packed::absorbed()
    } else {
        Packed::new(Err(Stop::Drop(Outcome::DropUnordered)))
    }
}

/// By how many more bytes the client has acknowledged than sent, if its connection began with a
/// cookie of this minute; a large number otherwise, most probably. [`SIZES`] more at most.
#[inline(always)]
fn distance(ctx: &XdpContext, packet: &Packet, work: &mut Work, segment: &Segment) -> Option<i32> {
    let ports =
        u32::from(packet.source_port.get()) << 16 | u32::from(packet.destination_port.get());
    // A SYN whose first byte would be this segment's: cookies count the sequence number in, as it is.
    let header = &mut work.header;
    header[0] = ports.to_be();
    header[1] = segment.sequence.wrapping_sub(1).to_be();
    header[2] = 0;
    header[3] = (5 << HEADER_SHIFT | SYN).to_be();
    header[4] = 0;
    let cookie = cookie::current(ctx, packet.destination.is_v4(), header)?;
    Some(segment.acknowledged.wrapping_sub(1).wrapping_sub(cookie) as i32)
}
