//! Stage 3: flows that the tables cannot tell, because their slot changed hands.

use lbagent_common::{
    BackendId, CONN_WAYS, ConnEntry, Outcome, Protocol, Settings, VipEntry, conn_tag, limits,
};

use crate::maglev::Owners;
use crate::outcome::Stop;
use crate::packet::Packet;
use crate::{apart, kernel, maps};

/// Whether the packet starts a flow: a SYN, or a UDP packet after a silence.
///
/// UDP has no start to see, so a filter indexed by flow hash remembers when a flow last sent. Two
/// flows that share an entry look like one: then a new flow of a changed slot may be taken for an
/// old one and goes to the slot's previous owner while that is alive.
#[inline(always)]
pub fn is_new(settings: &Settings, packet: &Packet, hash: u64) -> bool {
    if packet.protocol == Protocol::TCP {
        return packet.starts_connection();
    }
    let now = kernel::tick();
    match maps::udp_seen(hash as u32) {
        Some(seen) => {
            let last = seen.get();
            let is_new = last == 0 || now.wrapping_sub(last) > settings.udp_idle_ticks;
            if last != now {
                seen.set(now);
            }
            is_new
        }
        None => true,
    }
}

/// The owner of the packet's flow.
#[inline(always)]
pub fn select_owner(
    settings: &Settings,
    vip: &VipEntry,
    hash: u64,
    owners: Owners,
    is_new: bool,
) -> Result<BackendId, Stop> {
    let owner = if owners.settled {
        owners.current
    } else {
        let flow = ChangedFlow {
            tag: conn_tag(hash, vip.vip_id),
            conn_mask: settings.conn_mask,
            vip_id: vip.vip_id,
            group_tag: vip.group_tag,
            idle_ticks: settings.conn_idle_ticks,
            current: owners.current,
            previous: owners.previous,
        };
        apart::select_changed(&flow, u32::from(is_new))
    };
    if owner == 0 {
        return Err(Stop::Drop(Outcome::DropNoBackend));
    }
    Ok(owner)
}

/// The owner of a flow that is not new, 0 for none. Leaves no trace: for packets about the flow.
#[inline(always)]
pub fn lookup_owner(settings: &Settings, vip: &VipEntry, hash: u64, owners: Owners) -> BackendId {
    if owners.settled {
        return owners.current;
    }
    let flow = ChangedFlow {
        tag: conn_tag(hash, vip.vip_id),
        conn_mask: settings.conn_mask,
        vip_id: vip.vip_id,
        group_tag: vip.group_tag,
        idle_ticks: settings.conn_idle_ticks,
        current: owners.current,
        previous: owners.previous,
    };
    apart::lookup_changed(&flow)
}

#[inline(always)]
pub fn lookup_changed(flow: &ChangedFlow) -> BackendId {
    if let Some(bucket) = maps::conn_bucket(flow.tag as u32 & flow.conn_mask) {
        let now = kernel::tick();
        let mut way = 0;
        // As in `select_changed`.
        let ways = core::hint::black_box(CONN_WAYS);
        while way < ways && way < CONN_WAYS {
            let entry = bucket.entry(way);
            if entry.tag() == flow.tag
                && !is_idle(flow, &entry, now)
                && is_usable(flow, entry.backend)
            {
                return entry.backend;
            }
            way += 1;
        }
    }
    if is_usable(flow, flow.previous) {
        flow.previous
    } else {
        flow.current
    }
}

/// A flow of a slot that changed hands.
pub struct ChangedFlow {
    tag: u64,
    conn_mask: u32,
    vip_id: u32,
    group_tag: u32,
    idle_ticks: u32,
    current: BackendId,
    previous: BackendId,
}

/// The owner of a flow whose slot changed hands: the stored one, else the current owner for a new
/// flow and the previous owner for an old one. The choice is stored, so that the next change of
/// the slot does not move the flow.
///
/// A bucket without room costs no connection: an unstored flow goes to the previous owner, with
/// its first packet as with all others. That it was refused is noted, because user space must not
/// take such a flow for a silent one.
///
/// An entry that was not used for `idle_ticks` counts for nothing: its slot may have settled and
/// changed again since.
#[inline(always)]
pub fn select_changed(flow: &ChangedFlow, is_new: u32) -> BackendId {
    let is_new = is_new != 0;
    let previous = if is_usable(flow, flow.previous) {
        flow.previous
    } else {
        flow.current
    };
    let Some(bucket) = maps::conn_bucket(flow.tag as u32 & flow.conn_mask) else {
        return previous;
    };
    let now = kernel::tick();
    let mut room = CONN_WAYS;
    let mut way = 0;
    // Opaque to the compiler, so that the verifier walks one copy of the body.
    let ways = core::hint::black_box(CONN_WAYS);
    while way < ways && way < CONN_WAYS {
        let entry = bucket.entry(way);
        if entry.tag() == flow.tag && entry.backend != 0 {
            if !is_new && !is_idle(flow, &entry, now) && is_usable(flow, entry.backend) {
                let last_seen = now | ConnEntry::ESTABLISHED;
                if entry.last_seen != last_seen {
                    bucket.set_last_seen(way, last_seen);
                }
                return entry.backend;
            }
            room = way;
            break;
        }
        if room == CONN_WAYS && is_free(flow, &entry, now) {
            room = way;
        }
        way += 1;
    }
    let owner = if is_new { flow.current } else { previous };
    if owner == 0 {
        return 0;
    }
    if room >= CONN_WAYS {
        if let Some(refusal) = maps::refusal(flow.vip_id)
            && refusal.get() != now
        {
            refusal.set(now);
        }
        return previous;
    }
    // Another CPU may take the same room at this moment. One of the two flows is then not stored:
    // the price of a store without locks, paid when two flows of one bucket start in the same
    // instant.
    bucket.put(
        room,
        ConnEntry::new(flow.tag, owner, now | sent_before(is_new)),
    );
    owner
}

/// What an entry holds of a flow that is stored for the first time. One that is not new has sent before:
/// if it gave way, user space would take it for silent and settle its slot.
#[inline(always)]
fn sent_before(is_new: bool) -> u32 {
    u32::from(!is_new) * ConnEntry::ESTABLISHED
}

/// Whether packets of the flow may be sent to this backend.
#[inline(always)]
fn is_usable(flow: &ChangedFlow, id: BackendId) -> bool {
    id != 0
        && maps::backend(id)
            .is_some_and(|backend| backend.is_alive() && backend.group_tag == flow.group_tag)
}

/// Whether an entry may be taken over. A flow of one packet holds its place only for as long as a
/// handshake takes, so that a flood of first packets never takes the place of connections.
#[inline(always)]
fn is_free(flow: &ChangedFlow, entry: &ConnEntry, now: u32) -> bool {
    let is_unanswered =
        !entry.is_established() && now.wrapping_sub(entry.tick()) > limits::CONN_EMBRYONIC_TICKS;
    entry.backend == 0 || is_unanswered || is_idle(flow, entry, now)
}

/// Whether an entry was not used for so long that it counts for nothing.
#[inline(always)]
fn is_idle(flow: &ChangedFlow, entry: &ConnEntry, now: u32) -> bool {
    now.wrapping_sub(entry.tick()) > flow.idle_ticks
}
