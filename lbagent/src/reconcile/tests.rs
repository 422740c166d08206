//! The loop against the data plane in memory: what wakes it, what it survives, what it tells.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, OnceLock};

use lbagent_api::health::{Check, Probe};
use lbagent_api::service_group::Handler;

use super::*;
use crate::dataplane::fake::FakeDataplane;
use crate::dataplane::{
    ActualState, Capacity, CounterSnapshot, FlowMaps, Glimpse, HostState, Region, Sampling, Step,
    StoredFlows, Walk,
};
use crate::desired::InstanceState;
use crate::plan::testing::{World, v4};
use crate::plan::{self, Condition, Fitness, Health, InUse, Object, Reason, TerminatorView};

/// The data plane in memory, looked at while the reconciler has it.
#[derive(Clone)]
struct Shared(Arc<Mutex<FakeDataplane>>);

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut FakeDataplane) -> T) -> T {
        look(&mut self.0.lock().expect("no test panics while it looks"))
    }
}

impl Dataplane for Shared {
    fn read(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<ActualState, DataplaneError> {
        self.with(|fake| fake.read(addresses))
    }

    fn surroundings(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<HostState, DataplaneError> {
        self.with(|fake| fake.surroundings(addresses))
    }

    fn glimpse(
        &mut self,
        regions: &BTreeSet<Region>,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<Glimpse, DataplaneError> {
        self.with(|fake| fake.glimpse(regions, addresses))
    }

    fn begin_round(&mut self) -> Result<BTreeSet<IpAddr>, DataplaneError> {
        self.with(|fake| fake.begin_round())
    }

    fn end_round(&mut self) -> Vec<IpAddr> {
        self.with(|fake| fake.end_round())
    }

    fn walk(&mut self, from: Walk) -> Result<(ActualState, Option<Walk>), DataplaneError> {
        self.with(|fake| fake.walk(from))
    }

    fn holds(&mut self, entries: &ActualState) -> Result<bool, DataplaneError> {
        self.with(|fake| fake.holds(entries))
    }

    fn stored_flows(
        &mut self,
        vips: &[u32],
        idle_ticks: u32,
    ) -> Result<StoredFlows, DataplaneError> {
        self.with(|fake| fake.stored_flows(vips, idle_ticks))
    }

    fn apply(&mut self, step: &Step) -> Result<(), DataplaneError> {
        self.with(|fake| fake.apply(step))
    }

    fn set_terminator(
        &mut self,
        index: u32,
        socket: Option<&OwnedFd>,
    ) -> Result<(), DataplaneError> {
        self.with(|fake| fake.set_terminator(index, socket))
    }

    fn offer_cookies(&mut self, wanted: bool) -> Result<(), DataplaneError> {
        self.with(|fake| fake.offer_cookies(wanted))
    }

    fn look_up(&self, look_up: &mut dyn FnMut(&dyn FlowMaps)) {
        self.with(|fake| fake.look_up(look_up));
    }

    fn set_sampling(&mut self, sampling: Sampling) -> Result<(), DataplaneError> {
        self.with(|fake| fake.set_sampling(sampling))
    }

    fn counters(
        &mut self,
        vips: &[u32],
        backends: &[u32],
    ) -> Result<CounterSnapshot, DataplaneError> {
        self.with(|fake| fake.counters(vips, backends))
    }
}

mod cookies;
mod failures;
mod grace;

struct Running {
    world: World,
    dataplane: Shared,
    desired: watch::Sender<Arc<DesiredState>>,
    health: watch::Sender<Health>,
    terminators: watch::Sender<TerminatorView>,
    handle: ReconcilerHandle,
    task: tokio::task::JoinHandle<()>,
}

const SOON: Duration = Duration::from_secs(30);

/// No pass without a cause, quick retries.
const TIMING: Timing = Timing {
    heartbeat: Duration::from_secs(10),
    periodic: Duration::from_secs(3600),
    retry_min: Duration::from_millis(5),
    retry_max: Duration::from_millis(20),
    grace: Duration::from_millis(5),
};

fn start(world: World, timing: Timing) -> Running {
    let dataplane = Shared(Arc::new(Mutex::new(world.dataplane.clone())));
    let (desired, watched) = watch::channel(Arc::new(world.desired.clone()));
    let gateway = world.gateway.clone();
    let (health, judged) = watch::channel(world.health.clone());
    let (terminator, terminators) = watch::channel(TerminatorView::default());
    let made = Reconciler::new(
        Box::new(dataplane.clone()),
        gateway,
        watched,
        judged,
        terminators,
        timing,
    );
    let (reconciler, handle) = made.expect("a thread");
    let task = tokio::spawn(reconciler.run());
    Running {
        world,
        dataplane,
        desired,
        health,
        terminators: terminator,
        handle,
        task,
    }
}

/// A group on port 80 with one instance.
fn world() -> World {
    let mut world = World::new(&[v4(250)]);
    world.add_group(1, &[(80, 80)]);
    world.add_instance(1, 1, v4(1));
    world
}

impl Running {
    /// Publishes what the world now desires, as the next generation.
    fn publish(&mut self) -> u64 {
        self.world.desired.generation += 1;
        self.desired
            .send_replace(Arc::new(self.world.desired.clone()));
        self.world.desired.generation
    }

    async fn wait_for(&self, what: impl Fn(&ReconcileResult) -> bool) -> Arc<ReconcileResult> {
        let mut results = self.handle.subscribe();
        let found = tokio::time::timeout(SOON, results.wait_for(|result| what(result))).await;
        found.expect("in time").expect("running").clone()
    }
}

fn fails_on_tables(step: &Step) -> bool {
    matches!(step, Step::PutTable(..))
}

#[tokio::test]
async fn the_first_pass_makes_what_is_asked_for() {
    let running = start(world(), TIMING);
    let result = running.wait_for(|result| result.pass == 1).await;
    assert_eq!(
        (result.wake_reason, &result.error),
        (WakeReason::Start, &None)
    );
    assert_eq!(running.dataplane.with(|fake| fake.vips.len()), 2);
    assert_eq!(result.steps, running.dataplane.with(|fake| fake.steps));
}

#[tokio::test]
async fn a_new_generation_is_applied_and_waited_for() {
    let mut running = start(world(), TIMING);
    running.world.add_group(2, &[(81, 81)]);
    let generation = running.publish();
    let result = running
        .handle
        .wait_applied(generation, SOON)
        .await
        .expect("applied");
    assert_eq!(result.generation, 1);
    assert_eq!(running.dataplane.with(|fake| fake.vips.len()), 3);
    let latest = running.handle.latest();
    assert_eq!(
        latest.conditions.len(),
        1,
        "the new group has no instance: {latest:?}"
    );
}

#[tokio::test]
async fn a_verdict_wakes_the_loop() {
    let mut running = start(world(), TIMING);
    running.wait_for(|result| result.pass == 1).await;
    let tcp = Probe::Tcp {
        send: None,
        expect: None,
    };
    for group in running.world.desired.service_groups.values_mut() {
        group.policy.health.check = Some(Check::new(tcp.clone()));
    }
    let generation = running.publish();
    let applied = running.handle.wait_applied(generation, SOON).await;
    applied.expect("applied");
    running.world.judge(1, Some(Fitness::Unhealthy));
    running.health.send_replace(running.world.health.clone());
    let entries = |fake: &mut FakeDataplane| fake.backends.values().any(|b| b.is_unhealthy());
    running
        .wait_for(|result| result.wake_reason == WakeReason::HealthChanged)
        .await;
    assert!(running.dataplane.with(entries));
}

#[tokio::test]
async fn a_terminator_that_comes_ends_a_condition_and_its_faults_are_told() {
    let mut world = world();
    for group in world.desired.service_groups.values_mut() {
        group.services[0].handlers = vec![Handler::Tls];
    }
    let running = start(world, TIMING);
    let has = |result: &ReconcileResult, code| {
        let mut conditions = result.conditions.iter();
        conditions.any(|condition| condition.reason.code() == code)
    };
    running
        .wait_for(|result| has(result, "no_terminator"))
        .await;
    let fault = Condition::new(
        Object::Gateway,
        Reason::RefusedByTerminator {
            reason: "no".to_owned(),
        },
    );
    running.terminators.send_replace(TerminatorView {
        takes: plan::Terminator { v4: true, v6: true },
        faults: Arc::new(vec![fault]),
    });
    let result = running
        .wait_for(|result| result.wake_reason == WakeReason::TerminatorChanged)
        .await;
    assert!(!has(&result, "no_terminator"), "{result:?}");
    assert!(has(&result, "refused_by_terminator"), "{result:?}");
}

#[tokio::test]
async fn waiting_ends_with_the_time_and_with_the_agent() {
    let running = start(world(), TIMING);
    let early = running
        .handle
        .wait_applied(99, Duration::from_millis(1))
        .await;
    assert!(
        matches!(early, Err(WaitError::Timeout { generation: 99, .. })),
        "{early:?}"
    );
    running.wait_for(|result| result.pass == 1).await;
    drop(running.desired);
    running.task.await.expect("ends by itself");
    let late = running.handle.wait_applied(99, SOON).await;
    assert!(matches!(late, Err(WaitError::Stopped)), "{late:?}");
}

#[tokio::test]
async fn a_drain_deadline_wakes_the_loop() {
    let mut world = world();
    let now = OffsetDateTime::now_utc();
    // Not before the first pass, however busy the machine is.
    let deadline = now + Duration::from_secs(4);
    world.instance(1).state = InstanceState::draining(now, deadline);
    let running = start(world, TIMING);
    running
        .wait_for(|result| result.wake_reason == WakeReason::DrainDeadline)
        .await;
    running
        .wait_for(|_| running.dataplane.with(|fake| fake.backends.is_empty()))
        .await;
}

#[tokio::test]
async fn a_drain_deadline_within_a_pass_wakes_the_loop() {
    static DEADLINE: OnceLock<OffsetDateTime> = OnceLock::new();
    let mut world = world();
    let now = OffsetDateTime::now_utc();
    // Not before the first pass, however busy the machine is.
    let deadline = *DEADLINE.get_or_init(|| now + Duration::from_secs(4));
    world.instance(1).state = InstanceState::draining(now, deadline);
    // It is planned before the deadline, and applied after it.
    world.dataplane.fail(Some(|_| {
        while let Ok(left) = Duration::try_from(*DEADLINE.wait() - OffsetDateTime::now_utc()) {
            std::thread::park_timeout(left);
        }
        false
    }));
    let running = start(world, TIMING);
    running
        .wait_for(|result| result.wake_reason == WakeReason::DrainDeadline)
        .await;
    running
        .wait_for(|_| running.dataplane.with(|fake| fake.backends.is_empty()))
        .await;
}

#[tokio::test]
async fn observing_goes_through_the_same_thread() {
    let running = start(world(), TIMING);
    running.wait_for(|result| result.pass == 1).await;
    let observation = running
        .handle
        .observe([v4(1)].into())
        .await
        .expect("readable");
    assert_eq!(
        (
            observation.actual.vips.len(),
            observation.actual.paths.len()
        ),
        (2, 1)
    );
    assert_eq!(
        observation.counters.backends.keys().collect::<Vec<_>>(),
        [&1]
    );
    let counters = running
        .handle
        .counters(vec![1], vec![])
        .await
        .expect("readable");
    assert_eq!(counters.vips.len(), 1);
    running.dataplane.with(|fake| fake.failing_reads = 1);
    assert!(matches!(
        running.handle.observe(BTreeSet::new()).await,
        Err(ObserveError::Dataplane(_))
    ));
}
