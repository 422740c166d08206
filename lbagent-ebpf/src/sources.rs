//! Stage 5: which source the backend sees, and the entry that its reply needs.
//!
//! Normally the client's own address and port, and no entry. An entry is needed where (backend,
//! port) does not tell the VIP; the source is rewritten where the backend would answer the client
//! past the gateway, or where another VIP's flow already has this 5-tuple at the backend.

use lbagent_common::hash::source_port_index;
use lbagent_common::{
    Addr, BackendEntry, BackendId, NatFlowEntry, NatFlowKey, Outcome, Port, Protocol, Settings,
    VipEntry, limits,
};

use crate::forward::Target;
use crate::forward::rewrite::Rewrite;
use crate::outcome::{Packed, Stop};
use crate::packet::Packet;
use crate::{apart, kernel, maps};

/// How many ports are tried for a rewritten source.
const ATTEMPTS: u32 = limits::SOURCE_PORT_ATTEMPTS;
/// No attempt.
const NONE: u32 = u32::MAX;
/// Silence after which an entry may be taken over, in ticks: 2 h 4 min for TCP (RFC 5382, REQ-5).
const TCP_IDLE_TICKS: u32 = limits::NAT_TCP_IDLE_TICKS;
/// The same for UDP: 5 min (RFC 4787, REQ-5).
const UDP_IDLE_TICKS: u32 = limits::NAT_UDP_IDLE_TICKS;

/// Finds the source that the backend sees; in `to` it is the packet's own before.
#[inline(always)]
pub fn select(packet: &Packet, target: &Target<'_>, to: &mut Rewrite) -> Result<(), Stop> {
    let Target {
        vip, id, backend, ..
    } = *target;
    if !backend.answers_directly(&packet.source) && vip.flags & VipEntry::FLAG_TRACK_RETURN == 0 {
        return Ok(());
    }
    match apart::claim_source(packet, vip, id, backend, to).result() {
        Some(Err(stop)) => Err(stop),
        _ => Ok(()),
    }
}

/// Finds the source that the backend sees a flow with, for a packet about the flow: `key` then holds
/// it as the peer. Nothing is claimed or noted. False for a flow that has none and must have one.
#[inline(always)]
pub fn find(packet: &Packet, target: &Target<'_>, key: &mut NatFlowKey) -> bool {
    let Target {
        settings,
        vip,
        backend,
        ..
    } = *target;
    let must_rewrite = backend.answers_directly(&packet.source);
    if !must_rewrite && vip.flags & VipEntry::FLAG_TRACK_RETURN == 0 {
        key.peer = packet.source;
        key.peer_port = packet.source_port;
        return true;
    }
    let candidates = Candidates {
        settings,
        backend,
        vip_id: vip.vip_id,
    };
    find_stored(packet, &candidates, u32::from(must_rewrite), key) != 0 || !must_rewrite
}

#[inline(always)]
fn find_stored(packet: &Packet, of: &Candidates<'_>, first: u32, key: &mut NatFlowKey) -> u32 {
    // As in `claim`.
    let last = core::hint::black_box(ATTEMPTS);
    let mut attempt = first;
    while attempt <= last && attempt <= ATTEMPTS {
        set_candidate(packet, of, attempt, key);
        if maps::nat_flow(key).is_some_and(|entry| is_of(entry.get(), packet)) {
            return 1;
        }
        attempt += 1;
    }
    set_candidate(packet, of, 0, key);
    0
}

/// Whether an entry is the flow's of a packet.
#[inline(always)]
fn is_of(entry: &NatFlowEntry, packet: &Packet) -> bool {
    entry.client == packet.source
        && entry.client_port == packet.source_port
        && entry.vip == packet.destination
        && entry.vip_port == packet.destination_port
}

/// A candidate's place in `NAT_FLOWS`.
enum Place {
    Ours,
    Free,
    Taken,
}

