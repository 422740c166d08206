//! Following the desired state: which addresses have which checks.

use super::*;
use crate::desired::{DesiredState, InstanceState};
use crate::plan::{Target, targets};
use lbagent_api::health::InitialHealth;
use std::net::{IpAddr, Ipv4Addr};

impl Board {
    /// Takes up another desired state, at the cost of what differs.
    pub(in super::super) fn follow(&mut self, desired: &DesiredState, moment: Moment) {
        let mut affected: BTreeSet<Uuid> = self
            .instances
            .changed_keys(&desired.instances)
            .into_iter()
            .collect();
        for group in self.groups.changed_keys(&desired.service_groups) {
            let has_checks = |group: &ServiceGroup| group.policy.health.has_checks();
            let was_checked = self.checked.remove(&group);
            let is_checked = desired.service_groups.get(&group).is_some_and(has_checks);
            if is_checked {
                self.checked.insert(group);
            }
            if is_checked || was_checked {
                // Those that have left have changed themselves.
                affected.extend(desired.members(group).map(|instance| instance.uuid));
            }
            self.specs.remove(&group);
        }
        if self.checked.is_empty() && self.subjects.is_empty() {
            // As most gateways are: there may be many thousands at the start.
            affected.clear();
        }
        let former = std::mem::replace(&mut self.instances, desired.instances.clone());
        self.groups = desired.service_groups.clone();
        let mut added = Vec::new();
        for uuid in affected {
            self.refresh(uuid, former.get(&uuid), desired, moment, &mut added);
        }
        // Only the first state follows on what was before the agent's start.
        self.carried.clear();
        self.spread(&added, moment.at);
    }

    /// Plans the first checks.
    fn spread(&mut self, added: &[u64], now: Instant) {
        let count = u32::try_from(added.len()).unwrap_or(u32::MAX);
        for id in added {
            let Some(state) = self.checks.get_mut(id) else {
                continue;
            };
            let within = interval(&state.check).min(APART * count);
            // Nothing is late that was never planned before.
            self.queue
                .push(Reverse((now + self.random.below(within), *id)));
        }
    }

    /// Brings the checks of one instance up to date.
    fn refresh(
        &mut self,
        uuid: Uuid,
        former: Option<&Instance>,
        desired: &DesiredState,
        moment: Moment,
        added: &mut Vec<u64>,
    ) {
        let first = CheckedAddress {
            instance: uuid,
            group: Uuid::nil(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let known = self.subjects.range(first..);
        let mut gone: BTreeSet<CheckedAddress> = known
            .take_while(|(key, _)| key.instance == uuid)
            .map(|(key, _)| *key)
            .collect();
        let instance = desired.instances.get(&uuid);
        let group = instance.and_then(|found| desired.service_groups.get(&found.service_group?));
        if let (Some(instance), Some(group)) = (instance, group) {
            let mut wanted: BTreeMap<CheckedAddress, Vec<Target<'_>>> = BTreeMap::new();
            for target in targets(group, instance, &self.gateway) {
                let key = CheckedAddress {
                    instance: uuid,
                    group: group.uuid,
                    address: target.address,
                };
                wanted.entry(key).or_default().push(target);
            }
            let drains = matches!(instance.state, InstanceState::Draining { .. })
                && group.policy.health.has_checks();
            for key in gone.iter().filter(|key| drains && key.group == group.uuid) {
                wanted.entry(*key).or_default();
            }
            for (key, targets) in wanted {
                if !gone.remove(&key) {
                    self.add(key, group, former, moment);
                }
                self.set_checks(key, &targets, moment, added);
            }
        }
        for key in gone {
            self.remove(key);
        }
    }

    /// Adds an address that was not checked before.
    fn add(
        &mut self,
        key: CheckedAddress,
        group: &ServiceGroup,
        former: Option<&Instance>,
        moment: Moment,
    ) {
        // An instance that serves already goes on, whatever new ones count as.
        let serves = former.is_some_and(|former| {
            former.service_group == Some(key.group)
                && former.state != InstanceState::Stopped
                && [true, false]
                    .map(|v4| former.address(v4))
                    .contains(&Some(key.address))
        });
        let fitness = match self.carried.get(&key) {
            Some(carried) => *carried,
            None if serves => Fitness::Healthy,
            None => match group.policy.health.initial {
                InitialHealth::Healthy => Fitness::Healthy,
                InitialHealth::Unhealthy => Fitness::Unhealthy,
            },
        };
        let subject = Subject {
            checks: Vec::new(),
            fitness,
            since: moment.clock,
            next_step: None,
        };
        self.subjects.insert(key, subject);
        self.change(key, fitness, moment);
    }

    /// Gives an address just these checks. One that stays goes on as it is.
    fn set_checks(
        &mut self,
        key: CheckedAddress,
        targets: &[Target<'_>],
        moment: Moment,
        added: &mut Vec<u64>,
    ) {
        let Some(subject) = self.subjects.get_mut(&key) else {
            return;
        };
        let is_healthy = subject.fitness != Fitness::Unhealthy;
        let mut former = std::mem::take(&mut subject.checks);
        let mut checks = Vec::with_capacity(targets.len());
        for target in targets {
            let is_same = |id: &u64| {
                let state = self.checks.get(id);
                state.is_some_and(|s| s.port == target.port && *s.check == *target.check)
            };
            if let Some(place) = former.iter().position(is_same) {
                checks.push(former.swap_remove(place));
                continue;
            }
            let state = CheckState {
                subject: key,
                port: target.port,
                check: self.spec(key.group, target.check),
                // A check that takes the place of another has to confirm what that said.
                tally: Tally::new(is_healthy),
                since: moment.clock,
                checked_at: None,
                latency: None,
                error: None,
                began: moment.at,
            };
            self.last_id += 1;
            self.checks.insert(self.last_id, state);
            checks.push(self.last_id);
            added.push(self.last_id);
        }
        for id in former {
            self.checks.remove(&id);
        }
        if let Some(subject) = self.subjects.get_mut(&key) {
            subject.checks = checks;
        }
        // What failed may be checked no longer.
        if !targets.is_empty() {
            self.judge(key, moment);
        }
    }

    /// The one copy of a group's check.
    fn spec(&mut self, group: Uuid, check: &Check) -> Arc<Check> {
        let specs = self.specs.entry(group).or_default();
        if let Some(known) = specs.iter().find(|known| ***known == *check) {
            return Arc::clone(known);
        }
        let new = Arc::new(check.clone());
        specs.push(Arc::clone(&new));
        new
    }

    fn remove(&mut self, key: CheckedAddress) {
        let Some(subject) = self.subjects.remove(&key) else {
            return;
        };
        for id in subject.checks {
            self.checks.remove(&id);
        }
        if let Some(planned) = subject.next_step {
            self.ramps.remove(&(planned, key));
        }
        self.health.remove(&key);
        self.has_news = true;
    }
}
