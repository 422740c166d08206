//! How little a change of one backend moves and stores, in figures.

use super::*;

/// 10,000 established flows and 100 backends of which one comes or goes: figures for README and
/// documents, and that they hold.
#[track_caller]
fn check_one_of_100(change: Event, when: &str) {
    const FLOWS: u16 = 10_000;
    let mut model = Model::new(false, ROOMY);
    model.each(|world| {
        world.dataplane = FakeDataplane::new(Capacity::default());
        world.dataplane.tick = 1_000;
        (1..=100).for_each(|number| world.add_instance(number, 1, v4(number)));
        drop(world.converge());
    });
    (0..FLOWS).for_each(|_| {
        model.open((Transport::Tcp, model.next_port));
        model.next_port += 1;
    });
    let gone = match change {
        Event::Remove(number) => *instance_uuid(number).as_bytes(),
        _ => [0; 16],
    };
    let survivors: Vec<_> = model
        .flows
        .iter()
        .filter(|(_, flow)| flow.owner != gone)
        .map(|(key, flow)| (*key, flow.owner))
        .collect();
    model.each(|world| {
        match change {
            Event::Add(number) => world.add_instance(number, 1, v4(number)),
            Event::Remove(number) => {
                world.desired.remove_instance(instance_uuid(number));
            }
            _ => unreachable!("the figures are of these two"),
        }
        drop(world.converge());
    });
    let mut moved = [0; 2];
    for (key, owner) in &survivors {
        for (index, moved) in moved.iter_mut().enumerate() {
            let fake = &mut model.gateways[index].dataplane;
            let got = send(fake, *key, false).map(|(got, _)| got);
            *moved += usize::from(got != Some(*owner));
        }
    }
    let buckets = model.gateways[0].dataplane.conns.values();
    let entries = buckets.flat_map(|bucket| bucket.ways);
    let stored = entries.filter(|entry| entry.backend != 0).count();
    let slots = &model.gateways[0].read().tables;
    let slots = slots.values().next().expect("one table");
    let changed = slots.iter().filter(|slot| !slot.is_settled()).count();
    println!(
        "{when}: of {} established flows {} moved on the gateway that serves, {} on a cold one; \
         {stored} stored; {changed} of {} slots changed",
        survivors.len(),
        moved[0],
        moved[1],
        slots.len(),
    );
    assert!(survivors.len() > 9_800, "{}", survivors.len());
    assert_eq!(moved, [0, 0], "{when}");
    let at_most = usize::from(FLOWS) * 5 / 100;
    assert!(
        (1..=at_most).contains(&stored),
        "{when}: {stored} stored flows"
    );
}

#[test]
fn adding_one_of_100_backends_moves_nothing_and_stores_little() {
    check_one_of_100(Event::Add(101), "101st backend added");
}

#[test]
fn removing_one_of_100_backends_moves_nothing_and_stores_little() {
    check_one_of_100(Event::Remove(50), "one of 100 removed");
}
