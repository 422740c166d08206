//! A planned group's entries: its VIPs, its backends, and who may reply for them.

use super::*;

impl Builder<'_> {
    pub(super) fn publish(
        &mut self,
        group: Uuid,
        family: Family,
        ports: &BTreeMap<VipKey, u16>,
        tables: &NamedTables,
        members: &[(BackendId, Member)],
    ) {
        let [table, previous] = tables.regions;
        let ids = members.iter().map(|(id, _)| *id);
        self.servers.insert((group, family), ids.collect());
        self.target
            .backends
            .extend(members.iter().map(|(id, member)| (*id, member.entry)));
        for key in of_family(ports, family) {
            let known = self.known_vip_id(group, key);
            let Some(vip_id) = known.or_else(|| self.vip_ids.allocate()) else {
                continue;
            };
            self.claimed_vip_ids.insert(vip_id);
            let entry = VipEntry {
                vip_id,
                table_offset: table.offset,
                table_len: table.len,
                previous_offset: previous.offset,
                previous_len: previous.len,
                destination_port: Port::new(ports[key]),
                disposition: VipEntry::DISPOSITION_FORWARD,
                forwarding_mode: mode_number(self.members.mode(group)),
                service_group: *group.as_bytes(),
                changed_at: tables.changed_at,
                group_tag: group_tag(group),
                ..VipEntry::default()
            };
            self.target.vips.insert(*key, entry);
            let backends = members.iter().map(|(id, member)| (*id, member.entry));
            self.add_candidates(*key, &entry, backends);
        }
    }

    /// The entries of ports with handlers. What groups have comes first where there is little room.
    pub(super) fn add_terminated(&mut self, published: &Published) {
        let redirects =
            hosts::add_hosts(self.input, self.in_use, &self.vip_indexes, &mut self.target);
        let capacity = self.actual.capacity.vips;
        let mut refused: BTreeMap<VipKey, u32> = BTreeMap::new();
        for key in &published.terminated {
            if !self.vip_keys.contains(key) {
                if self.free_vips() == 0 {
                    let address = VipKey::address(key.addr);
                    *refused.entry(address).or_default() += 1;
                    continue;
                }
                self.vip_keys.insert(*key);
            }
            let is_redirected = redirects && published.redirected.contains(key);
            let entry = self.terminated_entry(key, is_redirected);
            self.target.vips.insert(*key, entry);
        }
        let conditions = refused.into_iter().map(|(key, needed)| {
            let reason = map_full(limits::VIPS, needed, 0, capacity);
            Condition::new(Object::Vip(key.addr.into()), reason)
        });
        self.target.conditions.extend(conditions);
    }

    /// The entry of a port with handlers. Nothing is answered for a terminator that is not there.
    fn terminated_entry(&self, key: &VipKey, is_redirected: bool) -> VipEntry {
        let index = self.vip_indexes.get(&key.addr.into()).copied();
        let takes = self.input.terminator.takes(Family::of_addr(&key.addr));
        let Some(vip_index) = index.filter(|_| takes && key.protocol == Protocol::TCP) else {
            return VipEntry::TERMINATED;
        };
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let is_shielded = self.input.gateway.syn_shield != SynShield::Off;
        let flags =
            flag(is_redirected, VipEntry::FLAG_REDIRECT) | flag(is_shielded, VipEntry::FLAG_SHIELD);
        VipEntry {
            flags,
            vip_index: if flags == 0 { 0 } else { vip_index },
            ..VipEntry::TERMINATED
        }
    }

    /// Notes where replies to the VIP come from; in the other modes they don't pass the gateway.
    pub(super) fn add_candidates(
        &mut self,
        vip: VipKey,
        entry: &VipEntry,
        backends: impl Iterator<Item = (BackendId, BackendEntry)>,
    ) {
        if entry.forwarding_mode != VipEntry::MODE_NAT {
            return;
        }
        for (backend_id, backend) in backends.filter(|(_, entry)| entry.is_alive()) {
            let key = ReturnKey::new(backend.addr, entry.destination_port, vip.protocol);
            let candidate = Candidate {
                vip,
                vip_id: entry.vip_id,
                backend_id,
                source: backend.source,
            };
            self.candidates.entry(key).or_default().push(candidate);
        }
    }
}

/// As the maps hold it.
const fn mode_number(mode: ForwardingMode) -> u8 {
    match mode {
        ForwardingMode::Nat => VipEntry::MODE_NAT,
        ForwardingMode::DsrL2 => VipEntry::MODE_DSR_L2,
        ForwardingMode::DsrIpip => VipEntry::MODE_DSR_IPIP,
        ForwardingMode::DsrGue => VipEntry::MODE_DSR_GUE,
    }
}

/// What VIP entries say of their tables.
pub(super) struct NamedTables {
    /// The table and the former one.
    pub(super) regions: [Region; 2],
    /// For [`VipEntry::changed_at`].
    pub(super) changed_at: u32,
}
