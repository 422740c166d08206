//! The plan as a whole: its order, its conditions, its limits.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbagent_common::{BackendEntry, Port, Protocol, ReturnEntry, ReturnKey, VipEntry, VipKey};

use super::testing::{World, draining, group_uuid, instance_uuid, v4, v6};
use super::*;
use crate::dataplane::Capacity;
use crate::dataplane::fake::FakeDataplane;
use crate::desired::{Instance, InstanceState, SharedMap};

mod flows;
mod health;
mod histories;
mod hosts;
mod modes;
mod room;
mod shares;
mod terminated;

fn key(vip: IpAddr, port: u16) -> VipKey {
    VipKey::new(vip.into(), Port::new(port), Protocol::TCP)
}

fn reasons(plan: &Plan) -> Vec<(Object, &'static str)> {
    plan.conditions
        .iter()
        .map(|condition| (condition.object, condition.reason.code()))
        .collect()
}

/// One group on port 80 with instances 1 to `count`.
fn one_group(count: u8) -> World {
    let mut world = World::new(&[v4(250)]);
    world.add_group(1, &[(80, 8080)]);
    (1..=count).for_each(|number| world.add_instance(number, 1, v4(number)));
    world
}

fn id_of(world: &World, number: u8) -> u32 {
    let owner = *instance_uuid(number).as_bytes();
    let mut found = world
        .dataplane
        .backends
        .iter()
        .filter(|(_, entry)| entry.instance == owner);
    *found.next().expect("a backend").0
}

fn kinds(plan: &Plan) -> Vec<&'static str> {
    let kind = |step: &Step| match step {
        Step::PutSettings(_) => "settings",
        Step::PutBackend(..) => "+backend",
        Step::DeleteBackend(_) => "-backend",
        Step::PutTable(..) => "table",
        Step::PutVip(..) => "+vip",
        Step::DeleteVip(..) => "-vip",
        Step::PutReturn(..) => "+return",
        Step::DeleteReturn(_) => "-return",
        Step::PutRule(..) => "+rule",
        Step::DeleteRule(_) => "-rule",
        Step::PutHost(..) => "+host",
        Step::DeleteHost(_) => "-host",
        Step::AddHostAddress(_) => "+address",
        Step::DeleteHostAddress(_) => "-address",
        Step::Probe(..) => "probe",
    };
    plan.steps.iter().map(kind).collect()
}

#[test]
fn what_is_named_comes_first_and_goes_last() {
    let mut world = one_group(1);
    let made = [
        "settings", "+address", "+backend", "probe", "table", "+return", "+vip", "+vip",
    ];
    assert_eq!(kinds(&world.converge()), made);
    world.desired = DesiredState::default();
    world.gateway.vips.clear();
    let plan = world.converge();
    assert_eq!(
        kinds(&plan),
        ["-vip", "-vip", "-return", "-backend", "-address"]
    );
    assert!(world.dataplane.vips.is_empty() && world.dataplane.backends.is_empty());
}

#[test]
fn the_entries_say_what_was_asked_for() {
    let mut world = one_group(1);
    world.converge();
    let backend = world.dataplane.backends[&1];
    assert_eq!(
        (backend.addr, backend.source),
        (v4(1).into(), v4(254).into())
    );
    assert_eq!(
        (backend.ifindex, backend.onlink_mask),
        (3, Addr::mask(96 + 24))
    );
    assert_eq!(backend.flags, BackendEntry::FLAG_ALIVE);
    assert_eq!(
        world.dataplane.vips[&VipKey::address(v4(250).into())],
        VipEntry {
            vip_index: 1,
            ..VipEntry::default()
        }
    );
    let vip = world.dataplane.vips[&key(v4(250), 80)];
    assert_eq!(
        (vip.vip_id, vip.table_len, vip.destination_port.get()),
        (1, 509, 8080)
    );
    let returned = ReturnKey::new(v4(1).into(), Port::new(8080), Protocol::TCP);
    let entry = world.dataplane.returns[&returned];
    assert_eq!(
        (entry.vip, entry.vip_port.get(), entry.flags),
        (v4(250).into(), 80, 0)
    );
    assert_eq!(
        (entry.vip_id, entry.backend_id, entry.source),
        (1, 1, v4(254).into())
    );
    assert_eq!(world.dataplane.probed, [v4(1)]);
}

