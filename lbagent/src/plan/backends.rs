//! Instances as the data plane sees them: one backend for each address that they serve with.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use lbagent_common::{Addr, BackendEntry, BackendId};
use uuid::Uuid;

use super::drain::Duty;
use super::health::{self, Fitness, Judgement};
use super::{Family, PlanInput};
use crate::dataplane::Path;
use crate::desired::{ForwardingMode, Instance, ServiceGroup};

/// An instance that may get packets of one family, and its entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) instance: Uuid,
    pub(super) address: IpAddr,
    /// Takes new flows: it does not drain, has a weight above 0, and is healthy enough.
    pub(super) is_active: bool,
    /// Is not healthy, whether or not it takes flows all the same.
    pub(super) is_unhealthy: bool,
    /// Its id, if it has one already.
    pub(super) known_id: Option<BackendId>,
    /// Packets were sent to it before this plan.
    pub(super) was_alive: bool,
    pub(super) has_path: bool,
    pub(super) entry: BackendEntry,
}

/// Instances by group, and the ids that they have.
#[derive(Debug)]
pub(super) struct Members<'a> {
    by_group: BTreeMap<Uuid, Vec<(&'a Instance, Duty)>>,
    known: HashMap<Owner, BackendId>,
    input: &'a PlanInput<'a>,
}

/// Who a backend id is for: an instance, a group, and the family of the address that it serves with,
/// which need not be that of the VIP: both tables of a group may name one id. The group is part of it: flows that are stored for an instance must
/// not follow it into another group.
type Owner = ([u8; 16], u32, Family);

impl<'a> Members<'a> {
    pub(super) fn new(input: &'a PlanInput<'a>) -> Self {
        let PlanInput {
            desired,
            actual,
            now,
            ..
        } = *input;
        let mut by_group: BTreeMap<Uuid, Vec<_>> = BTreeMap::new();
        for instance in desired.instances.values() {
            let duty = Duty::of(&instance.state, now);
            if let Some(group) = instance.service_group.filter(|_| duty.is_alive()) {
                by_group.entry(group).or_default().push((instance, duty));
            }
        }
        let mut known = HashMap::with_capacity(actual.backends.len());
        for (id, entry) in &actual.backends {
            if *id != 0 && *id < actual.capacity.backends {
                let family = Family::of_addr(&entry.addr);
                known
                    .entry((entry.instance, entry.group_tag, family))
                    .or_insert(*id);
            }
        }
        Self {
            by_group,
            known,
            input,
        }
    }

    /// Instances of a group that may get packets, ordered by UUID.
    pub(super) fn instances(&self, group: Uuid) -> &[(&'a Instance, Duty)] {
        self.by_group.get(&group).map_or(&[], Vec::as_slice)
    }

    /// Those of them that can serve VIPs of the family, ordered by UUID.
    pub(super) fn of(&self, group: Uuid, family: Family) -> Vec<Member> {
        let Some(found) = self.input.desired.service_groups.get(&group) else {
            return Vec::new();
        };
        let mode = found.policy.forwarding_mode;
        let candidates = self.instances(group).iter().filter_map(|(instance, duty)| {
            let address = serving_address(instance, family, mode)?;
            Some(self.candidate(found, instance, *duty, address))
        });
        let candidates: Vec<Candidate<'_>> = candidates.collect();
        let eligible = candidates.iter().filter(|candidate| candidate.is_eligible);
        let judgement = Judgement::of(
            &found.policy.health,
            eligible.map(|candidate| candidate.fitness),
        );
        candidates
            .into_iter()
            .map(|candidate| self.member(group, candidate, judgement))
            .collect()
    }

    fn candidate(
        &self,
        group: &ServiceGroup,
        instance: &'a Instance,
        duty: Duty,
        address: IpAddr,
    ) -> Candidate<'a> {
        let owner = (
            *instance.uuid.as_bytes(),
            group_tag(group.uuid),
            Family::of(&address),
        );
        let id = self.known.get(&owner).copied();
        let known = id.and_then(|id| Some((id, self.input.actual.backends.get(&id)?)));
        let PlanInput {
            health, gateway, ..
        } = *self.input;
        let entry = known.map(|(_, entry)| entry);
        Candidate {
            instance,
            duty,
            address,
            known,
            is_eligible: is_eligible(instance, duty),
            fitness: health::fitness(group, instance, address, entry, (health, gateway)),
        }
    }

    /// How many would take new flows if all were healthy. The table's size goes by that, so that it
    /// does not change with their health.
    pub(super) fn eligible(&self, group: Uuid, family: Family) -> usize {
        let mode = self.mode(group);
        let instances = self.instances(group).iter();
        let is_counted = |(instance, duty): &&(&Instance, Duty)| {
            is_eligible(instance, *duty) && serving_address(instance, family, mode).is_some()
        };
        instances.filter(is_counted).count()
    }

    /// How the group's packets reach its instances.
    pub(super) fn mode(&self, group: Uuid) -> ForwardingMode {
        let group = self.input.desired.service_groups.get(&group);
        group.map_or(ForwardingMode::default(), |group| {
            group.policy.forwarding_mode
        })
    }

