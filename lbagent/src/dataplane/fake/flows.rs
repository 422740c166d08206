//! What `lb_ingress` does to choose a backend, on the maps in memory: written a second time, so that
//! planner and program can be held against one model.

use lbagent_common::hash::flow_hash;
use lbagent_common::{
    Addr, BackendEntry, BackendId, CONN_WAYS, ConnBucket, ConnEntry, Port, Protocol, Slot,
    VipEntry, VipKey, conn_tag, limits,
};

use super::FakeDataplane;
use crate::dataplane::{Region, StoredFlows};
use crate::plan::choose::{Choice, Owners, Why, choose};
use crate::plan::{previous_region, table_region};

/// A client's packet, as far as it matters for the choice.
#[derive(Clone, Copy, Debug)]
pub struct ClientPacket {
    /// Its destination.
    pub vip: VipKey,
    /// Its source address.
    pub client: Addr,
    /// Its source port.
    pub client_port: u16,
    /// Whether it is a SYN; of no meaning for UDP.
    pub is_syn: bool,
}

impl FakeDataplane {
    /// Sends a packet at the time [`tick`](Self::tick); returns where it goes, and why. `None`: it
    /// is for no VIP, or no backend takes it.
    pub fn send(&mut self, packet: &ClientPacket) -> Option<Choice> {
        let entry = *self.vips.get(&packet.vip)?;
        let hash = flow_hash(
            self.settings.hash_seed,
            &packet.client,
            Port::new(packet.client_port),
            packet.vip.port,
            packet.vip.protocol,
        );
        let is_new = self.is_new(packet, hash);
        let owners = self.owners(&entry, hash)?;
        let choice = self.choose(&entry, hash, owners, is_new);
        (choice.backend != 0).then_some(choice)
    }

    /// The bucket of a VIP's flow, and which it is.
    fn bucket(&self, tag: u64) -> (u32, ConnBucket) {
        let index = tag as u32 & self.settings.conn_mask;
        (index, self.conns.get(&index).copied().unwrap_or_default())
    }

    fn is_new(&mut self, packet: &ClientPacket, hash: u64) -> bool {
        if packet.vip.protocol == Protocol::TCP {
            return packet.is_syn;
        }
        let index = hash as u32 & (limits::UDP_SEEN_LEN - 1);
        let last = self.udp_seen.insert(index, self.tick);
        last.is_none_or(|last| self.tick - last > self.settings.udp_idle_ticks)
    }

    fn owners(&self, entry: &VipEntry, hash: u64) -> Option<Owners> {
        let slots = |region: Option<Region>| -> Option<&[Slot]> { self.region(region?) };
        let table = slots(table_region(entry))?;
        Owners::lookup(hash, table, slots(previous_region(entry)))
    }

    fn choose(&mut self, entry: &VipEntry, hash: u64, owners: Owners, is_new: bool) -> Choice {
        let tag = conn_tag(hash, entry.vip_id);
        let (index, mut bucket) = self.bucket(tag);
        let now = self.tick;
        let is_idle =
            |entry: &ConnEntry| now - entry.tick().min(now) > self.settings.conn_idle_ticks;
        let known = bucket
            .ways
            .iter()
            .position(|e| e.backend != 0 && e.tag() == tag);
        let stored = known.filter(|way| !is_idle(&bucket.ways[*way]));
        let is_alive = |id: BackendId| {
            let found = self.backends.get(&id);
            found.is_some_and(|b| BackendEntry::is_alive(b) && b.group_tag == entry.group_tag)
        };
        let stored_owner = stored.map(|way| bucket.ways[way].backend);
        let choice = choose(owners, stored_owner, is_new, is_alive);
        if choice.why == Why::Stored {
            if let Some(way) = stored {
                bucket.ways[way].last_seen = now | ConnEntry::ESTABLISHED;
                self.conns.insert(index, bucket);
            }
            return choice;
        }
        if !choice.is_stored() {
            return choice;
        }
        let is_free = |entry: &ConnEntry| {
            let is_unanswered = !entry.is_established()
                && now - entry.tick().min(now) > limits::CONN_EMBRYONIC_TICKS;
            entry.backend == 0 || is_unanswered || is_idle(entry)
        };
        // The program takes the first free place that comes before the flow's own.
        let room = known.or_else(|| (0..CONN_WAYS).find(|way| is_free(&bucket.ways[*way])));
        let Some(way) = room else {
            self.refusals.insert(entry.vip_id, now);
            let previous = Some(owners.previous).filter(|id| *id != 0 && is_alive(*id));
            return Choice {
                backend: previous.unwrap_or(owners.current),
                why: Why::Refused,
            };
        };
        // A flow that is not new has sent before.
        let sent_before = u32::from(!is_new) * ConnEntry::ESTABLISHED;
        bucket.ways[way] = ConnEntry::new(tag, choice.backend, now | sent_before);
        self.conns.insert(index, bucket);
        choice
    }

    pub(super) fn recent_flows(&self, vips: &[u32], idle_ticks: u32) -> StoredFlows {
        let is_recent = |tick: u32| self.tick - tick.min(self.tick) <= idle_ticks;
        let mut stored = StoredFlows::default();
        let refused = vips
            .iter()
            .filter(|id| self.refusals.get(id).is_some_and(|t| is_recent(*t)));
        stored.refused = refused.copied().collect();
        let entries = self.conns.values().flat_map(|bucket| &bucket.ways);
        for entry in entries.filter(|entry| entry.backend != 0 && is_recent(entry.tick())) {
            let flows = stored.flows.entry(entry.backend).or_default();
            flows.push((entry.tag() >> 32) as u32);
        }
        stored
    }
}
