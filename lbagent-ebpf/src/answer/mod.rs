//! Packets that the programs answer themselves: the frame becomes its own answer and leaves by the
//! interface that it came in by.

pub mod echo;
pub mod too_big;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::packet::{Context, L3_OFFSET, Packet, is_host};

/// The bit that tells a link address of many from that of one, as a word of the wire.
const GROUP: u16 = 0x0100_u16.to_be();

/// Makes sender and receiver of the frame, whose Ethernet header lies at an offset, change places in
/// the one at its front.
#[inline(always)]
pub fn turn_around<C: Context>(ctx: &C, offset: usize) -> Option<()> {
    let [a, b, c, d, e, f]: [u16; 6] = ctx.load(offset)?;
    ctx.store(0, [d, e, f, a, b, c])
}

/// Whether a packet may be answered in place. Left to the kernel: IPv4 with options, which a reply
/// would have to turn round too, extension headers, and what many hosts may have got.
#[inline(always)]
pub fn is_answerable<C: Context>(ctx: &C, packet: &Packet) -> bool {
    let header_len = if packet.destination.is_v4() {
        Ipv4Hdr::LEN
    } else {
        Ipv6Hdr::LEN
    };
    let Some([to, _, _, from, _, _]) = ctx.load::<[u16; 6]>(0) else {
        return false;
    };
    packet.l4_offset() == L3_OFFSET + header_len
        && (to | from) & GROUP == 0
        && is_host(&packet.source)
}
