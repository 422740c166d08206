//! The first segment with data of a connection that began with a cookie.

use core::ffi::c_void;

use aya_ebpf::programs::XdpContext;
use lbagent_common::checksum::Difference;
use lbagent_common::redirect::{PREFIX, Passed, SUFFIX, Text, answer_len, words};
use lbagent_common::{Outcome, Protocol, Settings, TERMINATOR_V4, TERMINATOR_V6, VipEntry};
use network_types::tcp::TcpHdr;

use super::maps::Place;
use super::notes::{self, ANSWERED, Note, PASSED};
use super::reply::{FIN, HEADER_SHIFT, PSH, SYN, payload_offset, resize, tcp_offset, write};
use super::{Segment, Work, answered, copy, maps, pass};
use crate::cookie::{self, with_listener};
use crate::kernel;
use crate::maps::host;
use crate::outcome::Packed;
use crate::packet::{Context, Packet, opaque, zero};

/// Answers a request, or leaves it to the terminator.
#[inline(always)]
pub fn answer(
    ctx: &XdpContext,
    packet: &Packet,
    vip: &VipEntry,
    settings: &Settings,
    work: &mut Work,
    segment: &Segment,
) -> Packed {
    let place = notes::place(settings, packet);
    let tick = kernel::tick();
    let decided = match &place {
        // What was passed before, and may have reached the terminator, is not answered twice.
        Some(place) if place.get().kind_for(segment, tick, 0) == PASSED => Err(Passed::Segmented),
        _ => decide(ctx, packet, vip, work, segment),
    };
    match decided {
        Ok(()) => {
            note(
                place,
                Note::new(ANSWERED, tick, segment.end(), segment.acknowledged),
            );
            let written = finish(ctx, packet, work, segment);
            answered(written, Outcome::AnswerRedirect)
        }
        // The kernel drops what was damaged on the way: nothing got it.
        Err(Passed::OddSegment) => pass(Passed::OddSegment),
        Err(reason) => {
            note(
                place,
                Note::new(PASSED, tick, segment.sequence, segment.acknowledged),
            );
            prepare_listener(ctx, packet, work);
            pass(reason)
        }
    }
}

#[inline(always)]
fn note(place: Option<Place>, note: Note) {
    if let Some(place) = place {
        place.put(note);
    }
}

/// Whether the request is to be answered; the frame then is as long as the answer.
#[inline(always)]
fn decide(
    ctx: &XdpContext,
    packet: &Packet,
    vip: &VipEntry,
    work: &mut Work,
    segment: &Segment,
) -> Result<(), Passed> {
    let is_v4 = packet.destination.is_v4();
    if segment.len > Text::LONGEST {
        return Err(Passed::TooLong);
    }
    if !copy::load_text(ctx, payload_offset(is_v4), &mut work.text, segment.len) {
        return Err(Passed::OddSegment);
    }
    // The compiler knows that the length is short enough, older verifiers do not: it keeps the mask.
    work.text.end_at(opaque(segment.len));
    if !is_whole(ctx, packet, work, segment) {
        return Err(Passed::OddSegment);
    }
    work.head.begin(&work.text, segment.len, zero());
    copy::repeat(segment.len, step);
    work.names.clear(u64::from(zero()));
    copy::repeat(work.head.name_words(), name);
    work.head.end()?;
    is_wanted(vip, work)?;
    let len = answer_len(work.head.host_len(), work.head.target_len());
    resize(ctx, is_v4, 0, len).ok_or(Passed::NoRoom)
}

/// Whether the checksum of a segment without options holds.
#[inline(always)]
fn is_whole(ctx: &XdpContext, packet: &Packet, work: &mut Work, segment: &Segment) -> bool {
    let Some(header) = ctx.load::<[u32; 5]>(tcp_offset(packet.destination.is_v4())) else {
        return false;
    };
    let mut payload = 0;
    for part in 0..Text::LONGEST.div_ceil(copy::PART) {
        if segment.len > part * copy::PART {
            match copy::sum_text(&mut work.text, part, segment.len, payload) {
                Some(sum) => payload = sum,
                None => return false,
            }
        }
    }
    let len = segment.len + TcpHdr::LEN as u32 + u32::from(Protocol::TCP.0);
    let sum = Difference::NONE.added(len.to_be()).added(payload);
    let sum = header.iter().fold(sum, |sum, word| sum.added(*word));
    let sum = if packet.destination.is_v4() {
        sum.added(packet.source.wire_v4())
            .added(packet.destination.wire_v4())
    } else {
        let [a, b, c, d] = packet.source.wire();
        let [e, f, g, h] = packet.destination.wire();
        [a, b, c, d, e, f, g, h]
            .into_iter()
            .fold(sum, Difference::added)
    };
    sum.whole() == 0
}

