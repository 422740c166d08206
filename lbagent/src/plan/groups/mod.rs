//! The target, group by group: each is planned whole, or stays as it is when a map has no room.

mod clock;
mod conditions;
mod layout;
mod policies;
mod prepare;
mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lbagent_common::{
    BackendEntry, BackendId, Port, Protocol, ReturnKey, VipEntry, VipKey, limits, table_len,
};
use uuid::Uuid;

use super::backends::{Member, Members, group_tag};
use super::diff::Target;
use super::hosts::{self, Indexes};
use super::ids::Ids;
use super::in_use::InUse;
use super::publish::{Published, PublishedGroup};
use super::regions::{Regions, previous_region, table_region};
use super::returns::{self, Candidate, Candidates};
use super::{Condition, Family, IdCursor, Object, PlanInput, Reason, SynShield};
use crate::dataplane::{ActualState, Region};
use crate::desired::ForwardingMode;
use layout::FamilyDraft;
use policies::Servers;
use prepare::Prepared;
use publish::NamedTables;

/// Plans every group.
pub(super) fn build_target(input: &PlanInput<'_>, in_use: &InUse, published: &Published) -> Target {
    let mut builder = Builder::new(input, in_use, published);
    builder.add_addresses();
    let had_vips: BTreeSet<Uuid> = input
        .actual
        .vips
        .values()
        .map(|entry| Uuid::from_bytes(entry.service_group))
        .collect();
    // Groups that forward already come first: a new one must not take the room for their changes.
    let (known, new): (Vec<_>, Vec<_>) = published
        .groups
        .iter()
        .partition(|(group, _)| had_vips.contains(group));
    let groups: Vec<&PublishedGroup> = known.into_iter().chain(new).collect();
    for portion in groups.chunks(prepare::PORTION) {
        let prepared = prepare::prepare(&builder.members, input.gateway.hash_seed, portion);
        for ((group, ports), prepared) in portion.iter().zip(prepared) {
            if let Err(reason) = builder.plan_group(*group, ports, &prepared) {
                let condition = Condition::new(Object::ServiceGroup(*group), reason);
                builder.target.conditions.push(condition);
                builder.keep_group(*group, ports);
            }
            builder.add_conditions(*group, &prepared);
        }
    }
    builder.finish(published)
}

/// Ids handed out for one group, by instance and address.
type NewBackends = BTreeMap<(Uuid, IpAddr), BackendId>;

struct Builder<'a> {
    input: &'a PlanInput<'a>,
    in_use: &'a InUse,
    actual: &'a ActualState,
    members: Members<'a>,
    vip_ids: Ids<'a>,
    backend_ids: Ids<'a>,
    regions: Regions,
    /// Slots that stay free of new groups, so that any one table can be rewritten.
    spare: u32,
    /// VIP entries and reply sources that are there while the plan is applied.
    vip_keys: BTreeSet<VipKey>,
    return_keys: BTreeSet<ReturnKey>,
    claimed_vip_ids: BTreeSet<u32>,
    candidates: Candidates,
    servers: Servers,
    vip_indexes: Indexes,
    target: Target,
}

impl<'a> Builder<'a> {
    fn new(input: &'a PlanInput<'a>, in_use: &'a InUse, published: &Published) -> Self {
        let PlanInput {
            gateway,
            actual,
            retired,
            cursor,
            ..
        } = *input;
        let members = Members::new(input);
        let sizes = published.groups.iter().flat_map(|(group, ports)| {
            families(ports)
                .into_iter()
                .map(|family| wanted_len(members.eligible(*group, family)))
        });
        let spare = sizes.max().unwrap_or(0).max(in_use.regions.largest());
        let target = Target {
            settings: gateway.entry(&actual.capacity),
            host_addresses: gateway.vips.clone(),
            ..Target::default()
        };
        Self {
            input,
            in_use,
            actual,
            vip_ids: Ids::new(&in_use.vip_ids, actual.capacity.vips, cursor.vip),
            backend_ids: Ids::new(
                &in_use.backend_ids,
                actual.capacity.backends,
                cursor.backend,
            ),
            regions: Regions::new(actual.capacity.slots, &in_use.regions, retired),
            spare,
            vip_keys: actual.vips.keys().copied().collect(),
            return_keys: actual.returns.keys().copied().collect(),
            claimed_vip_ids: BTreeSet::new(),
            candidates: Candidates::new(),
            servers: Servers::new(),
            vip_indexes: hosts::index_vips(gateway, actual),
            members,
            target,
        }
    }