#[test]
fn settings_round_the_idle_time_up() {
    let mut settings = testing::gateway(&[]);
    for (seconds, ticks) in [(0, 1), (1, 1), (2, 2), (60, 56)] {
        settings.udp_idle = Duration::from_secs(seconds);
        assert_eq!(
            settings.entry(&Capacity::default()).udp_idle_ticks,
            ticks,
            "{seconds} s"
        );
    }
}

#[test]
fn each_family_has_backends_and_a_table_of_its_own() {
    let mut world = World::new(&[v4(250), v6(250)]);
    world.add_group(1, &[(80, 80), (81, 80)]);
    world.add_instance(1, 1, v4(1));
    world.add_instance(2, 1, v6(2));
    let plan = world.converge();
    let no_address = |number| (Object::Instance(instance_uuid(number)), "no_address");
    let mut want = vec![no_address(1), no_address(2)];
    want.sort();
    assert_eq!(reasons(&plan), want);
    let offset = |vip, port| world.dataplane.vips[&key(vip, port)].table_offset;
    assert_eq!(offset(v4(250), 80), offset(v4(250), 81));
    assert_eq!(offset(v6(250), 80), offset(v6(250), 81));
    assert_ne!(offset(v4(250), 80), offset(v6(250), 80));
}

#[test]
fn ids_stay_with_their_owner_and_rest_when_freed() {
    let mut world = one_group(3);
    world.converge();
    let ids = [1, 2, 3].map(|number| id_of(&world, number));
    world.desired.remove_instance(instance_uuid(2));
    world.add_instance(4, 1, v4(4));
    world.converge();
    assert_eq!([id_of(&world, 1), id_of(&world, 3)], [ids[0], ids[2]]);
    assert_eq!(id_of(&world, 4), 4);
    world.add_instance(5, 1, v4(5));
    world.converge();
    assert_eq!(id_of(&world, 5), 5, "the freed id rests");
}

#[test]
fn an_instance_that_moves_gets_another_id() {
    let mut world = one_group(1);
    world.add_group(2, &[(81, 81)]);
    world.converge();
    let before = id_of(&world, 1);
    world.instance(1).service_group = Some(group_uuid(2));
    world.converge();
    assert_ne!(id_of(&world, 1), before, "stored flows must not follow it");
    assert_eq!(world.dataplane.backends.len(), 1);
}

#[test]
fn a_port_that_changes_owner_gets_another_id() {
    let mut world = one_group(1);
    world.converge();
    world.desired.service_groups = SharedMap::new();
    world.add_group(2, &[(80, 80)]);
    world.converge();
    let entry = world.dataplane.vips[&key(v4(250), 80)];
    assert_eq!(
        (entry.vip_id, entry.service_group),
        (2, *group_uuid(2).as_bytes())
    );
}

#[track_caller]
fn check_returns(world: &World, address: IpAddr, flags: u16, vip_port: u16) {
    let found = ReturnKey::new(address.into(), Port::new(80), Protocol::TCP);
    let entry = world.dataplane.returns[&found];
    assert_eq!((entry.flags, entry.vip_port.get()), (flags, vip_port));
}

#[test]
fn vips_that_share_a_backend_port_are_tracked_while_they_do() {
    let mut world = World::new(&[v4(250)]);
    world.add_group(1, &[(8001, 80)]);
    world.add_instance(1, 1, v4(1));
    world.converge();
    check_returns(&world, v4(1), 0, 8001);
    // Another group, with the same address and port.
    world.add_group(2, &[(8000, 80)]);
    world.add_instance(2, 2, v4(1));
    world.converge();
    check_returns(&world, v4(1), ReturnEntry::FLAG_AMBIGUOUS, 8001);
    for port in [8000, 8001] {
        assert_eq!(
            world.dataplane.vips[&key(v4(250), port)].flags,
            VipEntry::FLAG_TRACK_RETURN
        );
    }
    world.desired.remove_instance(instance_uuid(1));
    world.converge();
    check_returns(&world, v4(1), 0, 8000);
    assert_eq!(world.dataplane.vips[&key(v4(250), 8000)].flags, 0);
}

