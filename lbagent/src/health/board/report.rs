//! What is known, in the API's words.

use lbagent_api::health_report::{CheckHealth, GroupHealth, HealthState, InstanceHealth};

use super::*;

impl Board {
    /// The groups that have checked addresses, of those that `is_wanted` says, by name.
    pub(in super::super) fn report(&self, is_wanted: impl Fn(Uuid) -> bool) -> Vec<GroupHealth> {
        let mut instances: BTreeMap<Uuid, Vec<InstanceHealth>> = BTreeMap::new();
        for (key, subject) in self.subjects.iter().filter(|(key, _)| is_wanted(key.group)) {
            let rows = instances.entry(key.group).or_default();
            rows.push(self.instance_row(key, subject));
        }
        let groups = instances.into_iter().filter_map(|(uuid, mut instances)| {
            let group = self.groups.get(&uuid)?;
            instances.sort_by(|a, b| (&a.name, a.uuid, a.ip).cmp(&(&b.name, b.uuid, b.ip)));
            Some(GroupHealth {
                uuid,
                name: group.name.clone(),
                when_all_unhealthy: group.policy.health.when_all_unhealthy,
                instances,
            })
        });
        let mut groups: Vec<GroupHealth> = groups.collect();
        groups.sort_by(|a, b| (&a.name, a.uuid).cmp(&(&b.name, b.uuid)));
        groups
    }

    fn instance_row(&self, key: &CheckedAddress, subject: &Subject) -> InstanceHealth {
        let (state, weight_percent) = match subject.fitness {
            Fitness::Healthy => (HealthState::Healthy, 100),
            Fitness::Warming { percent } => (HealthState::Warming, percent),
            Fitness::Unhealthy => (HealthState::Unhealthy, 0),
        };
        let checks = subject.checks.iter().filter_map(|id| self.checks.get(id));
        InstanceHealth {
            uuid: key.instance,
            name: self.names(key).1,
            ip: key.address,
            state,
            weight_percent,
            since: subject.since,
            checks: checks.map(check_row).collect(),
        }
    }
}

fn check_row(state: &CheckState) -> CheckHealth {
    let Tally {
        is_healthy,
        against,
    } = state.tally;
    let latency = state.latency.map(|latency| latency.as_micros());
    CheckHealth {
        kind: state.check.probe.kind().to_owned(),
        port: state.port,
        state: if is_healthy {
            HealthState::Healthy
        } else {
            HealthState::Unhealthy
        },
        since: state.since,
        checked_at: state.checked_at,
        latency_us: latency.and_then(|latency| u64::try_from(latency).ok()),
        error: state.error.as_deref().map(str::to_owned),
        successes: if is_healthy { 0 } else { against },
        failures: if is_healthy { against } else { 0 },
        rise: state.check.rise,
        fall: state.check.fall,
    }
}
