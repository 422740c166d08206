//! What is told to the agent about once a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use lbagent_api::terminator::{GroupReport, InstanceReport, Report};

use crate::metrics::Counters;
use crate::route::{Group, Instance};
use crate::serving::Shared;

/// Collects a report.
pub fn report(shared: &Shared, workers: &[Arc<Counters>], now: Instant) -> Report {
    let mut counters = BTreeMap::new();
    for worker in workers {
        worker.add_to(&mut counters);
    }
    let serving = shared.now();
    let groups = serving.routes.groups();
    Report {
        generation: serving.routes.generation,
        connections: shared.admission.open(),
        counters,
        groups: groups
            .filter(|group| group.counters.is_used())
            .map(|group| of_group(group, now))
            .collect(),
    }
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
