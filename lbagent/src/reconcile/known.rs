//! What the last passes left in the maps, by service group: so a pass after a change of one group
//! reads, plans and writes what is of that group, and of those that are tied to it.
//!
//! There is something known only while the last pass did all that it planned, and found room for
//! all. Then, as long as nobody else writes the maps,
//!
//! * `actual` is what reading them would yield, tables and ways left out;
//! * a plan of everything for `desired` would have no steps, up to drains that end and slots that
//!   settle;
//! * `in_use`, `entries` and `claims` follow from `actual` and `desired`.
//!
//! Passes over everything go on beside, so what others change is put right, and what is known is
//! made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lbagent_common::{BackendEntry, BackendId, HostKey, VipEntry, VipKey};
use time::OffsetDateTime;
use uuid::Uuid;

use super::claims::{Claims, pack};
use crate::dataplane::{ActualState, RuleKey, Step, Walk, includes};
use crate::desired::DesiredState;
use crate::plan::{
    self, Condition, Elsewhere, GatewaySettings, Health, InUse, Link, Object, Plan, Terminator,
};

/// Steps, or ways, after which the memory is put in order: an import has as many.
pub(super) const MANY: usize = 10_000;

/// What is planned and written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) desired: Arc<DesiredState>,
    pub(super) actual: ActualState,
    pub(super) in_use: InUse,
    /// The moment that the last pass planned for: it tells which drains were over.
    pub(super) planned_at: OffsetDateTime,
    /// What the health checks said then.
    pub(super) health: Health,
    /// Who took connections to ports with handlers then.
    pub(super) terminator: Terminator,
    conditions: Vec<Condition>,
    entries: Entries,
    claims: Claims,
}

/// What a pass planned with beside the desired and the actual state.
pub(super) type Judged = (Health, Terminator, OffsetDateTime);

/// Which entries belong together.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entries {
    /// By the tag of the group.
    backends: BTreeSet<(u32, BackendId)>,
    /// By policy.
    rules: BTreeMap<u32, BTreeSet<RuleKey>>,
}

impl Entries {
    fn of(actual: &ActualState) -> Self {
        let backends = actual.backends.iter();
        let backends = backends.map(|(id, entry)| (entry.group_tag, *id));
        let mut entries = Self {
            backends: backends.collect(),
            rules: BTreeMap::new(),
        };
        actual.rules.keys().for_each(|key| entries.add_rule(key));
        entries
    }

    fn add_rule(&mut self, key: &RuleKey) {
        let rules = self.rules.entry(key.policy_id()).or_default();
        rules.insert(*key);
    }

    fn remove_rule(&mut self, key: &RuleKey) {
        if let Some(rules) = self.rules.get_mut(&key.policy_id()) {
            rules.remove(key);
            if rules.is_empty() {
                self.rules.remove(&key.policy_id());
            }
        }
    }
}

/// The part of everything that is of some groups.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) desired: DesiredState,
    /// Without tables and ways.
    pub(super) actual: ActualState,
    /// Ports among `actual`'s that other groups have with handlers.
    pub(super) elsewhere: Elsewhere,
    groups: BTreeSet<Uuid>,
    /// Instances of these groups, those that have left included.
    instances: BTreeSet<Uuid>,
}

impl Known {
    /// After a plan of everything for `actual` has been done, all of it. `claims` are those under the
    /// desired state.
    pub(super) fn after(
        plan: &Plan,
        desired: &Arc<DesiredState>,
        claims: Claims,
        mut actual: ActualState,
        in_use: InUse,
        (health, terminator, now): Judged,
    ) -> Self {
        actual.tables.clear();
        actual.slots = None;
        actual.paths.clear();
        actual.stored = None;
        actual.tick = 0;
        let mut known = Self {
            desired: Arc::clone(desired),
            entries: Entries::of(&actual),
            actual,
            in_use,
            planned_at: now,
            health,
            terminator,
            conditions: plan.conditions.clone(),
            claims,
        };
        known.follow(plan);
        known
    }

    /// Gives back the memory that a plan of very many steps left unused: a tree that grew at its end is
    /// half empty.
    fn pack(&mut self) {
        pack(&mut self.actual.vips);
        pack(&mut self.actual.backends);
        pack(&mut self.actual.returns);
        pack(&mut self.actual.rules);
        pack(&mut self.entries.backends);
        self.claims.pack();
    }

    /// After a plan of everything found nothing to do.
    pub(super) fn still(mut self, plan: &Plan, judged: Judged) -> Self {
        self.conditions.clone_from(&plan.conditions);
        (self.health, self.terminator, self.planned_at) = judged;
        self
    }

