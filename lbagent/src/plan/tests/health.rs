//! What health does to tables: who takes new flows, who keeps established ones.

use std::collections::BTreeMap;

use lbagent_api::health::{Check, InitialHealth, OnFailure, Probe, WhenAllUnhealthy};
use lbagent_common::BackendEntry;
use proptest::prelude::*;
use uuid::Uuid;

use super::super::testing::changes::{Change, change, change_of_health, make};
use super::*;
use crate::desired::HealthPolicy;

fn checked(edit: impl FnOnce(&mut HealthPolicy)) -> HealthPolicy {
    let tcp = Probe::Tcp {
        send: None,
        expect: None,
    };
    let mut policy = HealthPolicy {
        check: Some(Check::new(tcp)),
        ..HealthPolicy::default()
    };
    edit(&mut policy);
    policy
}

/// A checked group on port 80 with instances 1 to 4.
fn world(edit: impl FnOnce(&mut HealthPolicy)) -> World {
    let mut world = World::new(&[v4(250)]);
    world.add_group(1, &[(80, 8080)]).policy.health = checked(edit);
    for number in 1..=4 {
        world.add_instance(number, 1, v4(number));
    }
    world.converge();
    world
}

/// Slots that each instance owns.
fn shares(world: &mut World) -> BTreeMap<Uuid, usize> {
    let actual = world.read();
    let mut shares = BTreeMap::new();
    let regions = actual.vips.values().filter_map(table_region);
    for slot in regions.flat_map(|region| &actual.tables[&region]) {
        if let Some(entry) = actual.backends.get(&slot.current) {
            *shares.entry(Uuid::from_bytes(entry.instance)).or_default() += 1;
        }
    }
    shares
}

#[track_caller]
fn assert_owners(world: &mut World, numbers: &[u8]) {
    let owners: BTreeSet<Uuid> = shares(world).into_keys().collect();
    assert_eq!(owners, numbers.iter().map(|n| instance_uuid(*n)).collect());
}

fn entry(world: &mut World, number: u8) -> BackendEntry {
    let actual = world.read();
    let mut entries = actual.backends.values();
    let is_it = |entry: &&BackendEntry| Uuid::from_bytes(entry.instance) == instance_uuid(number);
    *entries.find(is_it).expect("a backend")
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.conditions
        .iter()
        .map(|found| found.reason.code())
        .collect()
}

#[test]
fn an_unhealthy_instance_takes_no_new_flows_and_keeps_its_own() {
    let mut world = world(|_| {});
    world.judge(2, Some(Fitness::Unhealthy));
    let plan = world.converge();
    assert_eq!(reasons(&plan), ["unhealthy"]);
    assert_owners(&mut world, &[1, 3, 4]);
    let unhealthy = entry(&mut world, 2);
    assert!(unhealthy.is_alive() && unhealthy.is_unhealthy());
    // Each of its slots remembers it.
    let actual = world.read();
    let slots: Vec<_> = actual.tables.values().flatten().collect();
    let is_its = |id: &u32| actual.backends[id].is_unhealthy();
    assert!(slots.iter().any(|slot| is_its(&slot.previous())));
    world.judge(2, Some(Fitness::Healthy));
    assert_eq!(reasons(&world.converge()), [""; 0]);
    assert_owners(&mut world, &[1, 2, 3, 4]);
}

#[test]
fn flows_of_a_failed_instance_are_cut_if_asked_for() {
    let mut world = world(|health| health.on_failure = OnFailure::Cut);
    world.judge(2, Some(Fitness::Unhealthy));
    world.converge();
    assert_owners(&mut world, &[1, 3, 4]);
    assert!(!entry(&mut world, 2).is_alive());
    let actual = world.read();
    assert_eq!(actual.returns.len(), 3, "its replies are no VIP's any more");
    let slots = actual.tables.values().flatten();
    let mut named = slots.flat_map(|slot| [slot.current, slot.previous()]);
    assert!(named.all(|id| !actual.backends[&id].is_unhealthy()));
}

