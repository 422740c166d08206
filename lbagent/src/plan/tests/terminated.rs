//! Ports with handlers: entries that many groups share, and who takes their connections.

use lbagent_api::service_group::Handler;

use super::*;

/// Makes all ports of a group ports with handlers.
fn terminate(world: &mut World, group: u8) {
    let found = world.desired.service_groups.get_mut(&group_uuid(group));
    let services = found.expect("a group").services.iter_mut();
    services.for_each(|service| service.handlers = vec![Handler::Tls]);
}

/// Two groups that share port 443 of two VIPs; the second has 8443 too.
fn sharing() -> World {
    let mut world = World::new(&[v4(250), v6(250)]);
    world.add_group(1, &[(443, 8080)]);
    world.add_group(2, &[(443, 9090), (8443, 9090)]);
    terminate(&mut world, 1);
    terminate(&mut world, 2);
    world.add_instance(1, 1, v4(1));
    world
}

/// Ports of the VIPs that lead to a terminator.
fn terminated(world: &World) -> Vec<(IpAddr, u16)> {
    let entries = world.dataplane.vips.iter();
    entries
        .filter(|(_, entry)| entry.is_terminated())
        .map(|(key, _)| (key.addr.into(), key.port.get()))
        .collect()
}

#[test]
fn groups_share_an_entry_until_the_last_one_goes() {
    let mut world = sharing();
    let plan = world.converge();
    assert_eq!(
        kinds(&plan).iter().filter(|kind| **kind == "+vip").count(),
        2 + 4
    );
    let (v4, v6) = (v4(250), v6(250));
    assert_eq!(
        terminated(&world),
        [(v4, 443), (v4, 8443), (v6, 443), (v6, 8443)]
    );
    // Nobody forwards to the instances, so nothing of them is in the maps.
    assert!(world.dataplane.backends.is_empty());

    world.desired.remove_group(group_uuid(2));
    world.converge();
    assert_eq!(terminated(&world), [(v4, 443), (v6, 443)]);
    world.desired.remove_group(group_uuid(1));
    world.converge();
    assert_eq!(terminated(&world), []);
}

#[test]
fn a_raw_port_has_its_key_to_itself() {
    let mut world = sharing();
    world.desired.remove_group(group_uuid(2));
    world.add_group(3, &[(443, 443)]);
    world.converge();
    assert_eq!(
        terminated(&world),
        [],
        "the raw port wins whoever was first"
    );
    assert_eq!(
        world.dataplane.vips[&key(v4(250), 443)].service_group,
        *group_uuid(3).as_bytes()
    );
    terminate(&mut world, 3);
    world.converge();
    assert_eq!(terminated(&world).len(), 2);
    assert_eq!(
        world.dataplane.vips[&key(v4(250), 443)],
        VipEntry::TERMINATED
    );
}

#[test]
fn who_has_no_terminator_is_told_by_family() {
    #[track_caller]
    fn check(takes: Terminator, unserved: &[u8]) {
        let mut world = sharing();
        world
            .desired
            .service_groups
            .get_mut(&group_uuid(1))
            .unwrap()
            .services[0]
            .ip = Some(v4(250));
        world.terminator = takes;
        let expected: Vec<_> = unserved
            .iter()
            .map(|group| (Object::ServiceGroup(group_uuid(*group)), "no_terminator"))
            .collect();
        assert_eq!(reasons(&world.converge()), expected);
    }
    check(
        Terminator {
            v4: false,
            v6: false,
        },
        &[1, 2],
    );
    check(
        Terminator {
            v4: true,
            v6: false,
        },
        &[2],
    );
    check(
        Terminator {
            v4: false,
            v6: true,
        },
        &[1, 2],
    );
    check(Terminator { v4: true, v6: true }, &[]);
}

#[test]
fn what_finds_no_room_is_told_of_its_vip() {
    let mut world = sharing();
    world.terminator = Terminator { v4: true, v6: true };
    // Two addresses and three of the four ports.
    world.dataplane = FakeDataplane::new(Capacity {
        vips: 5,
        ..Capacity::default()
    });
    let plan = world.converge();
    assert_eq!(reasons(&plan), [(Object::Vip(v6(250)), "map_full")]);
    assert_eq!(terminated(&world).len(), 3);
    world.desired.remove_group(group_uuid(2));
    assert_eq!(reasons(&world.converge()), []);
}

#[test]
fn a_vip_of_another_gateway_is_named() {
    let mut world = sharing();
    world.terminator = Terminator { v4: true, v6: true };
    world
        .desired
        .service_groups
        .get_mut(&group_uuid(1))
        .unwrap()
        .services[0]
        .ip = Some(v4(9));
    let plan = world.converge();
    assert_eq!(
        reasons(&plan),
        [(Object::ServiceGroup(group_uuid(1)), "unknown_vip")]
    );
}

#[test]
fn the_miss_policy_is_written() {
    let mut world = sharing();
    world.converge();
    assert_eq!(
        world.dataplane.settings.unsteered,
        Settings::UNSTEERED_RESET
    );
    world.gateway.without_terminator = WithoutTerminator::Pass;
    assert_eq!(kinds(&world.converge()), ["settings"]);
    assert_eq!(world.dataplane.settings.unsteered, Settings::UNSTEERED_PASS);
}
