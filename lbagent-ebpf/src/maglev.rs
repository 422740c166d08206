//! Stage 2: who owns the flow's slot, now and before the last change.

use lbagent_common::hash::{flow_hash, slot_index};
use lbagent_common::{BackendId, Outcome, Settings, VipEntry};

use crate::maps;
use crate::outcome::Stop;
use crate::packet::Packet;

/// Owners of a slot.
#[derive(Clone, Copy)]
pub struct Owners {
    /// Owner of new flows; 0 for none.
    pub current: BackendId,
    /// Owner of the flows that are not stored; 0 when it is gone.
    pub previous: BackendId,
    /// The tables alone tell the owner: no flow of this slot is stored.
    pub settled: bool,
}

/// Keyed hash of the packet's flow.
#[inline(always)]
pub fn hash(settings: &Settings, packet: &Packet) -> u64 {
    flow_hash(
        settings.hash_seed,
        &packet.source,
        packet.source_port,
        packet.destination_port,
        packet.protocol,
    )
}

/// Reads the flow's slot; after a change of the table's size also its slot in the former table.
#[inline(always)]
pub fn lookup_owners(vip: &VipEntry, hash: u64) -> Result<Owners, Stop> {
    if vip.table_len == 0 {
        return Err(Stop::Drop(Outcome::DropNoBackend));
    }
    let slot = maps::slot(
        vip.table_offset
            .wrapping_add(slot_index(hash, vip.table_len)),
    )
    .ok_or(Stop::Drop(Outcome::DropNotConfigured))?;
    let owners = Owners {
        current: slot.current,
        previous: slot.previous(),
        settled: slot.is_settled(),
    };
    if vip.previous_len == 0 {
        return Ok(owners);
    }
    let former = maps::slot(
        vip.previous_offset
            .wrapping_add(slot_index(hash, vip.previous_len)),
    )
    .ok_or(Stop::Drop(Outcome::DropNotConfigured))?;
    let previous = match former.previous() {
        // It is gone, and with it all flows from before the change of size.
        0 => owners.previous,
        owner => owner,
    };
    Ok(Owners {
        current: owners.current,
        previous,
        settled: owners.settled && former.is_settled() && former.current == owners.current,
    })
}