    fn member(&self, group: Uuid, candidate: Candidate<'_>, judgement: Judgement) -> Member {
        let Candidate {
            instance,
            duty,
            address,
            known,
            is_eligible,
            fitness,
        } = candidate;
        let path = self.input.actual.paths.get(&address);
        let mut entry = backend_entry(group, instance, address, duty, path);
        if fitness == Fitness::Unhealthy {
            entry.flags |= BackendEntry::FLAG_UNHEALTHY;
        }
        if !judgement.is_alive(fitness, is_eligible) {
            entry.flags &= !BackendEntry::FLAG_ALIVE;
        }
        entry.weight = fitness.share_of(entry.weight);
        Member {
            instance: instance.uuid,
            address,
            is_active: is_eligible && judgement.takes_flows(fitness),
            is_unhealthy: fitness == Fitness::Unhealthy,
            known_id: known.map(|(id, _)| id),
            was_alive: known.is_some_and(|(_, entry)| entry.is_alive()),
            has_path: path.is_some(),
            entry,
        }
    }

    /// Ids that a group's instances have, in the table or not.
    pub(super) fn known_ids(&self, group: Uuid) -> impl Iterator<Item = BackendId> {
        let tag = group_tag(group);
        self.known
            .iter()
            .filter(move |((_, owner, _), _)| *owner == tag)
            .map(|(_, id)| *id)
    }
}

/// An instance of a group, with what decides whether it gets packets.
struct Candidate<'a> {
    instance: &'a Instance,
    duty: Duty,
    address: IpAddr,
    /// Its id and its entry, if it has them already.
    known: Option<(BackendId, &'a BackendEntry)>,
    is_eligible: bool,
    fitness: Fitness,
}

/// Whether an instance takes new flows if it is healthy.
fn is_eligible(instance: &Instance, duty: Duty) -> bool {
    duty == Duty::Active && instance.policy.weight > 0
}

/// The address that an instance serves VIPs of a family with: one of that family, or, where packets
/// travel inside others, failing that the other one.
pub(super) fn serving_address(
    instance: &Instance,
    family: Family,
    mode: ForwardingMode,
) -> Option<IpAddr> {
    let is_v4 = family.is_v4();
    instance
        .address(is_v4)
        .or_else(|| instance.address(!is_v4).filter(|_| encapsulates(mode)))
}

/// Whether packets travel inside others.
const fn encapsulates(mode: ForwardingMode) -> bool {
    match mode {
        ForwardingMode::Nat | ForwardingMode::DsrL2 => false,
        ForwardingMode::DsrIpip | ForwardingMode::DsrGue => true,
    }
}

fn backend_entry(
    group: Uuid,
    instance: &Instance,
    address: IpAddr,
    duty: Duty,
    path: Option<&Path>,
) -> BackendEntry {
    let draining = if duty == Duty::Draining {
        BackendEntry::FLAG_DRAINING
    } else {
        0
    };
    let via_kernel = match path {
        Some(path) if !path.takes_xdp => BackendEntry::FLAG_VIA_KERNEL,
        _ => 0,
    };
    let next_hop = path.and_then(|path| path.next_hop);
    let resolved = match next_hop {
        Some(_) => BackendEntry::FLAG_NEXT_HOP,
        None => 0,
    };
    BackendEntry {
        addr: address.into(),
        // One way of saying "none" for both families.
        source: path
            .filter(|path| !path.source.is_unspecified())
            .map_or(Addr::UNSPECIFIED, |path| path.source.into()),
        instance: *instance.uuid.as_bytes(),
        ifindex: next_hop.map_or_else(|| path.map_or(0, |path| path.ifindex), |hop| hop.ifindex),
        weight: instance.policy.weight,
        onlink_mask: Addr::mask(
            path.map_or(128, |path| mapped_prefix(address, path.onlink_prefix)),
        ),
        flags: BackendEntry::FLAG_ALIVE | draining | via_kernel | resolved,
        link: next_hop.map_or([0; 3], |hop| {
            BackendEntry::link_words(hop.destination, hop.source)
        }),
        mtu: path.map_or(0, |path| path.mtu),
        vlan: next_hop.map_or(0, |hop| hop.vlan),
        group_tag: group_tag(group),
        ..BackendEntry::default()
    }
}

/// A prefix length of an address's own family as one of the 128 bits of its mapped form.
fn mapped_prefix(address: IpAddr, prefix: u8) -> u8 {
    if address.is_ipv4() {
        prefix.saturating_add(96).min(128)
    } else {
        prefix.min(128)
    }
}

/// Tells groups apart in [`BackendEntry::group_tag`]. Not 0, which is no group; two groups with
/// one tag do no harm, as an instance hardly ever moves between just these.
pub fn group_tag(group: Uuid) -> u32 {
    let (high, low) = group.as_u64_pair();
    let folded = high ^ low;
    ((folded >> 32) as u32 ^ folded as u32).max(1)
}
