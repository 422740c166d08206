//! Maps that are too small.

use super::*;

fn many_groups(count: u8, capacity: Capacity) -> World {
    let mut world = World::new(&[v4(250)]);
    world.dataplane = crate::dataplane::fake::FakeDataplane::new(capacity);
    for number in 1..=count {
        world.add_group(number, &[(u16::from(number), 80)]);
        world.add_instance(number, number, v4(number));
    }
    world
}

#[track_caller]
fn check_full(capacity: Capacity, fitting: usize) {
    let mut world = many_groups(5, capacity);
    let plan = world.converge();
    let full = reasons(&plan)
        .into_iter()
        .filter(|(_, code)| *code == "map_full")
        .count();
    assert_eq!(full, 5 - fitting, "{:?}", plan.conditions);
    // The oldest have room, and nothing of the others is there.
    let ports: Vec<u16> = world
        .dataplane
        .vips
        .keys()
        .map(|key| key.port.get())
        .collect();
    assert_eq!(ports, (0..=fitting as u16).collect::<Vec<_>>());
    assert_eq!(
        (
            world.dataplane.backends.len(),
            world.dataplane.returns.len()
        ),
        (fitting, fitting)
    );
    // Room that is made is used.
    world.desired.remove_group(group_uuid(1));
    world.desired.remove_instance(instance_uuid(1));
    assert_eq!(world.apply().awaits_room, fitting < 5);
    world.converge();
    let ports = world
        .dataplane
        .vips
        .keys()
        .filter(|key| !key.is_address())
        .count();
    assert_eq!(ports, fitting.min(4));
}

#[test]
fn a_full_map_is_a_condition_and_the_rest_is_served() {
    let roomy = Capacity::default();
    check_full(roomy, 5);
    check_full(Capacity { vips: 4, ..roomy }, 3);
    check_full(
        Capacity {
            backends: 3,
            ..roomy
        },
        2,
    );
    check_full(
        Capacity {
            returns: 4,
            ..roomy
        },
        4,
    );
    // A table more than there are groups: any one of them can be rewritten.
    check_full(
        Capacity {
            slots: 509 * 4 + 508,
            ..roomy
        },
        3,
    );
}

#[test]
fn a_group_without_room_for_a_change_stays_whole() {
    let mut world = many_groups(
        1,
        Capacity {
            slots: 509 * 2,
            ..Capacity::default()
        },
    );
    world.converge();
    let before = world.dataplane.clone();
    world.add_instance(2, 1, v4(2));
    let region = table_region(&before.vips[&key(v4(250), 1)]).expect("a table");
    world.retired = [Region {
        offset: 509,
        len: 509,
    }]
    .into();
    let plan = world.apply();
    assert_eq!(
        reasons(&plan),
        [(Object::ServiceGroup(group_uuid(1)), "map_full")]
    );
    assert!(plan.awaits_room, "the retired region will be free");
    assert_eq!(world.dataplane.vips, before.vips);
    assert_eq!(world.dataplane.backends, before.backends);
    world.retired.clear();
    world.converge();
    let after = table_region(&world.dataplane.vips[&key(v4(250), 1)]);
    assert_ne!(after, Some(region));
    assert_eq!(world.dataplane.backends.len(), 2);
}
