//! Which service groups claim what, to find those that are tied together.

use std::collections::BTreeSet;
use std::ops::Bound;

use uuid::Uuid;

use crate::desired::{DesiredState, Instance};
use crate::plan::{Elsewhere, GatewaySettings, Link, links};

/// Who claims what under a desired state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claims {
    /// Groups by what they claim.
    groups: BTreeSet<(Link, Uuid)>,
    /// Instances by group.
    members: BTreeSet<(Uuid, Uuid)>,
}

/// Groups that have to be planned together.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) groups: BTreeSet<Uuid>,
    /// Their instances before and after the change.
    pub(super) instances: BTreeSet<Uuid>,
    /// What they claim before and after the change.
    pub(super) links: BTreeSet<Link>,
    /// Ports among these that other groups have with handlers.
    pub(super) elsewhere: Elsewhere,
}

/// Makes a tree anew whose nodes are full; one that grew at its end is half empty.
pub(super) fn pack<T: Default + IntoIterator + FromIterator<T::Item>>(tree: &mut T) {
    *tree = std::mem::take(tree).into_iter().collect();
}

impl Claims {
    /// Those under a desired state.
    pub(super) fn of(desired: &DesiredState, gateway: &GatewaySettings) -> Self {
        // One walk over the instances: to look each up among many thousands would take longer.
        let instances = desired.instances.values();
        let members = instances.filter_map(|instance| Some((instance.service_group?, instance)));
        let mut members: Vec<(Uuid, &Instance)> = members.collect();
        members.sort_by_key(|(group, instance)| (*group, instance.uuid));
        let of_group = |group: &Uuid| {
            let first = members.partition_point(|(other, _)| other < group);
            let end = members.partition_point(|(other, _)| other <= group);
            members[first..end].iter().map(|(_, instance)| *instance)
        };
        let claims = desired.service_groups.keys().flat_map(|group| {
            let links = links(desired, gateway, *group, of_group(group));
            links.into_iter().map(|link| (link, *group))
        });
        Self {
            groups: claims.collect(),
            members: members
                .iter()
                .map(|(group, instance)| (*group, instance.uuid))
                .collect(),
        }
    }

    /// Gives back the memory that very many changes left unused.
    pub(super) fn pack(&mut self) {
        pack(&mut self.groups);
        pack(&mut self.members);
    }

    /// The instances of a group.
    pub(super) fn members(&self, group: Uuid) -> impl Iterator<Item = Uuid> + Clone {
        let members = self
            .members
            .range((group, Uuid::nil())..=(group, Uuid::max()));
        members.map(|(_, instance)| *instance)
    }

    fn links(&self, group: Uuid, desired: &DesiredState, gateway: &GatewaySettings) -> Vec<Link> {
        let members = self.members(group);
        let members = members.filter_map(|uuid| desired.instances.get(&uuid));
        links(desired, gateway, group, members)
    }

    /// Takes up the change of some groups; returns these and all that are tied to them, before the
    /// change or after it.
    pub(super) fn change(
        &mut self,
        changed: BTreeSet<Uuid>,
        from: &DesiredState,
        to: &DesiredState,
        gateway: &GatewaySettings,
    ) -> Scope {
        let mut scope = Scope::default();
        let mut gone = BTreeSet::new();
        for group in &changed {
            let links = self.links(*group, from, gateway);
            scope.links.extend(&links);
            gone.extend(links.into_iter().map(|link| (link, *group)));
            scope.instances.extend(self.members(*group));
        }
        self.change_members(from, to);
        for group in &changed {
            let links = self.links(*group, to, gateway).into_iter();
            let claims: Vec<_> = links.map(|link| (link, *group)).collect();
            for claim in claims {
                gone.remove(&claim);
                self.groups.insert(claim);
            }
        }
        let mut waiting: Vec<Uuid> = changed.into_iter().collect();
        // What others claim together with the links that are gone is found there, too.
        let mut found: Vec<Link> = scope.links.iter().copied().collect();
        loop {
            for link in std::mem::take(&mut found) {
                scope.links.insert(link);
                waiting.extend(self.claimants(match link {
                    Link::Terminated(key) | Link::Redirected(key) => Link::Vip(key),
                    link => link,
                }));
            }
            let Some(group) = waiting.pop() else { break };
            if scope.groups.insert(group) {
                scope.instances.extend(self.members(group));
                found = self.links(group, to, gateway);
            }
        }
        for claim in gone {
            self.groups.remove(&claim);
        }
        scope.elsewhere = self.elsewhere(&scope);
        scope
    }

    fn elsewhere(&self, scope: &Scope) -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        for link in &scope.links {
            let (Link::Vip(key) | Link::Terminated(key)) = *link else {
                continue;
            };
            let is_claimed = |link| {
                let mut claimants = self.claimants(link);
                claimants.any(|group| !scope.groups.contains(&group))
            };
            if is_claimed(Link::Terminated(key)) {
                elsewhere.terminated.insert(key);
            }
            if is_claimed(Link::Redirected(key)) {
                elsewhere.redirected.insert(key);
            }
        }
        elsewhere
    }

    fn change_members(&mut self, from: &DesiredState, to: &DesiredState) {
        let membership = |instance: &Instance| Some((instance.service_group?, instance.uuid));
        for uuid in from.instances.changed_keys(&to.instances) {
            if let Some(former) = from.instances.get(&uuid).and_then(membership) {
                self.members.remove(&former);
            }
            self.members
                .extend(to.instances.get(&uuid).and_then(membership));
        }
    }

    /// The groups that claim something.
    fn claimants(&self, link: Link) -> impl Iterator<Item = Uuid> {
        let from = Bound::Included((link, Uuid::nil()));
        let claims = self
            .groups
            .range((from, Bound::Included((link, Uuid::max()))));
        claims.map(|(_, group)| *group)
    }
}