#[test]
fn when_all_are_unhealthy_the_policy_decides() {
    for (policy, owners) in [
        (WhenAllUnhealthy::FailOpen, &[1, 2, 3, 4][..]),
        (WhenAllUnhealthy::FailClosed, &[]),
    ] {
        for on_failure in OnFailure::ALL {
            let mut world = world(|health| {
                (health.when_all_unhealthy, health.on_failure) = (policy, *on_failure);
            });
            let before = shares(&mut world);
            (1..=4).for_each(|number| world.judge(number, Some(Fitness::Unhealthy)));
            let plan = world.converge();
            assert_eq!(reasons(&plan), ["all_unhealthy"], "{policy} {on_failure}");
            assert_owners(&mut world, owners);
            if policy == WhenAllUnhealthy::FailOpen {
                assert_eq!(shares(&mut world), before, "nothing moves");
            }
            world.judge(3, Some(Fitness::Healthy));
            world.converge();
            assert_owners(&mut world, &[3]);
        }
    }
}

#[test]
fn a_warming_instance_has_its_part() {
    let mut world = world(|_| {});
    world.judge(2, Some(Fitness::Unhealthy));
    world.converge();
    let mut last = 0;
    for percent in [20, 40, 60, 80] {
        world.judge(2, Some(Fitness::Warming { percent }));
        world.converge();
        let shares = shares(&mut world);
        let (own, all) = (shares[&instance_uuid(2)], shares.values().sum::<usize>());
        let exact = f64::from(percent) / (300.0 + f64::from(percent)) * all as f64;
        assert!(
            (own as f64 - exact).abs() <= 1.0,
            "{own} of {all} at {percent} %"
        );
        assert!(own > last);
        last = own;
    }
}

#[test]
fn a_part_of_a_weight_is_nothing_only_where_the_weight_is() {
    let warming = Fitness::Warming { percent: 20 };
    for (weight, share) in [(0, 0), (1, 1), (4, 1), (100, 20), (1000, 200)] {
        assert_eq!(warming.share_of(weight), share, "{weight}");
        assert_eq!(Fitness::Healthy.share_of(weight), weight);
    }
}

/// Its connections were cut; that nobody else is healthy gives it none back.
#[test]
fn a_failed_instance_that_drains_stays_cut() {
    let mut world = world(|health| health.on_failure = OnFailure::Cut);
    world.judge(2, Some(Fitness::Unhealthy));
    world.converge();
    let instance = world.desired.instances.get_mut(&instance_uuid(2));
    instance.expect("an instance").state = draining(60);
    world.converge();
    for others in [Fitness::Healthy, Fitness::Unhealthy] {
        for number in [1, 3, 4] {
            world.judge(number, Some(others));
        }
        world.converge();
        assert!(!entry(&mut world, 2).is_alive(), "others {others:?}");
        assert!(entry(&mut world, 1).is_alive(), "others {others:?}");
    }
    // It is not checked any more, so its verdict is gone.
    world.judge(2, None);
    world.converge();
    assert!(!entry(&mut world, 2).is_alive(), "without a verdict");
}

/// Health never changes the size of a table, which would give most slots another owner.
#[test]
fn the_size_of_a_table_does_not_depend_on_health() {
    let mut world = World::new(&[v4(250)]);
    world.add_group(1, &[(80, 8080)]).policy.health = checked(|_| {});
    (1..=6).for_each(|number| world.add_instance(number, 1, v4(number)));
    world.converge();
    let size = |world: &mut World| -> Vec<u32> {
        let actual = world.read();
        actual.vips.values().map(|entry| entry.table_len).collect()
    };
    let before = size(&mut world);
    (1..=5).for_each(|number| world.judge(number, Some(Fitness::Unhealthy)));
    world.converge();
    assert_eq!(size(&mut world), before);
}

