//! The MSS that clients are told. Their packets get an outer header on the way from the gateway to
//! this host, and only this host's SYN-ACK tells them how large a segment may be: the gateway never
//! sees it.

use aya_ebpf::programs::TcContext;
use lbagent_common::Addr;
use lbagent_common::decap::{DecapOutcome, ROLE_VIP};

use crate::maps;
use crate::packet::{self, Bytes};
use crate::tunnel::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_OFFSET, VLAN_LEN};

const PROTOCOL_TCP: u8 = 6;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
/// Offsets in a TCP header (RFC 9293, section 3.1).
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS_OFFSET: usize = 13;
const TCP_CHECK_OFFSET: usize = 16;
const TCP_SYN: u8 = 0x02;
/// Option kinds and length (section 3.2).
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: u8 = 4;
/// A TCP header has room for this many bytes of options.
const OPTIONS_LEN: usize = 40;

/// A SYN or SYN-ACK of a VIP.
struct Syn {
    /// Offset of the TCP header.
    tcp: usize,
    /// Offset behind the TCP header.
    end: usize,
    is_v4: bool,
}

/// Lowers the MSS of a SYN or SYN-ACK of a VIP.
#[inline(always)]
pub fn clamp(ctx: &TcContext) -> DecapOutcome {
    let Some(syn) = parse(ctx) else {
        return DecapOutcome::ClampForeign;
    };
    match lower(ctx, &syn) {
        Some(()) => DecapOutcome::ClampLowered,
        None => DecapOutcome::ClampKept,
    }
}

#[inline(always)]
fn parse(ctx: &TcContext) -> Option<Syn> {
    let (l3_offset, ethertype) = network(ctx)?;
    let (source, tcp, is_v4) = match ethertype {
        ETHERTYPE_IPV4 => {
            packet::ensure(ctx, l3_offset + IPV4_LEN)?;
            let first: u8 = ctx.read(l3_offset)?;
            let protocol: u8 = ctx.read(l3_offset + 9)?;
            let header_len = usize::from(first & 0x0f) * 4;
            if protocol != PROTOCOL_TCP || header_len < IPV4_LEN {
                return None;
            }
            let source = Addr::from_wire_v4(ctx.read(l3_offset + 12)?);
            (source, l3_offset + header_len, true)
        }
        ETHERTYPE_IPV6 => {
            packet::ensure(ctx, l3_offset + IPV6_LEN)?;
            let protocol: u8 = ctx.read(l3_offset + 6)?;
            if protocol != PROTOCOL_TCP {
                return None;
            }
            let source = Addr::from_wire(ctx.read(l3_offset + 8)?);
            (source, l3_offset + IPV6_LEN, false)
        }
        _ => return None,
    };
    packet::ensure(ctx, tcp + TCP_LEN)?;
    let flags: u8 = ctx.read(tcp + TCP_FLAGS_OFFSET)?;
    if flags & TCP_SYN == 0 || !maps::has_role(&source, ROLE_VIP) {
        return None;
    }
    let data_offset: u8 = ctx.read(tcp + TCP_DATA_OFFSET)?;
    let end = tcp + usize::from(data_offset >> 4) * 4;
    packet::ensure(ctx, end)?;
    Some(Syn { tcp, end, is_v4 })
}

/// Offset of the IP header behind up to two VLAN tags in the frame, and the EtherType. A tag that
/// the network card will put in is not in the frame.
#[inline(always)]
fn network(ctx: &TcContext) -> Option<(usize, u16)> {
    let is_tag = |ethertype: u16| matches!(u16::from_be(ethertype), 0x8100 | 0x88a8);
    let mut offset = ETHERTYPE_OFFSET;
    packet::ensure(ctx, offset + 2)?;
    let mut ethertype: u16 = ctx.read(offset)?;
    if is_tag(ethertype) {
        offset += VLAN_LEN;
        packet::ensure(ctx, offset + 2)?;
        ethertype = ctx.read(offset)?;
        if is_tag(ethertype) {
            offset += VLAN_LEN;
            packet::ensure(ctx, offset + 2)?;
            ethertype = ctx.read(offset)?;
        }
    }
    Some((offset + 2, ethertype))
}

/// Finds the option and lowers it; `None` when there is nothing to lower.
#[inline(always)]
fn lower(ctx: &TcContext, syn: &Syn) -> Option<()> {
    let settings = maps::settings()?;
    let limit = if syn.is_v4 {
        settings.mss_v4
    } else {
        settings.mss_v6
    };
    // Byte by byte instead of option by option: so every turn of the loop has the same few states
    // for the verifier. The bound is hidden from the compiler, which would write the loop out.
    let mut skip = 0_u8;
    for index in 0..core::hint::black_box(OPTIONS_LEN) {
        // Hidden as well: the compiler would count from the option's end, and address it with
        // negative offsets, which the verifier takes for accesses outside of the packet.
        let offset = core::hint::black_box(syn.tcp + TCP_LEN + index);
        if offset + usize::from(OPTION_MSS_LEN) > syn.end {
            return None;
        }
        if skip > 0 {
            skip -= 1;
            continue;
        }
        let [kind, len]: [u8; 2] = ctx.read(offset)?;
        match kind {
            OPTION_END => return None,
            OPTION_NOTHING => {}
            OPTION_MSS if len == OPTION_MSS_LEN => {
                let old: u16 = ctx.read(offset + 2)?;
                if limit == 0 || u16::from_be(old) <= limit {
                    return None;
                }
                let check = syn.tcp + TCP_CHECK_OFFSET;
                let is_odd = index % 2 == 1;
                return packet::replace_half(ctx, offset + 2, check, [old, limit.to_be()], is_odd);
            }
            _ if len < 2 => return None,
            _ => skip = len - 1,
        }
    }
    None
}