/// Finds the flow's entry or makes one. The candidates follow from the flow alone, so that no
/// second map is needed to find the entry from the client's side.
#[inline(always)]
pub fn claim(
    packet: &Packet,
    vip: &VipEntry,
    id: BackendId,
    backend: &BackendEntry,
    to: &mut Rewrite,
) -> Packed {
    let Some(settings) = maps::settings() else {
        return Packed::new(Err(Stop::Drop(Outcome::DropNotConfigured)));
    };
    let candidates = Candidates {
        settings,
        backend,
        vip_id: vip.vip_id,
    };
    let now = kernel::tick();
    let can_rewrite = backend.source != Addr::UNSPECIFIED && settings.source_port_count != 0;
    let mut key = NatFlowKey::new(
        backend.addr,
        vip.destination_port,
        packet.source,
        packet.source_port,
        packet.protocol,
    );
    let mut free = NONE;
    // Opaque to the compiler, so that it does not unroll the loop: five copies of the body need
    // more stack than BPF has, and the verifier walks each of them.
    let last = core::hint::black_box(if can_rewrite { ATTEMPTS } else { 0 });
    let mut attempt = u32::from(backend.answers_directly(&packet.source));
    while attempt <= last && attempt <= ATTEMPTS {
        set_candidate(packet, &candidates, attempt, &mut key);
        match place(packet, &key, now) {
            Place::Ours => {
                to.source = key.peer;
                to.source_port = key.peer_port;
                return Packed::ONWARDS;
            }
            Place::Free if free == NONE => free = attempt,
            Place::Free | Place::Taken => {}
        }
        attempt += 1;
    }
    if free == NONE {
        return Packed::new(Err(Stop::Drop(Outcome::DropNoSource)));
    }
    set_candidate(packet, &candidates, free, &mut key);
    if store(packet, vip.vip_id, id, &key) == 0 {
        return Packed::new(Err(Stop::Drop(Outcome::DropMapFull)));
    }
    to.source = key.peer;
    to.source_port = key.peer_port;
    Packed::ONWARDS
}

/// Stores the flow's entry; 0 when there is no room. A stack frame of its own, for the entry.
#[inline(never)]
fn store(packet: &Packet, vip_id: u32, id: BackendId, key: &NatFlowKey) -> u32 {
    let entry = NatFlowEntry {
        client: packet.source,
        vip: packet.destination,
        client_port: packet.source_port,
        vip_port: packet.destination_port,
        vip_id,
        backend_id: id,
        last_seen: kernel::tick(),
    };
    u32::from(maps::put_nat_flow(key, &entry).is_ok())
}

/// What candidates follow from, besides the packet.
struct Candidates<'a> {
    settings: &'a Settings,
    backend: &'a BackendEntry,
    vip_id: u32,
}

/// Candidate 0 is the client itself, the others are ports of the gateway's own address.
#[inline(never)]
fn set_candidate(packet: &Packet, of: &Candidates<'_>, attempt: u32, key: &mut NatFlowKey) {
    let settings = of.settings;
    if attempt == 0 {
        key.peer = packet.source;
        key.peer_port = packet.source_port;
        return;
    }
    let index = source_port_index(
        &packet.source,
        packet.source_port,
        of.vip_id,
        attempt,
        u32::from(settings.source_port_count),
    );
    let port = u32::from(settings.source_port_first).wrapping_add(index) as u16;
    key.peer = of.backend.source;
    key.peer_port = Port::new(port);
}

#[inline(never)]
fn place(packet: &Packet, key: &NatFlowKey, now: u32) -> Place {
    let Some(entry) = maps::nat_flow(key) else {
        return Place::Free;
    };
    let current = entry.get();
    if is_of(current, packet) {
        let closing = if packet.ends_connection() {
            NatFlowEntry::CLOSING
        } else {
            0
        };
        let kept = if packet.starts_connection() {
            0
        } else {
            current.last_seen & NatFlowEntry::CLOSING
        };
        entry.set_last_seen(now | closing | kept);
        return Place::Ours;
    }
    let idle = if packet.protocol == Protocol::TCP {
        TCP_IDLE_TICKS
    } else {
        UDP_IDLE_TICKS
    };
    let silence = now.wrapping_sub(current.last_seen & !NatFlowEntry::CLOSING);
    if current.last_seen & NatFlowEntry::CLOSING != 0 || silence > idle {
        Place::Free
    } else {
        Place::Taken
    }
}
