//! Stages 2 to 4: the flow's slot, its own entry, and the backend.

use lbagent_api::trace::{ChoiceReason, TraceSlot, TraceStored};
use lbagent_common::hash::slot_index;
use lbagent_common::{
    BackendEntry, BackendId, CONN_WAYS, ConnBucket, ConnEntry, Outcome, Protocol, Slot, VipEntry,
    conn_tag, limits,
};

use super::{Stage, Tracer, end};
use crate::dataplane::DataplaneError;
use crate::plan::choose::{self, Owners, Why};

/// Who gets the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) backend: BackendId,
    pub(super) why: ChoiceReason,
    pub(super) is_stored_now: bool,
}

impl Tracer<'_> {
    /// Whether the data plane takes a UDP packet for the first of its flow.
    pub(super) fn is_new_udp(&self, hash: u64) -> Result<bool, DataplaneError> {
        if self.flow.protocol != Protocol::UDP {
            return Ok(false);
        }
        let last = self.maps.udp_seen(hash)?;
        let silence = self.maps.tick().wrapping_sub(last);
        Ok(last == 0 || silence > self.settings.udp_idle_ticks)
    }

    pub(super) fn choose(&mut self, vip: &VipEntry, hash: u64) -> Stage<BackendEntry> {
        if vip.table_len == 0 {
            return end(
                Outcome::DropNoBackend,
                "the service group has never had an instance of this address family",
            );
        }
        const DAMAGED: &str = "the VIP's table lies outside of the map of slots";
        let changed_s_ago = seconds(self.maps.tick().saturating_sub(vip.changed_at));
        self.trace.changed_s_ago = (vip.changed_at != 0).then_some(changed_s_ago);
        let Some(slot) = self.slot(hash, vip.table_offset, vip.table_len)? else {
            return end(Outcome::DropNotConfigured, DAMAGED);
        };
        self.trace.slot = Some(self.shown(hash, vip.table_offset, vip.table_len, slot)?);
        let former = if vip.previous_len == 0 {
            None
        } else {
            let Some(former) = self.slot(hash, vip.previous_offset, vip.previous_len)? else {
                return end(Outcome::DropNotConfigured, DAMAGED);
            };
            let shown = self.shown(hash, vip.previous_offset, vip.previous_len, former)?;
            self.trace.former_slot = Some(shown);
            Some(former)
        };
        // One slot stands for the whole table: the hash was used to find it.
        let Some(owners) = Owners::lookup(hash, &[slot], former.as_ref().map(std::slice::from_ref))
        else {
            return end(Outcome::DropNotConfigured, DAMAGED);
        };
        let choice = self.select(vip, owners, hash)?;
        self.trace.choice = Some(self.choice(choice)?);
        match self.maps.backend(choice.backend)? {
            Some(entry) if entry.is_alive() => Ok(Ok(entry)),
            _ => end(
                Outcome::DropNoBackend,
                "the service group has no instance that may take the flow",
            ),
        }
    }

    fn select(
        &mut self,
        vip: &VipEntry,
        owners: Owners,
        hash: u64,
    ) -> Result<Choice, DataplaneError> {
        let is_new = self.trace.is_new;
        let mut usable = Vec::new();
        let tag = conn_tag(hash, vip.vip_id);
        let bucket = self.maps.conn_bucket(tag).unwrap_or_default();
        let (now, idle) = (self.maps.tick(), self.settings.conn_idle_ticks);
        let found = stored(&bucket, tag);
        let stored = found.filter(|entry| now.wrapping_sub(entry.tick()) <= idle);
        if let Some(entry) = stored {
            self.trace.stored = Some(TraceStored {
                owner: self.instance(entry.backend)?,
                last_seen_s_ago: seconds(self.maps.tick().saturating_sub(entry.tick())),
                is_established: entry.is_established(),
            });
        }
        let candidates = [owners.previous, stored.map_or(0, |entry| entry.backend)];
        for id in candidates {
            let entry = self.maps.backend(id)?;
            if entry.is_some_and(|entry| entry.is_alive() && entry.group_tag == vip.group_tag) {
                usable.push(id);
            }
        }
        let is_usable = |id: BackendId| usable.contains(&id);
        let choice = choose::choose(owners, stored.map(|entry| entry.backend), is_new, is_usable);
        let has_room = found.is_some() || has_room(&bucket, now, idle);
        if choice.is_stored() && !has_room {
            let backend = if is_usable(owners.previous) {
                owners.previous
            } else {
                owners.current
            };
            return Ok(Choice {
                backend,
                why: ChoiceReason::NoRoom,
                is_stored_now: false,
            });
        }
        Ok(Choice {
            backend: choice.backend,
            why: match choice.why {
                Why::Settled => ChoiceReason::Settled,
                Why::Stored => ChoiceReason::Stored,
                Why::New => ChoiceReason::New,
                Why::Previous => ChoiceReason::Previous,
                Why::Orphan => ChoiceReason::Orphan,
                Why::Refused => ChoiceReason::NoRoom,
            },
            is_stored_now: choice.is_stored(),
        })
    }

    fn slot(&self, hash: u64, offset: u32, len: u32) -> Result<Option<Slot>, DataplaneError> {
        self.maps.slot(offset.wrapping_add(slot_index(hash, len)))
    }

    fn shown(
        &self,
        hash: u64,
        table_offset: u32,
        table_len: u32,
        slot: Slot,
    ) -> Result<TraceSlot, DataplaneError> {
        Ok(TraceSlot {
            index: slot_index(hash, table_len),
            table_len,
            table_offset,
            current: self.instance(slot.current)?,
            previous: self.instance(slot.previous())?,
            is_settled: slot.is_settled(),
        })
    }
}

fn stored(bucket: &ConnBucket, tag: u64) -> Option<ConnEntry> {
    let mut entries = bucket.ways.into_iter();
    entries.find(|entry| entry.backend != 0 && entry.tag() == tag)
}

/// Whether a flow that is not in the bucket may be stored there.
fn has_room(bucket: &ConnBucket, now: u32, conn_idle: u32) -> bool {
    let is_free = |entry: &ConnEntry| {
        let idle = if entry.is_established() {
            conn_idle
        } else {
            limits::CONN_EMBRYONIC_TICKS
        };
        entry.backend == 0 || now.wrapping_sub(entry.tick()) > idle
    };
    debug_assert_eq!(bucket.ways.len(), CONN_WAYS);
    bucket.ways.iter().any(is_free)
}

/// A number of ticks of 2^30 ns in seconds.
fn seconds(ticks: u32) -> u64 {
    (u64::from(ticks) << 30) / 1_000_000_000
}