    /// The groups that may be planned otherwise for this desired state: those that changed, or of
    /// which an instance did. To `instances` something else has happened.
    pub(super) fn changed_groups(
        &self,
        desired: &DesiredState,
        mut instances: Vec<Uuid>,
    ) -> BTreeSet<Uuid> {
        instances.extend(self.desired.instances.changed_keys(&desired.instances));
        let group_in = |state: &DesiredState, uuid: &Uuid| state.instances.get(uuid)?.service_group;
        let groups = instances
            .iter()
            .flat_map(|uuid| [group_in(&self.desired, uuid), group_in(desired, uuid)]);
        let changed = self
            .desired
            .service_groups
            .changed_keys(&desired.service_groups);
        groups.flatten().chain(changed).collect()
    }

    /// All that is of these groups and of those that are tied to them, under a new desired state.
    /// To be followed by [`follow`](Self::follow), or this is no longer of use.
    pub(super) fn part(
        &mut self,
        changed: BTreeSet<Uuid>,
        desired: &Arc<DesiredState>,
        gateway: &GatewaySettings,
    ) -> Part {
        let scope = self.claims.change(changed, &self.desired, desired, gateway);
        let former = std::mem::replace(&mut self.desired, Arc::clone(desired));
        let keys = [&former, desired].map(|state| host_keys(state, &scope.groups));
        let keys = keys.into_iter().flatten();
        let host = |key| Some((key, *self.actual.hosts.get(&key)?));
        let mut actual = self.entries_of(&scope.links, gateway);
        actual.hosts = keys.filter_map(host).collect();
        let group = |uuid: &Uuid| Some((*uuid, desired.service_groups.get(uuid)?.clone()));
        let instance = |uuid: &Uuid| Some((*uuid, desired.instances.get(uuid)?.clone()));
        let in_group = |(_, instance): &(Uuid, crate::desired::Instance)| {
            let group = instance.service_group;
            group.is_some_and(|group| scope.groups.contains(&group))
        };
        let part = DesiredState {
            generation: desired.generation,
            service_groups: scope.groups.iter().filter_map(group).collect(),
            instances: scope
                .instances
                .iter()
                .filter_map(instance)
                .filter(in_group)
                .collect(),
            ..DesiredState::default()
        };
        Part {
            desired: part,
            actual,
            elsewhere: scope.elsewhere,
            groups: scope.groups,
            instances: scope.instances,
        }
    }

    /// The entries behind some claims.
    fn entries_of(&self, links: &BTreeSet<Link>, gateway: &GatewaySettings) -> ActualState {
        let Self {
            actual, entries, ..
        } = self;
        let mut part = ActualState {
            settings: actual.settings,
            capacity: actual.capacity,
            host_addresses: actual.host_addresses.clone(),
            ..ActualState::default()
        };
        let addresses = gateway
            .vips
            .iter()
            .map(|vip| VipKey::address((*vip).into()));
        let addresses: Vec<Link> = addresses.map(Link::Vip).collect();
        for link in links.iter().chain(&addresses) {
            match link {
                Link::Vip(key) | Link::Terminated(key) | Link::Redirected(key) => {
                    let entry = actual.vips.get(key);
                    part.vips.extend(entry.map(|entry| (*key, *entry)));
                }
                Link::Return(key) => {
                    let entry = actual.returns.get(key);
                    part.returns.extend(entry.map(|entry| (*key, *entry)));
                }
                Link::Tag(tag) => {
                    let ids = entries.backends.range((*tag, 0)..=(*tag, BackendId::MAX));
                    let entries = ids.filter_map(|(_, id)| Some((*id, *actual.backends.get(id)?)));
                    part.backends.extend(entries);
                }
            }
        }
        let policies: BTreeSet<u32> = part.vips.values().map(|entry| entry.policy_id).collect();
        let keys = policies.iter().filter_map(|id| entries.rules.get(id));
        let rules = keys
            .flatten()
            .filter_map(|key| Some((*key, *actual.rules.get(key)?)));
        part.rules.extend(rules);
        part
    }

    /// The conditions of everything, after a plan for a part.
    pub(super) fn conditions_with(&mut self, plan: &Plan, part: &Part) -> Vec<Condition> {
        self.conditions.retain(|known| match &known.object {
            Object::ServiceGroup(uuid) => !part.groups.contains(uuid),
            Object::Instance(uuid) => !part.instances.contains(uuid),
            Object::Gateway | Object::Vip(_) | Object::Certificate(_) => true,
        });
        self.conditions.extend(plan.conditions.iter().cloned());
        self.conditions.sort();
        self.conditions.dedup();
        self.conditions.clone()
    }

