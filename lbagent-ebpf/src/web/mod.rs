//! Answers for the terminator, before the kernel has seen a packet: SYNs by cookies, and requests for
//! host names that redirect (`docs/redirect.md`).
//!
//! Nothing is kept about anybody who has not proved by a cookie that answers reach him. Whatever is
//! not plain is the kernel's, which completes the connection from the cookie, and the terminator's.

pub mod copy;
mod later;
pub mod maps;
mod notes;
mod reply;
mod request;

use aya_ebpf::programs::XdpContext;
use lbagent_common::redirect::{Head, HostNames, Passed, Text};
use lbagent_common::{Outcome, Settings, TERMINATOR_V4, TERMINATOR_V6, VipEntry};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use self::reply::{ACK, FIN, HEADER_SHIFT, PSH, RST, Reply, SYN};
use crate::answer::is_answerable;
use crate::cookie::{self, with_listener};
use crate::kernel;
use crate::maps::settings;
use crate::outcome::{Packed, Stop};
use crate::packet::{Context, Packet};

/// Memory of the stages, where what they know has no room on the stack.
#[repr(C)]
pub struct Work {
    text: Text,
    names: HostNames,
    answer: copy::Answer,
    header: copy::Header,
    head: Head,
}

/// What a TCP header says; numbers in host order.
pub struct Segment {
    /// Of its first byte.
    pub sequence: u32,
    /// What the client expects next.
    pub acknowledged: u32,
    /// Bytes that it carries.
    pub len: u32,
    /// 1 for a FIN.
    pub fin: u32,
}

impl Segment {
    /// The number of what comes behind it.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.len).wrapping_add(self.fin)
    }

    /// What acknowledges it.
    #[inline(always)]
    pub fn reply(&self, flags: u32) -> Reply {
        Reply {
            sequence: self.acknowledged,
            acknowledged: self.end(),
            flags: flags | ACK,
            mss: 0,
        }
    }
}

/// Left to the terminator, for a reason that is counted.
#[inline(always)]
pub fn pass(reason: Passed) -> Packed {
    maps::count(reason);
    Packed::passed(Outcome::PassRedirect)
}

/// Of a reply that is written, or could not be.
#[inline(always)]
fn answered(written: Option<()>, outcome: Outcome) -> Packed {
    Packed::new(Err(match written {
        Some(()) => Stop::Answer(outcome),
        None => Stop::Drop(Outcome::DropRewrite),
    }))
}

/// Answers a packet for a terminated port, or leaves it to the terminator.
#[inline(always)]
pub fn serve(ctx: &XdpContext, packet: &Packet, vip: &VipEntry) -> Packed {
    const KERNELS: Packed = Packed::passed(Outcome::PassTerminate);
    // First of all: the verifier then sees nothing of what follows where there are no cookies.
    if !maps::has_cookies() {
        return KERNELS;
    }
    let (Some(settings), Some(work)) = (settings(), maps::work()) else {
        return KERNELS;
    };
    let redirects = vip.flags & VipEntry::FLAG_REDIRECT != 0;
    if packet.starts_connection() {
        if !redirects && !is_flooded(settings, vip) {
            return KERNELS;
        }
        let outcome = if redirects {
            Outcome::AnswerCookie
        } else {
            Outcome::AnswerShield
        };
        // A connection that is not quite over (TIME_WAIT) would get what passes up later, and not answer
        // it: the kernel itself lets the new one take its place.
        if redirects
            && notes::may_be_left(packet)
            && cookie::has_connection(ctx, packet, &mut work.header)
        {
            notes::leave(packet);
            return pass(Passed::SynUnanswered);
        }
        return match syn(ctx, packet, settings, work) {
            Some(written) => answered(written, outcome),
            None if redirects => {
                notes::leave(packet);
                pass(Passed::SynUnanswered)
            }
            None => KERNELS,
        };
    }
    if !redirects {
        return KERNELS;
    }
    let end = segment(ctx, packet, vip, settings, work);
    if end.is_passed() {
        notes::leave(packet);
    }
    end
}

/// Whether a VIP got so many SYNs in this tick that this one is answered here.
#[inline(always)]
fn is_flooded(settings: &Settings, vip: &VipEntry) -> bool {
    match settings.shield_mode {
        Settings::SHIELD_ON => true,
        Settings::SHIELD_AUTO => maps::syns(vip.vip_index)
            .is_some_and(|syns| !syns.take(kernel::tick(), settings.shield_per_tick)),
        _ => false,
    }
}