#[test]
fn a_new_instance_counts_as_the_policy_says_until_there_is_a_verdict() {
    for (initial, owners) in [
        (InitialHealth::Healthy, &[1, 2, 3, 4, 5][..]),
        (InitialHealth::Unhealthy, &[1, 2, 3, 4]),
    ] {
        // Those that served before the check came go on.
        let mut world = world(|_| {});
        let group = world.desired.service_groups.get_mut(&group_uuid(1));
        group.expect("a group").policy.health.initial = initial;
        world.add_instance(5, 1, v4(5));
        world.converge();
        assert_owners(&mut world, owners);
    }
}

#[test]
fn without_verdicts_the_maps_say_what_counts() {
    let mut world = world(|_| {});
    world.judge(2, Some(Fitness::Unhealthy));
    world.converge();
    // As after a start of the agent.
    world.health = Health::new();
    assert_eq!(world.plan().steps, []);
    let group = world.desired.service_groups.get_mut(&group_uuid(1));
    group.expect("a group").policy.health = HealthPolicy::default();
    world.converge();
    assert_owners(&mut world, &[1, 2, 3, 4]);
}

/// Changes of everything that decides who takes new flows.
fn history() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(prop_oneof![1 => change(), 2 => change_of_health()], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn tables_name_healthy_instances_while_there_are_any(history in history()) {
        let mut world = World::new(&[v4(250), v6(250)]);
        for change in history {
            make(&mut world, change);
            world.apply();
            world.apply();
            check_tables(&mut world)?;
        }
    }
}

fn check_tables(world: &mut World) -> Result<(), TestCaseError> {
    let actual = world.read();
    for (key, vip) in actual.vips.iter().filter(|(key, _)| !key.is_address()) {
        let group = &world.desired.service_groups[&Uuid::from_bytes(vip.service_group)];
        let health = &group.policy.health;
        let members = world.desired.members(group.uuid);
        let is_v4 = key.addr.is_v4();
        let eligible = members.filter(|instance| {
            instance.state == InstanceState::Running
                && instance.policy.weight > 0
                && instance.address(is_v4).is_some()
        });
        let mut eligible = eligible.peekable();
        if eligible.peek().is_none() {
            continue;
        }
        // Who is unhealthy by its entry: verdicts that are not known yet included.
        let is_unhealthy = |instance: Uuid| {
            let mut entries = actual.backends.values();
            entries.any(|entry| {
                entry.instance == *instance.as_bytes()
                    && entry.addr.is_v4() == is_v4
                    && entry.is_unhealthy()
            })
        };
        let verdict = |instance: &Instance| {
            let address = instance.address(is_v4)?;
            let (instance, group) = (instance.uuid, group.uuid);
            let key = CheckedAddress {
                instance,
                group,
                address,
            };
            world.health.get(&key).copied()
        };
        let mut any_healthy = false;
        for instance in eligible {
            if health.has_checks()
                && let Some(known) = verdict(instance)
            {
                prop_assert_eq!(is_unhealthy(instance.uuid), known == Fitness::Unhealthy);
            }
            any_healthy |= !is_unhealthy(instance.uuid);
        }
        let slots = table_region(vip).map_or(&[][..], |region| &actual.tables[&region]);
        let is_open = health.when_all_unhealthy == WhenAllUnhealthy::FailOpen;
        prop_assert_eq!(
            slots.iter().any(|slot| slot.current != 0),
            any_healthy || is_open,
            "somebody takes new flows"
        );
        for slot in slots.iter().filter(|slot| slot.current != 0) {
            let owner = &actual.backends[&slot.current];
            prop_assert!(owner.is_alive());
            let is_wrong = owner.is_unhealthy() && any_healthy;
            prop_assert!(!is_wrong, "an unhealthy instance takes new flows");
        }
    }
    Ok(())
}
