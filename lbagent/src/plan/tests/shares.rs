//! Who gets how much of the new flows: weights, and draining.

use super::*;

#[test]
fn draining_ends_with_its_deadline() {
    let mut world = one_group(2);
    world.converge();
    let (id, moved) = (id_of(&world, 1), |world: &World| {
        let region = table_region(&world.dataplane.vips[&key(v4(250), 80)]).expect("a table");
        world.dataplane.region(region).expect("in range").to_vec()
    });
    let before = moved(&world);
    world.instance(1).state = draining(60);
    world.converge();
    for (old, new) in before.iter().zip(moved(&world)) {
        assert_ne!(new.current, id, "a draining backend takes no new flows");
        assert_eq!(
            new.previous(),
            old.current,
            "flows that are not stored stay"
        );
    }
    assert_eq!(
        world.dataplane.backends[&id].flags,
        BackendEntry::FLAG_ALIVE | BackendEntry::FLAG_DRAINING
    );
    let mut deadlines = drain::Deadlines::default();
    deadlines.follow(&world.desired.instances);
    let end = testing::START + Duration::from_secs(60);
    assert_eq!(deadlines.after(world.now), Some(end));
    world.now += Duration::from_secs(60);
    world.converge();
    assert!(!world.dataplane.backends.contains_key(&id));
    assert!(
        moved(&world)
            .iter()
            .all(|slot| slot.current != id && slot.previous() != id)
    );
    assert_eq!(deadlines.after(world.now), None);
    assert_eq!(deadlines.between(testing::START, end).count(), 1);
    assert_eq!(deadlines.between(end, world.now).count(), 0);
}

/// The current owners' slots, by instance number.
fn shares<const N: usize>(world: &World) -> [usize; N] {
    let region = table_region(&world.dataplane.vips[&key(v4(250), 80)]).expect("a table");
    let slots = world.dataplane.region(region).expect("in range");
    std::array::from_fn(|index| {
        let id = id_of(world, index as u8 + 1);
        slots.iter().filter(|slot| slot.current == id).count()
    })
}

#[test]
fn weights_are_shares_of_new_flows() {
    let mut world = one_group(3);
    world.converge();
    let [a, b, c] = shares(&world);
    assert!(a + b + c == 509 && a.max(b).max(c) - a.min(b).min(c) <= 1);
    // The same weight for all, whatever it is, is the same table: no slot changes hands.
    (1..=3).for_each(|number| world.weigh(number, 7));
    assert_eq!(kinds(&world.converge()), ["+backend"; 3]);
    world.weigh(1, 14);
    world.weigh(2, 0);
    assert_eq!(reasons(&world.converge()), []);
    let [double, none, single] = shares(&world);
    assert_eq!((none, double + single), (0, 509));
    assert!(double.abs_diff(2 * single) <= 2, "{double} {single}");
}

#[test]
fn without_weight_flows_stay_and_none_come() {
    let mut world = one_group(2);
    world.converge();
    let id = id_of(&world, 1);
    let slots = |world: &World| {
        let region = table_region(&world.dataplane.vips[&key(v4(250), 80)]).expect("a table");
        world.dataplane.region(region).expect("in range").to_vec()
    };
    let before = slots(&world);
    world.weigh(1, 0);
    world.converge();
    for (old, new) in before.iter().zip(slots(&world)) {
        assert_ne!(new.current, id, "no new flows");
        assert_eq!(
            new.previous(),
            old.current,
            "flows that are not stored stay"
        );
    }
    let entry = world.dataplane.backends[&id];
    assert_eq!((entry.flags, entry.weight), (BackendEntry::FLAG_ALIVE, 0));
    // Nobody takes new flows, and the operator is told.
    world.weigh(2, 0);
    let plan = world.converge();
    let nobody = (Object::ServiceGroup(group_uuid(1)), "no_active_backend");
    assert_eq!(reasons(&plan), [nobody]);
    assert!(
        slots(&world)
            .iter()
            .all(|slot| slot.current == 0 && slot.previous() != 0)
    );
}

#[test]
fn all_drained_keeps_the_table_for_old_flows() {
    let mut world = one_group(7);
    world.converge();
    (1..=7).for_each(|number| world.instance(number).state = draining(60));
    let plan = world.converge();
    assert_eq!(
        reasons(&plan),
        [(Object::ServiceGroup(group_uuid(1)), "no_active_backend")]
    );
    let entry = world.dataplane.vips[&key(v4(250), 80)];
    let slots = world
        .dataplane
        .region(table_region(&entry).expect("a table"))
        .expect("in range");
    assert_eq!(slots.len(), 1021);
    assert!(
        slots
            .iter()
            .all(|slot| slot.current == 0 && slot.previous() != 0)
    );
    world.now += Duration::from_secs(61);
    world.converge();
    assert_eq!(world.dataplane.vips[&key(v4(250), 80)].table_len, 0);
}
