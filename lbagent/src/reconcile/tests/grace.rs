//! Room that is given back rests before it is used again.

use super::*;

#[tokio::test]
async fn room_that_a_retired_table_holds_is_used_after_the_grace() {
    let mut world = world();
    let capacity = Capacity {
        slots: 509 * 2,
        ..Capacity::default()
    };
    let paths = world.dataplane.paths.clone();
    world.dataplane = FakeDataplane::new(capacity);
    world.dataplane.paths = paths;
    let mut running = start(world, TIMING);
    for number in 2..=5 {
        running.world.add_instance(number, 1, v4(number));
        let generation = running.publish();
        running
            .handle
            .wait_applied(generation, SOON)
            .await
            .expect("a pass");
    }
    running
        .wait_for(|_| running.dataplane.with(|fake| fake.backends.len() == 5))
        .await;
}

#[test]
fn regions_rest_for_the_grace_period() {
    let start = std::time::Instant::now();
    let mut world = world();
    world.converge();
    let before = world.read();
    let mut grace = Grace::new(Duration::from_millis(100));
    let mut retired = |actual: &ActualState, after| {
        let after = Duration::from_millis(after);
        grace.retired(&InUse::of(actual), start + after)
    };
    assert!(retired(&before, 0).is_empty());
    world.add_instance(2, 1, v4(2));
    let plan = world.converge();
    grace.switched(&before, &plan, start);
    let after = world.read();
    let mut retired = |actual: &ActualState, after| {
        let after = Duration::from_millis(after);
        grace.retired(&InUse::of(actual), start + after)
    };
    // What is named still needs no rest.
    assert!(retired(&before, 99).is_empty());
    assert_eq!(retired(&after, 99), plan::named_regions(&before));
    assert!(retired(&after, 100).is_empty());
}