    /// A plan has been done, all of it.
    pub(super) fn follow(&mut self, plan: &Plan) {
        plan.steps.iter().for_each(|step| self.write(step));
        if plan.steps.len() > MANY {
            self.pack();
        }
    }

    /// Whether this is what reading the maps has just yielded.
    pub(super) fn agrees(&self, actual: &ActualState) -> bool {
        let ours = &self.actual;
        ours.settings == actual.settings
            && ours.vips == actual.vips
            && ours.backends == actual.backends
            && ours.returns == actual.returns
            && ours.rules == actual.rules
            && ours.hosts == actual.hosts
            && ours.host_addresses == actual.host_addresses
    }

    /// Whether what a walk has found at this place is known.
    pub(super) fn includes(&self, found: &ActualState, at: Walk) -> bool {
        let ours = &self.actual;
        match at {
            Walk::Vips(_) => includes(&ours.vips, &found.vips),
            Walk::Backends(_) => includes(&ours.backends, &found.backends),
            Walk::Returns(_) => includes(&ours.returns, &found.returns),
            Walk::Hosts(_) => includes(&ours.hosts, &found.hosts),
            Walk::Rules => ours.rules == found.rules,
        }
    }

    /// How many instances a group has.
    pub(super) fn members(&self, group: Uuid) -> usize {
        self.claims.members(group).count()
    }

    /// A step has been done.
    fn write(&mut self, step: &Step) {
        match step {
            Step::PutSettings(settings) => self.actual.settings = *settings,
            Step::PutBackend(id, entry) => self.put_backend(*id, *entry),
            Step::DeleteBackend(id) => self.delete_backend(*id),
            Step::PutVip(key, entry) => self.put_vip(*key, *entry),
            Step::DeleteVip(key, _) => self.delete_vip(key),
            Step::AddHostAddress(address) => drop(self.actual.host_addresses.insert(*address)),
            Step::DeleteHostAddress(address) => drop(self.actual.host_addresses.remove(address)),
            step => self.write_beside(step),
        }
    }

    /// A step has been done that concerns none of these.
    fn write_beside(&mut self, step: &Step) {
        let (actual, in_use) = (&mut self.actual, &mut self.in_use);
        let entries = &mut self.entries;
        match step {
            Step::PutReturn(key, entry) => {
                let is_new = actual.returns.insert(*key, *entry).is_none();
                if is_new {
                    in_use.add_return();
                }
            }
            Step::DeleteReturn(key) => {
                let former = actual.returns.remove(key);
                if former.is_some() {
                    in_use.remove_return();
                }
            }
            Step::PutRule(key, value) => {
                let is_new = actual.rules.insert(*key, *value).is_none();
                if is_new {
                    in_use.add_rule(key);
                }
                entries.add_rule(key);
            }
            Step::DeleteRule(key) => {
                let former = actual.rules.remove(key);
                if former.is_some() {
                    in_use.remove_rule(key);
                }
                entries.remove_rule(key);
            }
            Step::PutHost(key, entry) => {
                let is_new = actual.hosts.insert(*key, *entry).is_none();
                if is_new {
                    in_use.add_host();
                }
            }
            Step::DeleteHost(key) => {
                let former = actual.hosts.remove(key);
                if former.is_some() {
                    in_use.remove_host();
                }
            }
            // Tables are read when they are needed; the rest is written above.
            _ => {}
        }
    }

    fn put_backend(&mut self, id: BackendId, entry: BackendEntry) {
        match self.actual.backends.insert(id, entry) {
            Some(former) => drop(self.entries.backends.remove(&(former.group_tag, id))),
            None => self.in_use.add_backend(id),
        }
        self.entries.backends.insert((entry.group_tag, id));
    }

    fn delete_backend(&mut self, id: BackendId) {
        if let Some(former) = self.actual.backends.remove(&id) {
            self.entries.backends.remove(&(former.group_tag, id));
            self.in_use.remove_backend(id);
        }
    }

    fn put_vip(&mut self, key: VipKey, entry: VipEntry) {
        if let Some(former) = self.actual.vips.insert(key, entry) {
            self.in_use.remove_vip(&former);
        }
        self.in_use.add_vip(&entry);
    }

    fn delete_vip(&mut self, key: &VipKey) {
        if let Some(former) = self.actual.vips.remove(key) {
            self.in_use.remove_vip(&former);
        }
    }
}

/// The names that groups may have entries for.
fn host_keys(desired: &DesiredState, groups: &BTreeSet<Uuid>) -> Vec<HostKey> {
    let groups = groups.iter();
    let groups = groups.filter_map(|uuid| desired.service_groups.get(uuid));
    groups.flat_map(plan::host_keys).collect()
}
