//! Stage 5: which source the backend sees, and the entry that its reply needs.
//!
//! Normally the client's own address and port, and no entry. An entry is needed where (backend,
//! port) does not tell the VIP; the source is rewritten where the backend would answer the client
//! past the gateway, or where another VIP's flow already has this 5-tuple at the backend.

use lbagent_common::{
    Addr, BackendEntry, BackendId, NatFlowEntry, NatFlowKey, Outcome, Port, Protocol, Settings,
    VipEntry,
};

use crate::forward::Target;
use crate::outcome::Stop;
use crate::packet::Packet;
use crate::{kernel, maps};

/// How many ports are tried for a rewritten source.
const ATTEMPTS: u32 = 4;
/// No attempt.
const NONE: u32 = u32::MAX;
/// Silence after which an entry may be taken over, in ticks: 2 h 4 min for TCP (RFC 5382, REQ-5).
const TCP_IDLE_TICKS: u32 = 6_930;
/// The same for UDP: 5 min (RFC 4787, REQ-5).
const UDP_IDLE_TICKS: u32 = 280;

/// The source that the backend sees.
#[inline(always)]
pub fn select(packet: &Packet, target: &Target<'_>) -> Result<(Addr, Port), Stop> {
    let Target {
        settings,
        vip,
        id,
        backend,
    } = *target;
    let must_rewrite = backend.answers_directly(&packet.source);
    if !must_rewrite && vip.flags & VipEntry::FLAG_TRACK_RETURN == 0 {
        return Ok((packet.source, packet.source_port));
    }
    let flow = Flow {
        packet,
        vip,
        id,
        backend,
        must_rewrite,
    };
    claim(settings, &flow)
}

/// Finds the source that the backend sees a flow with, for a packet about the flow: `key` then holds
/// it as the peer. Nothing is claimed or noted. False for a flow that has none and must have one.
#[inline(always)]
pub fn find(packet: &Packet, target: &Target<'_>, key: &mut NatFlowKey) -> bool {
    let Target {
        settings,
        vip,
        id,
        backend,
    } = *target;
    let must_rewrite = backend.answers_directly(&packet.source);
    if !must_rewrite && vip.flags & VipEntry::FLAG_TRACK_RETURN == 0 {
        return true;
    }
    let flow = Flow {
        packet,
        vip,
        id,
        backend,
        must_rewrite,
    };
    find_stored(settings, &flow, key) != 0 || !must_rewrite
}

#[inline(never)]
fn find_stored(settings: &Settings, flow: &Flow<'_>, key: &mut NatFlowKey) -> u32 {
    // As in `claim`.
    let last = core::hint::black_box(ATTEMPTS);
    let mut attempt = u32::from(flow.must_rewrite);
    while attempt <= last && attempt <= ATTEMPTS {
        set_candidate(settings, flow, attempt, key);
        if maps::nat_flow(key).is_some_and(|entry| is_of(entry.get(), flow.packet)) {
            return 1;
        }
        attempt += 1;
    }
    set_candidate(settings, flow, 0, key);
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

/// What [`claim`] works on: one argument, because BPF functions take five at most.
struct Flow<'a> {
    packet: &'a Packet,
    vip: &'a VipEntry,
    id: BackendId,
    backend: &'a BackendEntry,
    must_rewrite: bool,
}

/// A candidate's place in `NAT_FLOWS`.
enum Place {
    Ours,
    Free,
    Taken,
}

/// Finds the flow's entry or makes one. The candidates follow from the flow alone, so that no
/// second map is needed to find the entry from the client's side.
#[inline(never)]
fn claim(settings: &Settings, flow: &Flow<'_>) -> Result<(Addr, Port), Stop> {
    let packet = flow.packet;
    let now = kernel::tick();
    let can_rewrite = flow.backend.source != Addr::UNSPECIFIED && settings.source_port_count != 0;
    let mut key = NatFlowKey::new(
        flow.backend.addr,
        flow.vip.destination_port,
        packet.source,
        packet.source_port,
        packet.protocol,
    );
    let mut free = NONE;
    // Opaque to the compiler, so that it does not unroll the loop: five copies of the body need
    // more stack than BPF has, and the verifier walks each of them.
    let last = core::hint::black_box(if can_rewrite { ATTEMPTS } else { 0 });
    let mut attempt = u32::from(flow.must_rewrite);
    while attempt <= last {
        set_candidate(settings, flow, attempt, &mut key);
        match place(flow, &key, now) {
            Place::Ours => return Ok((key.peer, key.peer_port)),
            Place::Free if free == NONE => free = attempt,
            Place::Free | Place::Taken => {}
        }
        attempt += 1;
    }
    if free == NONE {
        return Err(Stop::Drop(Outcome::DropNoSource));
    }
    set_candidate(settings, flow, free, &mut key);
    let entry = NatFlowEntry {
        client: packet.source,
        vip: packet.destination,
        client_port: packet.source_port,
        vip_port: packet.destination_port,
        vip_id: flow.vip.vip_id,
        backend_id: flow.id,
        last_seen: now,
    };
    maps::put_nat_flow(&key, &entry).map_err(|_| Stop::Drop(Outcome::DropMapFull))?;
    Ok((key.peer, key.peer_port))
}

/// Candidate 0 is the client itself, the others are ports of the gateway's own address.
#[inline(always)]
fn set_candidate(settings: &Settings, flow: &Flow<'_>, attempt: u32, key: &mut NatFlowKey) {
    let packet = flow.packet;
    if attempt == 0 {
        key.peer = packet.source;
        key.peer_port = packet.source_port;
        return;
    }
    let [a, b, c, d] = packet.source.wire();
    let mixed = (a ^ b ^ c ^ d)
        .wrapping_add(u32::from(packet.source_port.get()).wrapping_mul(0x9e37_79b1))
        .wrapping_add(flow.vip.vip_id)
        .wrapping_mul(0x85eb_ca6b);
    // Lemire's multiplication instead of a division: the count is not known to be non-zero here.
    let count = u32::from(settings.source_port_count);
    let start = ((u64::from(mixed) * u64::from(count)) >> 32) as u32;
    let index = start + attempt;
    let index = if index >= count {
        index.wrapping_sub(count)
    } else {
        index
    };
    let port = u32::from(settings.source_port_first).wrapping_add(index) as u16;
    key.peer = flow.backend.source;
    key.peer_port = Port::new(port);
}

#[inline(always)]
fn place(flow: &Flow<'_>, key: &NatFlowKey, now: u32) -> Place {
    let packet = flow.packet;
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