/// Each case: what is wrong, and the conditions that it must give.
#[test]
fn every_trouble_has_a_condition() {
    type Break = fn(&mut World);
    let group = |number| Object::ServiceGroup(group_uuid(number));
    let instance = |number| Object::Instance(instance_uuid(number));
    let cases: [(Break, Vec<(Object, &str)>); 6] = [
        (|_| {}, vec![]),
        (
            |world| world.dataplane.paths.clear(),
            vec![(instance(1), "no_route")],
        ),
        (
            |world| world.instance(1).state = InstanceState::Stopped,
            vec![(group(1), "no_active_backend")],
        ),
        (
            |world| world.add_instance(9, 77, v4(9)),
            vec![(instance(9), "unknown_service_group")],
        ),
        (
            |world| {
                world.add_group(2, &[(80, 80)]);
            },
            vec![(group(2), "port_taken")],
        ),
        (
            |world| world.add_group(1, &[(80, 8080)]).services[0].ip = Some(v4(99)),
            vec![(group(1), "unknown_vip")],
        ),
    ];
    for (index, (break_it, want)) in cases.into_iter().enumerate() {
        let mut world = one_group(1);
        break_it(&mut world);
        assert_eq!(reasons(&world.converge()), want, "case {index}");
    }
}

#[test]
fn an_interrupted_switch_is_completed() {
    let mut world = one_group(2);
    world.add_group(1, &[(80, 8080), (81, 8080)]);
    world.converge();
    world.instance(1).state = draining(600);
    let plan = world.plan();
    let last_switch = plan
        .steps
        .iter()
        .rposition(|step| matches!(step, Step::PutVip(..)));
    for step in &plan.steps[..last_switch.expect("a switch")] {
        crate::dataplane::Dataplane::apply(&mut world.dataplane, step).expect("applied");
    }
    let completed = world.converge();
    assert_eq!(kinds(&completed), ["+vip"]);
    let entries: BTreeSet<_> = [80, 81]
        .map(|port| table_region(&world.dataplane.vips[&key(v4(250), port)]))
        .into();
    assert_eq!(entries.len(), 1);
}

#[test]
fn only_addresses_that_packets_may_go_to_are_asked_about() {
    let mut world = one_group(1);
    world.add_instance(2, 1, v6(2));
    world.instance(2).service_group = None;
    let second: &mut Instance = world.instance(1);
    second.addresses.push(v4(77).into());
    second.addresses.push(v6(1).into());
    assert_eq!(backend_addresses(&world.desired), [v4(1), v6(1)].into());
}

#[test]
fn a_thousand_groups_are_planned_in_a_moment() {
    let mut world = World::new(&[v4(250)]);
    world.add_group(1, &[(80, 80)]);
    let template = world.desired.service_groups[&group_uuid(1)].clone();
    for number in 0..1000_u16 {
        let mut group = template.clone();
        group.uuid = uuid::Uuid::from_u128(u128::from(number) + 1);
        group.services[0].port = 1000 + number;
        world.add_instance((number % 200) as u8, 1, v4((number % 200) as u8));
        let mut instance = world.desired.instances[&instance_uuid((number % 200) as u8)].clone();
        instance.uuid = uuid::Uuid::from_u128((u128::from(number) + 1) << 64);
        instance.service_group = Some(group.uuid);
        world.desired.put_instance(instance);
        world.desired.put_group(group);
    }
    let begun = std::time::Instant::now();
    let plan = world.plan();
    let elapsed = begun.elapsed();
    assert_eq!(reasons(&plan), []);
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}
