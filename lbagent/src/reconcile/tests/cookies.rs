//! SYNs are answered with cookies while some port may use them, and the host lets them be good.

use super::*;

/// As [`world`], with port 80 a redirect.
fn redirecting() -> World {
    let mut world = world();
    for group in world.desired.service_groups.values_mut() {
        group.services[0].handlers = vec![Handler::Http, Handler::Redirect];
    }
    world
}

fn comes(running: &Running, v4: bool) {
    running.terminators.send_replace(TerminatorView {
        takes: plan::Terminator { v4, v6: false },
        faults: Arc::default(),
    });
}

#[tokio::test]
async fn cookies_come_with_the_first_port_and_go_with_the_last() {
    let mut running = start(redirecting(), TIMING);
    running.wait_for(|result| result.pass == 1).await;
    // Nobody would take the connection.
    assert!(!running.dataplane.with(|fake| fake.cookies));
    comes(&running, true);
    running.wait_for(|result| result.pass == 2).await;
    assert!(running.dataplane.with(|fake| fake.cookies));
    for group in running.world.desired.service_groups.values_mut() {
        group.services[0].handlers.clear();
    }
    let generation = running.publish();
    running
        .wait_for(|result| result.generation == generation)
        .await;
    assert!(!running.dataplane.with(|fake| fake.cookies));
}

#[tokio::test]
async fn a_host_that_refuses_is_told_until_it_does_no_longer() {
    let timing = Timing {
        periodic: Duration::from_millis(20),
        ..TIMING
    };
    let mut world = redirecting();
    world.dataplane.refuses_cookies = true;
    let running = start(world, timing);
    comes(&running, true);
    let is_told = |result: &ReconcileResult| {
        let mut conditions = result.conditions.iter();
        conditions.any(|condition| condition.reason.code() == "no_syn_cookies")
    };
    running.wait_for(is_told).await;
    running.dataplane.with(|fake| fake.refuses_cookies = false);
    running.wait_for(|result| !is_told(result)).await;
    assert!(running.dataplane.with(|fake| fake.cookies));
}

#[tokio::test]
async fn the_lease_is_renewed_between_passes() {
    let timing = Timing {
        heartbeat: Duration::from_millis(10),
        ..TIMING
    };
    let running = start(redirecting(), timing);
    running.wait_for(|result| result.pass == 1).await;
    comes(&running, true);
    running.wait_for(|result| result.pass == 2).await;
    running.dataplane.with(|fake| fake.cookies = false);
    let renewed = async {
        while !running.dataplane.with(|fake| fake.cookies) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, renewed).await.expect("in time");
}