    /// The entry of each VIP address itself.
    fn add_addresses(&mut self) {
        let capacity = self.actual.capacity.vips;
        for vip in &self.input.gateway.vips {
            let key = VipKey::address((*vip).into());
            if !self.vip_keys.contains(&key) {
                let free = self.free_vips();
                if free == 0 {
                    let reason = map_full(limits::VIPS, 1, 0, capacity);
                    self.target
                        .conditions
                        .push(Condition::new(Object::Vip(*vip), reason));
                    continue;
                }
                self.vip_keys.insert(key);
            }
            let entry = VipEntry {
                vip_index: self.vip_indexes.get(vip).copied().unwrap_or_default(),
                ..VipEntry::default()
            };
            self.target.vips.insert(key, entry);
        }
    }

    fn plan_group(
        &mut self,
        group: Uuid,
        ports: &BTreeMap<VipKey, u16>,
        prepared: &Prepared,
    ) -> Result<(), Reason> {
        let new_ids = self.check_vips(group, ports)?;
        let mut drafts = BTreeMap::new();
        let mut new_backends = NewBackends::new();
        let drafted = prepared.iter().try_for_each(|(family, (members, table))| {
            let members = self.identify(members, &mut new_backends)?;
            drafts.insert(*family, self.draft(group, *family, ports, members, table));
            Ok(())
        });
        let accepted = drafted
            .and_then(|()| self.check_returns(group, ports, &drafts))
            .and_then(|keys| Ok((keys, self.place(&drafts)?)));
        let (return_keys, (regions, placed)) = match accepted {
            Ok(accepted) => accepted,
            Err(reason) => {
                new_backends
                    .into_values()
                    .for_each(|id| self.backend_ids.release(id));
                return Err(reason);
            }
        };
        self.regions = regions;
        self.return_keys.extend(return_keys);
        self.vip_keys.extend(ports.keys());
        debug_assert!(new_ids <= self.vip_ids.free(), "checked before");
        for (family, draft) in drafts {
            let regions = self.write_tables(draft.tables, &placed[&family]);
            let tables = NamedTables {
                regions,
                changed_at: draft.changed_at,
            };
            self.publish(group, family, ports, &tables, &draft.members);
        }
        Ok(())
    }

    /// Entries that `VIPS` has room for.
    fn free_vips(&self) -> u32 {
        let elsewhere = self.in_use.vips - self.actual.vips.len();
        room(self.actual.capacity.vips, elsewhere + self.vip_keys.len())
    }

    /// Whether the map has room for the group's ports, and ids for them; tells how many ids.
    fn check_vips(&self, group: Uuid, ports: &BTreeMap<VipKey, u16>) -> Result<u32, Reason> {
        let capacity = self.actual.capacity.vips;
        let new_keys = count(ports.keys().filter(|key| !self.vip_keys.contains(key)));
        let free_keys = self.free_vips();
        let new_ids = count(
            ports
                .keys()
                .filter(|key| self.known_vip_id(group, key).is_none()),
        );
        let free_ids = self.vip_ids.free();
        if new_keys > free_keys {
            return Err(map_full(limits::VIPS, new_keys, free_keys, capacity));
        }
        if new_ids > free_ids {
            return Err(map_full(limits::VIPS, new_ids, free_ids, capacity));
        }
        Ok(new_ids)
    }

    /// The id that the group's port has already.
    fn known_vip_id(&self, group: Uuid, key: &VipKey) -> Option<u32> {
        let entry = self.actual.vips.get(key)?;
        let id = entry.vip_id;
        let is_ours = entry.service_group == *group.as_bytes();
        let is_valid = id != 0 && id < self.actual.capacity.vips;
        (is_ours && is_valid && !self.claimed_vip_ids.contains(&id)).then_some(id)
    }

    /// Gives every member an id; `new` collects those that are handed out here. An instance that
    /// serves both families with one address has one id.
    fn identify(
        &mut self,
        members: &[Member],
        new: &mut NewBackends,
    ) -> Result<Vec<(BackendId, Member)>, Reason> {
        let known = |member: &Member, new: &NewBackends| {
            let twin = new.get(&(member.instance, member.address)).copied();
            member.known_id.or(twin)
        };
        let needed = members.iter().filter(|member| known(member, new).is_none());
        let needed = count(needed);
        let free = self.backend_ids.free();
        if needed > free {
            return Err(map_full(
                limits::BACKENDS,
                needed,
                free,
                self.actual.capacity.backends,
            ));
        }
        let mut identified = Vec::with_capacity(members.len());
        for member in members {
            let id = known(member, new).or_else(|| {
                let id = self.backend_ids.allocate();
                new.extend(id.map(|id| ((member.instance, member.address), id)));
                id
            });
            identified.extend(id.map(|id| (id, *member)));
        }
        Ok(identified)
    }