/// Reads a part of the head. Nothing is passed to the calls: what a function gets by a pointer on the
/// stack of its caller is beyond older verifiers.
extern "C" fn step(_index: u32, _context: *mut c_void) -> u64 {
    let Some(work) = maps::work() else {
        return 1;
    };
    u64::from(!work.head.step(&work.text))
}

/// Reads a word of the names.
extern "C" fn name(index: u32, _context: *mut c_void) -> u64 {
    let Some(work) = maps::work() else {
        return 1;
    };
    work.head.name(&work.text, &mut work.names, index);
    0
}

/// Whether the host name's clients are sent to HTTPS on this VIP.
#[inline(always)]
fn is_wanted(vip: &VipEntry, work: &Work) -> Result<(), Passed> {
    let bit = vip.bit();
    let entry = match host(&work.names.exact) {
        Some(entry) if entry.serves & bit != 0 => entry,
        _ => match host(&work.names.wildcard) {
            Some(entry) if entry.serves & bit != 0 => entry,
            _ => return Err(Passed::UnknownHost),
        },
    };
    if entry.redirects & bit == 0 {
        return Err(Passed::OtherHandler);
    }
    Ok(())
}

/// Writes the answer; `None` leaves a damaged frame.
#[inline(always)]
fn finish(ctx: &XdpContext, packet: &Packet, work: &mut Work, segment: &Segment) -> Option<()> {
    let is_v4 = packet.destination.is_v4();
    let payload = payload_offset(is_v4);
    let head = &work.head;
    let (host_len, target_len) = (head.host_len(), head.target_len());
    let (host_at, target_at) = (head.host_at(), head.target_at());
    let mut offset = payload as u32;
    const PREFIX_LEN: u32 = PREFIX.len() as u32;
    const SUFFIX_LEN: u32 = SUFFIX.len() as u32;
    const BEFORE: [u64; 7] = words(PREFIX);
    const BEHIND: [u64; 6] = words(SUFFIX);
    let memory = &mut work.answer;
    let mut is_stored = copy::store_known(ctx, offset, &BEFORE, PREFIX_LEN, memory);
    offset += PREFIX_LEN;
    is_stored &= copy::store_text(ctx, offset, &mut work.text, host_at, host_len);
    offset = offset.wrapping_add(host_len);
    is_stored &= copy::store_text(ctx, offset, &mut work.text, target_at, target_len);
    offset = offset.wrapping_add(target_len);
    is_stored &= copy::store_known(ctx, offset, &BEHIND, SUFFIX_LEN, &mut work.answer);
    let len = answer_len(host_len, target_len);
    if !is_stored || !copy::load_answer(ctx, payload, &mut work.answer, len) {
        return None;
    }
    let sum = copy::sum_answer(&mut work.answer, len)?;
    write(ctx, packet, &segment.reply(PSH | FIN), len, sum)
}

/// The socket that the kernel is about to look up takes a cookie only if it has itself answered a SYN
/// with one in the last two minutes. The one that answered this client may have been replaced.
#[inline(always)]
fn prepare_listener(ctx: &XdpContext, packet: &Packet, work: &mut Work) {
    let is_v4 = packet.destination.is_v4();
    let index = if is_v4 { TERMINATOR_V4 } else { TERMINATOR_V6 };
    let header = &mut work.header;
    header[0] = 0;
    header[1] = 0;
    header[2] = 0;
    header[3] = (5 << HEADER_SHIFT | SYN).to_be();
    header[4] = 0;
    with_listener(index, |listener| {
        cookie::answer(ctx, is_v4, listener, header, TcpHdr::LEN as u32)
    });
}
