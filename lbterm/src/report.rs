//! What is told to the agent about once a second: of groups, only what has changed.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use lbagent_api::terminator::{Durations, GroupReport, InstanceReport, Report};
use uuid::Uuid;

use crate::metrics::{Counters, GroupCounter};
use crate::route::{Group, Instance};
use crate::serving::Shared;

/// Groups in one report, at most: with as many instances as groups have, some hundred kilobytes.
/// Further ones are told with the next.
const MAX_GROUPS: usize = 1000;

/// What one agent was told.
#[derive(Default)]
pub struct Reporter {
    generation: Option<u64>,
    /// A digest of each group's numbers when they were told.
    told: HashMap<Uuid, u64>,
    /// The group to begin with, so that each has its turn.
    next: usize,
}

impl Reporter {
    /// Collects a report.
    pub fn report(&mut self, shared: &Shared, workers: &[Arc<Counters>], now: Instant) -> Report {
        let (mut counters, mut requests_took) = (BTreeMap::new(), Durations::default());
        for worker in workers {
            worker.add_to(&mut counters);
            worker.add_durations(&mut requests_took);
        }
        let dropped = shared.http.access.dropped();
        if dropped > 0 {
            counters.insert("access_log_dropped".to_owned(), dropped);
        }
        let serving = shared.now();
        let routes = &serving.routes;
        let mut gone = Vec::new();
        if self.generation != routes.generation {
            self.generation = routes.generation;
            gone = self.forget(|uuid| routes.group(uuid).is_some());
        }
        let groups: Vec<_> = routes.groups().collect();
        Report {
            generation: routes.generation,
            connections: shared.admission.open(),
            counters,
            requests_took,
            groups: self.changed(&groups, now),
            gone,
        }
    }

    /// Forgets the groups that are there no longer, and tells which of them were told of.
    fn forget(&mut self, is_there: impl Fn(Uuid) -> bool) -> Vec<Uuid> {
        let gone = self.told.extract_if(|uuid, _| !is_there(*uuid));
        gone.map(|(uuid, _)| uuid).collect()
    }

    fn changed(&mut self, groups: &[&Arc<Group>], now: Instant) -> Vec<GroupReport> {
        let mut reports = Vec::new();
        let begin = self.next.min(groups.len());
        let (late, early) = groups.split_at(begin);
        for (index, group) in early.iter().chain(late).enumerate() {
            if reports.len() == MAX_GROUPS {
                self.next = (begin + index) % groups.len();
                break;
            }
            if !group.counters.is_used() {
                continue;
            }
            let digest = digest(group, now);
            if self.told.insert(group.uuid, digest) != Some(digest) {
                reports.push(of_group(group, now));
            }
        }
        reports
    }
}

/// Differs when a number of the group does.
fn digest(group: &Group, now: Instant) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (which, _) in GroupCounter::ALL {
        group.counters.get(*which).hash(&mut hasher);
    }
    for instance in &group.instances {
        let load = &instance.load;
        let numbers = (load.in_flight(), load.served(), load.failed());
        (instance.uuid, numbers, load.is_ejected(now)).hash(&mut hasher);
    }
    hasher.finish()
}

fn of_group(group: &Group, now: Instant) -> GroupReport {
    let mut counters = BTreeMap::new();
    group.counters.add_to(&mut counters);
    let instances = group.instances.iter();
    GroupReport {
        uuid: group.uuid,
        counters,
        instances: instances
            .map(|instance| of_instance(instance, now))
            .filter(|it| it.in_flight + it.served + it.failed > 0)
            .collect(),
    }
}

fn of_instance(instance: &Instance, now: Instant) -> InstanceReport {
    let load = &instance.load;
    InstanceReport {
        uuid: instance.uuid,
        in_flight: load.in_flight(),
        served: load.served(),
        failed: load.failed(),
        is_ejected: load.is_ejected(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: usize) -> Arc<Group> {
        Arc::new(Group {
            uuid: Uuid::from_u128(id as u128),
            name: id.to_string(),
            soft_limit: 1,
            hard_limit: 1,
            instances: Vec::new(),
            counters: Arc::default(),
        })
    }

    #[test]
    fn each_change_is_told_once_and_each_group_has_its_turn() {
        let groups: Vec<_> = (0..2500).map(group).collect();
        let all: Vec<_> = groups.iter().collect();
        let mut reporter = Reporter::default();
        let mut told = |expected: &[usize]| {
            for expected in expected {
                let reports = reporter.changed(&all, Instant::now());
                assert_eq!(reports.len(), *expected);
            }
        };
        told(&[0]);
        for group in &groups {
            group.counters.count(GroupCounter::Requests);
        }
        told(&[1000, 1000, 500, 0]);
        groups[7].counters.count(GroupCounter::Requests);
        told(&[1, 0]);
    }

    #[test]
    fn a_group_that_is_gone_is_told_once() {
        let groups = [group(1), group(2)];
        groups[0].counters.count(GroupCounter::Requests);
        let mut reporter = Reporter::default();
        reporter.changed(&groups.each_ref(), Instant::now());
        // Nobody was told of the other one.
        assert_eq!(reporter.forget(|_| false), [groups[0].uuid]);
        assert!(reporter.forget(|_| false).is_empty());
    }

    #[test]
    fn busy_groups_do_not_keep_others_from_being_told() {
        let groups: Vec<_> = (0..1001).map(group).collect();
        let all: Vec<_> = groups.iter().collect();
        let mut reporter = Reporter::default();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2 {
            for group in &groups {
                group.counters.count(GroupCounter::Requests);
            }
            let reports = reporter.changed(&all, Instant::now());
            seen.extend(reports.iter().map(|report| report.uuid));
        }
        assert_eq!(seen.len(), 1001);
    }
}
