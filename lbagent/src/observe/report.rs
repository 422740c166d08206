//! Conditions, outcomes and fill of the maps, in the API's words.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use lbagent_api::status::{
    self, Counters, HeldFragments, MapStatus, ObjectKind, OutcomeCounter, Severity, Verdict,
};
use lbagent_common::redirect::Passed;
use lbagent_common::{Outcome, Steered, limits};
use time::OffsetDateTime;

use crate::dataplane::{ActualState, CounterSnapshot};
use crate::desired::DesiredState;
use crate::fragments;
use crate::plan::{Condition, Object, Reason, named_regions};

/// A condition under the name that its object has for operators.
pub fn condition(desired: &DesiredState, condition: &Condition) -> status::Condition {
    let (object, name, uuid) = match condition.object {
        Object::Gateway => (ObjectKind::Agent, None, None),
        Object::Vip(address) => (ObjectKind::Vip, Some(address.to_string()), None),
        Object::ServiceGroup(uuid) => {
            let group = desired.service_groups.get(&uuid);
            (
                ObjectKind::ServiceGroup,
                group.map(|group| group.name.clone()),
                Some(uuid),
            )
        }
        Object::Instance(uuid) => {
            let instance = desired.instances.get(&uuid);
            (
                ObjectKind::Instance,
                instance.map(|instance| instance.name.clone()),
                Some(uuid),
            )
        }
        Object::Certificate(uuid) => {
            let certificate = desired.certificates.get(&uuid);
            (
                ObjectKind::Certificate,
                certificate.map(|certificate| certificate.name.clone()),
                Some(uuid),
            )
        }
    };
    let or_uuid = || uuid.map_or_else(|| "lbagent".to_owned(), |uuid| uuid.to_string());
    status::Condition {
        severity: severity(&condition.reason),
        object,
        name: name.unwrap_or_else(or_uuid),
        uuid,
        reason: condition.reason.code().to_owned(),
        message: condition.reason.to_string(),
        since: None,
    }
}

const fn severity(reason: &Reason) -> Severity {
    match reason {
        // The kernel answers, as the configuration asks for.
        Reason::NoTerminator { resets: false, .. } => Severity::Info,
        Reason::NoTerminator { resets: true, .. }
        | Reason::NoActiveBackend { .. }
        | Reason::SomeUnhealthy { .. }
        | Reason::NoAddress { .. }
        | Reason::NoVipIndex
        | Reason::NoCookies { .. }
        | Reason::UnknownServiceGroup { .. } => Severity::Warning,
        Reason::AllUnhealthy { .. }
        | Reason::NoRoute { .. }
        | Reason::NotOnLink { .. }
        | Reason::UnknownVip { .. }
        | Reason::PortTaken { .. }
        | Reason::RefusedByTerminator { .. }
        | Reason::MapFull { .. }
        | Reason::StepFailed { .. } => Severity::Error,
    }
}

/// Packets by outcome, those without any included.
pub fn counters(
    snapshot: &CounterSnapshot,
    fragments: &fragments::Counters,
    taken_at: OffsetDateTime,
) -> Counters {
    let outcomes = Outcome::ALL.iter().enumerate().map(|(index, outcome)| {
        let counter = snapshot.outcomes.get(index).copied().unwrap_or_default();
        OutcomeCounter {
            outcome: outcome.label().to_owned(),
            verdict: verdict(*outcome),
            packets: counter.packets,
            bytes: counter.bytes,
        }
    });
    Counters {
        taken_at,
        outcomes: outcomes.collect(),
        steering: steering(snapshot),
        passed_redirects: passed_redirects(snapshot),
        flooded_vips: snapshot.flooded.len() as u64,
        fragments: held(fragments),
    }
}

/// Connections to ports with handlers, by what became of them.
pub fn steering(snapshot: &CounterSnapshot) -> BTreeMap<String, u64> {
    let ends = Steered::ALL.iter().zip(&snapshot.steered);
    ends.map(|(end, count)| (end.label().to_owned(), *count))
        .collect()
}