    /// The reply sources that the group adds, if the map has room for them.
    fn check_returns(
        &self,
        group: Uuid,
        ports: &BTreeMap<VipKey, u16>,
        drafts: &BTreeMap<Family, FamilyDraft>,
    ) -> Result<BTreeSet<ReturnKey>, Reason> {
        let mut new = BTreeSet::new();
        if self.members.mode(group) != ForwardingMode::Nat {
            return Ok(new);
        }
        for (family, draft) in drafts {
            for key in of_family(ports, *family) {
                let alive = draft.members.iter().filter(|(_, m)| m.entry.is_alive());
                let keys = alive.map(|(_, member)| {
                    ReturnKey::new(member.entry.addr, Port::new(ports[key]), key.protocol)
                });
                new.extend(keys.filter(|key| !self.return_keys.contains(key)));
            }
        }
        let capacity = self.actual.capacity.returns;
        let elsewhere = self.in_use.returns - self.actual.returns.len();
        let used = elsewhere + self.return_keys.len();
        let (needed, free) = (count(new.iter()), room(capacity, used));
        if needed > free {
            return Err(map_full(limits::RETURNS, needed, free, capacity));
        }
        Ok(new)
    }

    /// Keeps what a group has, for want of room: its ports that are still wanted, their tables,
    /// and the backends that these name.
    fn keep_group(&mut self, group: Uuid, ports: &BTreeMap<VipKey, u16>) {
        let mut ids: BTreeSet<BackendId> = self.members.known_ids(group).collect();
        let mut kept = Vec::new();
        for key in ports.keys() {
            let Some(entry) = self.actual.vips.get(key) else {
                continue;
            };
            if entry.service_group == *group.as_bytes() {
                self.claimed_vip_ids.insert(entry.vip_id);
                self.target.vips.insert(*key, *entry);
                kept.push((*key, *entry));
                for region in [table_region(entry), previous_region(entry)]
                    .into_iter()
                    .flatten()
                {
                    let slots = self.slots(region).map(|(_, slots)| slots);
                    let slots = slots.as_deref().unwrap_or_default().iter();
                    ids.extend(slots.flat_map(|slot| [slot.current, slot.previous()]));
                }
            }
        }
        if kept.is_empty() {
            return;
        }
        let backends: Vec<(BackendId, BackendEntry)> = ids
            .into_iter()
            .filter_map(|id| self.actual.backends.get(&id).map(|entry| (id, *entry)))
            .collect();
        for (id, entry) in &backends {
            self.target.backends.entry(*id).or_insert(*entry);
        }
        for (key, entry) in kept {
            let family = Family::of_addr(&key.addr);
            let of_family = backends
                .iter()
                .copied()
                .filter(|(_, b)| Family::of_addr(&b.addr) == family);
            self.add_candidates(key, &entry, of_family.collect::<Vec<_>>().into_iter());
        }
    }

    fn finish(mut self, published: &Published) -> Target {
        for instance in self.input.desired.instances.values() {
            if let Some(group) = instance.service_group
                && !self.input.desired.service_groups.contains_key(&group)
            {
                let reason = Reason::UnknownServiceGroup { group };
                let condition = Condition::new(Object::Instance(instance.uuid), reason);
                self.target.conditions.push(condition);
            }
        }
        self.target.returns = returns::resolve(
            &self.candidates,
            &self.actual.returns,
            &mut self.target.vips,
        );
        hosts::add_conditions(self.input, &self.vip_indexes, published, &mut self.target);
        self.add_terminated(published);
        let policy = policies::assign(self.input, self.in_use, &self.servers, &mut self.target);
        self.target.cursor = IdCursor {
            vip: self.vip_ids.cursor(),
            backend: self.backend_ids.cursor(),
            policy,
        };
        self.target
    }
}

/// The size of a table for so many active instances.
fn wanted_len(active: usize) -> u32 {
    match active {
        0 => 0,
        active => table_len(active),
    }
}

fn families(ports: &BTreeMap<VipKey, u16>) -> BTreeSet<Family> {
    ports.keys().map(|key| Family::of_addr(&key.addr)).collect()
}

fn of_family(ports: &BTreeMap<VipKey, u16>, family: Family) -> impl Iterator<Item = &VipKey> {
    ports
        .keys()
        .filter(move |key| Family::of_addr(&key.addr) == family)
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

fn room(capacity: u32, used: usize) -> u32 {
    capacity.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
}

const fn map_full(map: &'static str, needed: u32, free: u32, capacity: u32) -> Reason {
    Reason::MapFull {
        map,
        needed,
        free,
        capacity,
    }
}
