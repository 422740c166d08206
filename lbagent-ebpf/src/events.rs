//! Tells whoever watches what became of sampled packets.
//!
//! Off unless somebody watches, and then a comparison of the settings is all that it costs. What
//! is known of a packet is collected in a map, not on the stack of those who handle packets: the
//! headers when it arrives, because they are rewritten; the backend when the packet is counted for
//! it; the outcome at the end.

use core::mem::offset_of;

use lbagent_common::{Addr, BackendId, FlowEvent, Outcome, Port, Protocol, Settings};
use network_types::eth::EthHdr;
use network_types::ip::Ipv6Hdr;

use crate::packet::{Context, L3_OFFSET, no_address, zero};
use crate::{kernel, maps};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Whether packets are sampled at all.
#[inline(always)]
fn is_watched(settings: &Settings) -> bool {
    settings.sample_shift != 0
}

/// Before anything is done with a packet: decides whether it is one of the sample.
#[inline(always)]
pub fn arrived<C: Context>(ctx: &C, settings: &Settings) {
    if is_watched(settings) {
        sample(ctx);
    }
}

/// When a packet is counted for its backend. Of a reply, its source tells the backend.
#[inline(always)]
pub fn has_backend(settings: &Settings, vip_id: u32, backend: BackendId) {
    if is_watched(settings) {
        note_backend(vip_id, backend);
    }
}

/// When a packet has its outcome. The program's action passes through, so that nobody has to keep
/// it meanwhile.
#[inline(always)]
pub fn ended(settings: &Settings, outcome: Outcome, action: u32) -> u32 {
    if is_watched(settings) {
        tell(outcome as u32, action)
    } else {
        action
    }
}

#[inline(never)]
fn sample<C: Context>(ctx: &C) {
    let Some(settings) = maps::settings() else {
        return;
    };
    let one_in = 1_u32 << (settings.sample_shift.wrapping_sub(1) & 31);
    let is_sampled =
        kernel::tick() <= settings.sample_until && kernel::random() & (one_in - 1) == 0;
    let (bytes, ifindex) = (ctx.len(), ctx.arrival_ifindex());
    if is_sampled {
        ctx.make_accessible();
    }
    maps::with_event_draft(|draft| {
        draft.is_sampled = u32::from(is_sampled);
        if !is_sampled {
            return;
        }
        let event = &mut draft.event;
        event.bytes = bytes;
        event.ifindex = ifindex;
        event.vip_id = 0;
        event.backend_id = 0;
        event.source = no_address();
        event.destination = no_address();
        event.source_port = Port::from_wire(zero() as u16);
        event.destination_port = Port::from_wire(zero() as u16);
        event.protocol = Protocol::ANY;
        read_headers(ctx, event);
    });
}

/// Notes what the headers say, as far as there are any. Not [`crate::packet::parse`], which refuses
/// what is not balanced: of such packets too an operator wants to see where they come from.
#[inline(always)]
fn read_headers<C: Context>(ctx: &C, event: &mut FlowEvent) -> Option<()> {
    let ethertype: u16 = ctx.load(offset_of!(EthHdr, ether_type))?;
    let l4_offset = match u16::from_be(ethertype) {
        ETHERTYPE_IPV4 => {
            let [first, _, third, source, destination]: [u32; 5] = ctx.load(L3_OFFSET)?;
            event.source = Addr::from_wire_v4(source);
            event.destination = Addr::from_wire_v4(destination);
            event.protocol = Protocol((u32::from_be(third) >> 16) as u8);
            L3_OFFSET + (u32::from_be(first) >> 24 & 0x0f) as usize * 4
        }
        ETHERTYPE_IPV6 => {
            let [_, second, a, b, c, d, e, f, g, h]: [u32; 10] = ctx.load(L3_OFFSET)?;
            event.source = Addr::from_wire([a, b, c, d]);
            event.destination = Addr::from_wire([e, f, g, h]);
            event.protocol = Protocol((u32::from_be(second) >> 8) as u8);
            L3_OFFSET + Ipv6Hdr::LEN
        }
        _ => return None,
    };
    if event.protocol == Protocol::TCP || event.protocol == Protocol::UDP {
        let [source, destination]: [u16; 2] = ctx.load(l4_offset)?;
        event.source_port = Port::from_wire(source);
        event.destination_port = Port::from_wire(destination);
    }
    Some(())
}

#[inline(never)]
fn note_backend(vip_id: u32, backend: BackendId) {
    maps::with_event_draft(|draft| {
        draft.event.vip_id = vip_id;
        draft.event.backend_id = backend;
    });
}

#[inline(never)]
fn tell(outcome: u32, action: u32) -> u32 {
    let wanted = maps::settings().map_or(0, |settings| settings.sample_outcomes);
    maps::with_event_draft(|draft| {
        let is_sampled = draft.is_sampled != 0;
        draft.is_sampled = 0;
        if !is_sampled || wanted >> (outcome & 63) & 1 == 0 {
            return;
        }
        draft.event.outcome = outcome;
        draft.event.time_ns = kernel::now();
        if !maps::put_event(&draft.event) {
            draft.lost += 1;
        }
    });
    action
}