/// Answers a SYN with a cookie. `None` where the kernel has to: the packet is as it was.
#[inline(always)]
fn syn(
    ctx: &XdpContext,
    packet: &Packet,
    settings: &Settings,
    work: &mut Work,
) -> Option<Option<()>> {
    let is_v4 = packet.destination.is_v4();
    let offset = reply::tcp_offset(is_v4);
    let words: [u32; 5] = ctx.load(offset)?;
    let [_, sequence, _, fourth, _] = words.map(u32::from_be);
    let len = fourth >> HEADER_SHIFT << 2;
    if fourth & (FIN | RST) != 0
        || len < TcpHdr::LEN as u32
        || packet.is_first_fragment()
        || !is_answerable(ctx, packet)
        || !copy::load_header(ctx, offset, &mut work.header, len)
    {
        return None;
    }
    let (index, until) = if is_v4 {
        (TERMINATOR_V4, settings.cookies_until[0])
    } else {
        (TERMINATOR_V6, settings.cookies_until[1])
    };
    if kernel::tick() > until {
        return None;
    }
    let cookie = with_listener(index, |listener| {
        cookie::answer(ctx, is_v4, listener, &mut work.header, len)
    })?;
    // The answer is not longer than the question, so that nobody can make the gateway send more to
    // somebody else than he sends himself.
    let mss = if len == TcpHdr::LEN as u32 {
        0
    } else {
        mss(ctx, is_v4)
    };
    let reply = Reply {
        sequence: cookie,
        acknowledged: sequence.wrapping_add(1),
        flags: SYN | ACK,
        mss,
    };
    reply::resize(ctx, is_v4, mss, 0)?;
    Some(reply::write(ctx, packet, &reply, 0, 0))
}

/// The largest segment that a client should send: what the interface takes that it is behind.
#[inline(always)]
fn mss(ctx: &XdpContext, is_v4: bool) -> u32 {
    let headers = TcpHdr::LEN + if is_v4 { Ipv4Hdr::LEN } else { Ipv6Hdr::LEN };
    cookie::mtu(ctx).saturating_sub(headers as u32) & 0xffff
}

/// Any other segment for a port that redirects.
#[inline(always)]
fn segment(
    ctx: &XdpContext,
    packet: &Packet,
    vip: &VipEntry,
    settings: &Settings,
    work: &mut Work,
) -> Packed {
    let is_v4 = packet.destination.is_v4();
    let offset = reply::tcp_offset(is_v4);
    let Some(words) = ctx.load::<[u32; 5]>(offset) else {
        return pass(Passed::OddSegment);
    };
    let [_, sequence, acknowledged, fourth, _] = words.map(u32::from_be);
    let headers = (offset - crate::packet::L3_OFFSET + TcpHdr::LEN) as u32;
    let segment = Segment {
        sequence,
        acknowledged,
        len: u32::from(packet.ip_len).wrapping_sub(headers),
        fin: (fourth & FIN) >> 16,
    };
    // No options were agreed on, so a segment with some is of a connection of the kernel's; as is one
    // that is reset.
    if fourth >> HEADER_SHIFT != 5 || fourth & RST != 0 {
        return pass(Passed::CookieInvalid);
    }
    const FLAGS: u32 = 0xff << 16;
    if fourth & FLAGS & !(FIN | PSH) != ACK
        || packet.is_first_fragment()
        || !is_answerable(ctx, packet)
        || u32::from(packet.ip_len) < headers
        || (offset + TcpHdr::LEN) as u32 + segment.len > Context::len(ctx)
    {
        return pass(Passed::OddSegment);
    }
    if !cookie::is_valid(ctx, is_v4) {
        return later::segment(ctx, packet, settings, work, &segment);
    }
    if segment.len > 0 {
        return request::answer(ctx, packet, vip, settings, work, &segment);
    }
    if segment.fin != 0 {
        // A client that has nothing to say after all.
        return acknowledge(ctx, packet, &segment, FIN);
    }
    if let Some(place) = notes::place(settings, packet) {
        let tick = kernel::tick();
        // Nothing is noted twice: what a client repeats does not make its connection younger.
        place.put(notes::Note::new(
            notes::OPENED,
            tick,
            sequence,
            acknowledged,
        ));
    }
    Packed::absorbed()
}

/// Acknowledges a segment and does not look at what it carries.
#[inline(always)]
fn acknowledge(ctx: &XdpContext, packet: &Packet, segment: &Segment, flags: u32) -> Packed {
    let is_v4 = packet.destination.is_v4();
    if reply::resize(ctx, is_v4, 0, 0).is_none() {
        return pass(Passed::NoRoom);
    }
    let written = reply::write(ctx, packet, &segment.reply(flags), 0, 0);
    answered(written, Outcome::AnswerClose)
}
