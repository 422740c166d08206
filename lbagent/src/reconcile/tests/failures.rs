//! Steps that fail, and maps that cannot be read or were changed by others.

use super::*;

#[tokio::test]
async fn a_failed_step_is_told_and_tried_again() {
    let running = start(world(), TIMING);
    running.wait_for(|result| result.pass == 1).await;
    running.dataplane.with(|fake| {
        fake.vips.clear();
        fake.fail(Some(fails_on_tables));
    });
    running.handle.notify(WakeReason::Requested);
    let failed = running.wait_for(|result| result.error.is_some()).await;
    let group = Object::ServiceGroup(crate::plan::testing::group_uuid(1));
    let [
        Condition {
            object,
            reason: Reason::StepFailed { error, .. },
        },
    ] = &failed.conditions[..]
    else {
        panic!("{failed:?}");
    };
    assert_eq!(*object, group);
    assert!(
        error.contains("asked to fail"),
        "the cause is told: {error}"
    );
    // The VIP's address does not rely on the table; its port does.
    assert_eq!(running.dataplane.with(|fake| fake.vips.len()), 1);
    running.dataplane.with(|fake| fake.fail(None));
    let healed = running.wait_for(|result| result.pass > failed.pass && result.error.is_none());
    assert_eq!(healed.await.wake_reason, WakeReason::Retry);
    assert_eq!(running.dataplane.with(|fake| fake.vips.len()), 2);
}

#[tokio::test]
async fn a_data_plane_that_cannot_be_read_is_tried_again() {
    let mut world = world();
    world.dataplane.failing_reads = 2;
    let running = start(world, TIMING);
    let result = running
        .wait_for(|result| result.error.is_none() && result.pass > 0)
        .await;
    assert_eq!((result.pass, result.wake_reason), (3, WakeReason::Retry));
}

#[tokio::test]
async fn a_switch_that_fails_keeps_the_backends_of_the_old_table() {
    let mut running = start(world(), TIMING);
    running.wait_for(|result| result.pass == 1).await;
    running
        .dataplane
        .with(|fake| fake.fail(Some(|step| matches!(step, Step::PutVip(..)))));
    running.world.add_instance(2, 1, v4(2));
    running.world.instance(1).state = InstanceState::Stopped;
    running
        .dataplane
        .with(|fake| fake.paths = running.world.dataplane.paths.clone());
    let generation = running.publish();
    let result = running
        .handle
        .wait_applied(generation, SOON)
        .await
        .expect("a pass");
    assert!(
        result
            .error
            .as_ref()
            .is_some_and(|error| error.starts_with("switch VIP 10.0.0.250"))
    );
    assert_eq!(running.dataplane.with(|fake| fake.backends.len()), 2);
    running.dataplane.with(|fake| fake.fail(None));
    running
        .wait_for(|result| result.generation == generation && result.error.is_none())
        .await;
    assert_eq!(running.dataplane.with(|fake| fake.backends.len()), 1);
}

#[tokio::test]
async fn what_is_changed_behind_the_agents_back_is_put_right() {
    let running = start(
        world(),
        Timing {
            periodic: Duration::from_millis(20),
            ..TIMING
        },
    );
    running.wait_for(|result| result.pass == 1).await;
    running.dataplane.with(|fake| fake.vips.clear());
    running
        .wait_for(|_| running.dataplane.with(|fake| fake.vips.len() == 2))
        .await;
}
