//! Stage 3: flows that the tables cannot tell, because their slot changed hands.

use lbagent_common::{BackendId, ConnEntry, ConnKey, Outcome, Protocol, Settings, VipEntry};

use crate::maglev::Owners;
use crate::outcome::Stop;
use crate::packet::Packet;
use crate::{backend, kernel, maps};

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
    packet: &Packet,
    vip: &VipEntry,
    owners: Owners,
    is_new: bool,
) -> Result<BackendId, Stop> {
    if owners.settled {
        return if owners.current == 0 {
            Err(Stop::Drop(Outcome::DropNoBackend))
        } else {
            Ok(owners.current)
        };
    }
    select_changed(packet, vip.vip_id, owners, is_new)
}

/// The owner of a flow whose slot changed hands: the stored one, else the current owner for a new
/// flow and the previous owner for an old one. The choice is stored, so that the next change of
/// the slot does not move the flow.
#[inline(never)]
fn select_changed(
    packet: &Packet,
    vip_id: u32,
    owners: Owners,
    is_new: bool,
) -> Result<BackendId, Stop> {
    let key = ConnKey::new(packet.source, packet.source_port, vip_id);
    let now = kernel::tick();
    if !is_new && let Some(entry) = maps::conn(&key) {
        let owner = entry.backend();
        if backend::is_alive(owner) {
            entry.touch(now);
            return Ok(owner);
        }
    }
    let owner = if !is_new && owners.previous != 0 && backend::is_alive(owners.previous) {
        owners.previous
    } else {
        owners.current
    };
    if owner == 0 {
        return Err(Stop::Drop(Outcome::DropNoBackend));
    }
    let entry = ConnEntry {
        backend: owner,
        last_seen: now,
    };
    maps::put_conn(&key, &entry).map_err(|_| Stop::Drop(Outcome::DropMapFull))?;
    Ok(owner)
}