/// Packets for ports that redirect that were left to the terminator, by reason.
pub fn passed_redirects(snapshot: &CounterSnapshot) -> BTreeMap<String, u64> {
    let reasons = Passed::ALL.iter().zip(&snapshot.passed);
    reasons
        .map(|(reason, count)| (reason.label().to_owned(), *count))
        .collect()
}

fn held(counters: &fragments::Counters) -> HeldFragments {
    let fragments::Counters {
        waiting,
        released,
        expired,
        displaced,
        failed,
    } = counters;
    let [waiting, released, expired, displaced, failed] =
        [waiting, released, expired, displaced, failed].map(|count| count.load(Ordering::Relaxed));
    HeldFragments {
        waiting,
        released,
        expired,
        displaced,
        failed,
    }
}

/// Fill of the maps that the agent itself fills.
pub fn maps(actual: &ActualState) -> Vec<MapStatus> {
    let slots = named_regions(actual)
        .iter()
        .map(|region| u64::from(region.len))
        .sum();
    let row = |name: &str, used: u64, capacity: u32| MapStatus {
        name: name.to_owned(),
        used,
        capacity: u64::from(capacity),
    };
    let capacity = &actual.capacity;
    vec![
        row(limits::VIPS, actual.vips.len() as u64, capacity.vips),
        row(limits::SLOTS, slots, capacity.slots),
        // Id 0 is no backend.
        row(
            limits::BACKENDS,
            actual.backends.len() as u64,
            capacity.backends.saturating_sub(1),
        ),
        row(
            limits::RETURNS,
            actual.returns.len() as u64,
            capacity.returns,
        ),
        row(limits::HOSTS, actual.hosts.len() as u64, capacity.hosts),
    ]
}

/// What becomes of a packet with an outcome.
pub fn verdict(outcome: Outcome) -> Verdict {
    match outcome.verdict() {
        lbagent_common::Verdict::Forwarded => Verdict::Forwarded,
        lbagent_common::Verdict::Passed => Verdict::Passed,
        lbagent_common::Verdict::Answered => Verdict::Answered,
        lbagent_common::Verdict::Dropped => Verdict::Dropped,
    }
}

#[cfg(test)]
mod tests {
    use lbagent_common::PacketCounter;

    use super::*;
    use crate::plan::testing::{World, v4};

    #[test]
    fn conditions_name_the_object_and_what_to_do() {
        let mut world = World::new(&[v4(250)]);
        world.add_group(1, &[(80, 80)]);
        world.add_instance(1, 1, v4(1));
        world.dataplane.paths.clear();
        let plan = world.plan();
        let [found] = &plan.conditions[..] else {
            panic!("{:?}", plan.conditions)
        };
        let shown = condition(&world.desired, found);
        assert_eq!(
            (shown.object, shown.name.as_str()),
            (ObjectKind::Instance, "instance-1")
        );
        assert_eq!(
            (shown.severity, shown.reason.as_str()),
            (Severity::Error, "no_route")
        );
        assert!(shown.message.contains("10.0.0.1"), "{}", shown.message);
    }

    #[test]
    fn every_outcome_is_listed_once() {
        let mut outcomes = vec![PacketCounter::default(); Outcome::COUNT as usize];
        outcomes[Outcome::DropMapFull as usize] = PacketCounter {
            packets: 2,
            bytes: 120,
        };
        let snapshot = CounterSnapshot {
            outcomes,
            ..CounterSnapshot::default()
        };
        let counters = counters(
            &snapshot,
            &fragments::Counters::default(),
            OffsetDateTime::UNIX_EPOCH,
        );
        assert_eq!(counters.outcomes.len(), Outcome::ALL.len());
        let found: Vec<_> = counters.outcomes.iter().filter(|c| c.packets > 0).collect();
        let [found] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            (found.outcome.as_str(), found.verdict),
            ("drop_map_full", Verdict::Dropped)
        );
    }

    #[test]
    fn maps_tell_how_full_they_are() {
        let mut world = World::new(&[v4(250)]);
        world.add_group(1, &[(80, 80), (81, 80)]);
        world.add_instance(1, 1, v4(1));
        world.converge();
        let used: Vec<u64> = maps(&world.read()).iter().map(|map| map.used).collect();
        assert_eq!(used, [3, 509, 1, 1, 0]);
    }
}
