//! What is checked, when, and what follows from it; with a network that says what it is told.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lbagent_api::health::{Check, InitialHealth, Probe, ServiceCheck};
use tokio::time::{Instant, timeout};

use super::probe::{Failure, FailureKind, Job, Outcome, Prober};
use super::*;
use crate::desired::{InstanceState, Transport};
use crate::plan::testing::{World, draining, group_uuid, instance_uuid, v4, v6};

/// Lets time pass, which is no waiting: the clock of these tests moves when nothing else does.
async fn pass(time: Duration) {
    let _ = timeout(time, std::future::pending::<()>()).await;
}

/// Answers of instances, by address; all others succeed.
#[derive(Clone, Debug, Default)]
struct Answers {
    failing: Arc<Mutex<BTreeMap<IpAddr, FailureKind>>>,
    asked: Arc<Mutex<Vec<(Instant, std::net::SocketAddr)>>>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    takes: Duration,
}

impl Answers {
    fn fail(&self, host: u8, kind: FailureKind) {
        self.failing.lock().unwrap().insert(v4(host), kind);
    }

    fn recover(&self, host: u8) {
        self.failing.lock().unwrap().remove(&v4(host));
    }

    fn asked(&self) -> Vec<(Instant, std::net::SocketAddr)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Prober for Answers {
    fn probe(&self, job: &Job) -> impl Future<Output = Outcome> + Send {
        let (answers, to) = (self.clone(), job.to);
        async move {
            answers.asked.lock().unwrap().push((Instant::now(), to));
            let running = answers.running.fetch_add(1, Ordering::Relaxed) + 1;
            answers.most.fetch_max(running, Ordering::Relaxed);
            pass(answers.takes).await;
            answers.running.fetch_sub(1, Ordering::Relaxed);
            match answers.failing.lock().unwrap().get(&to.ip()) {
                Some(kind) => Err(Failure::new(*kind, "as told")),
                None => Ok(Duration::from_micros(7)),
            }
        }
    }
}

/// Checks that run, and what they say.
struct Running {
    world: World,
    answers: Answers,
    desired: watch::Sender<Arc<DesiredState>>,
    handle: HealthHandle,
    verdicts: watch::Receiver<Health>,
    _stop: watch::Sender<bool>,
}

fn tcp() -> Check {
    Check::new(Probe::Tcp {
        send: None,
        expect: None,
    })
}

/// A group on port 80 with so many instances, checked every 5 s.
fn world(instances: u8) -> World {
    let mut world = World::new(&[v4(250)]);
    world.add_group(1, &[(80, 8080)]).policy.health.check = Some(tcp());
    (1..=instances).for_each(|number| world.add_instance(number, 1, v4(number)));
    world
}

fn run(world: World, carried: Carried, takes: Duration, room: usize) -> Running {
    let (desired, watched) = watch::channel(Arc::new(world.desired.clone()));
    let mut board = Board::new(world.gateway.clone(), carried);
    board.follow(&world.desired, Moment::now());
    board.take_news();
    let (published, verdicts) = watch::channel(board.health());
    let handle = HealthHandle {
        board: Arc::new(Mutex::new(board)),
    };
    let answers = Answers {
        takes,
        ..Answers::default()
    };
    let runner = run::Runner::new(handle.clone(), answers.clone(), published, room);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(runner.run(watched, stopped));
    Running {
        world,
        answers,
        desired,
        handle,
        verdicts,
        _stop: stop,
    }
}

fn start(world: World) -> Running {
    run(world, Carried::new(), Duration::from_millis(1), 100)
}

fn key(number: u8) -> CheckedAddress {
    CheckedAddress {
        instance: instance_uuid(number),
        group: group_uuid(1),
        address: v4(number),
    }
}

impl Running {
    fn publish(&self) {
        self.desired
            .send_replace(Arc::new(self.world.desired.clone()));
    }

    fn fitness(&self, number: u8) -> Option<Fitness> {
        self.verdicts.borrow().get(&key(number)).copied()
    }
}

const INTERVAL: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn checks_are_spread_and_keep_their_interval() {
    let running = start(world(100));
    pass(INTERVAL * 10).await;
    let mut times: BTreeMap<IpAddr, Vec<Instant>> = BTreeMap::new();
    for (at, to) in running.answers.asked() {
        assert_eq!(to.port(), 8080);
        times.entry(to.ip()).or_default().push(at);
    }
    assert_eq!(times.len(), 100);
    for times in times.values() {
        assert!((9..=12).contains(&times.len()), "{}", times.len());
        for pair in times.windows(2) {
            let apart = pair[1] - pair[0];
            assert!(apart >= INTERVAL * 9 / 10 && apart <= INTERVAL * 11 / 10 + INTERVAL / 50);
        }
    }
    assert!(running.answers.most.load(Ordering::Relaxed) < 40);
    let counters = running.handle.counters();
    assert_eq!((counters.configured, counters.late), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn verdicts_need_results_in_a_row() {
    let mut running = start(world(2));
    pass(INTERVAL).await;
    running.verdicts.mark_unchanged();
    running.answers.fail(1, FailureKind::Refused);
    // Two failures of three.
    while running.handle.report(|_| true)[0].instances[0].checks[0].failures < 2 {
        pass(Duration::from_millis(100)).await;
    }
    running.answers.recover(1);
    pass(INTERVAL * 3).await;
    assert!(
        !running.verdicts.has_changed().unwrap(),
        "a flap says nothing"
    );
    running.answers.fail(1, FailureKind::Refused);
    pass(INTERVAL * 4).await;
    assert_eq!(running.fitness(1), Some(Fitness::Unhealthy));
    assert_eq!(running.fitness(2), Some(Fitness::Healthy));
    running.answers.recover(1);
    pass(INTERVAL * 3).await;
    assert_eq!(running.fitness(1), Some(Fitness::Healthy));
    let counters = running.handle.counters();
    assert_eq!((counters.became_unhealthy, counters.became_healthy), (1, 1));
    assert!(counters.failures["refused"] >= 5);
}

#[tokio::test(start_paused = true)]
async fn the_gateways_own_trouble_counts_against_nobody() {
    let running = start(world(1));
    running.answers.fail(1, FailureKind::Local);
    pass(INTERVAL * 10).await;
    assert_eq!(running.fitness(1), Some(Fitness::Healthy));
    assert!(running.handle.counters().failures["local"] >= 8);
}

#[tokio::test(start_paused = true)]
async fn many_that_fail_at_once_are_told_in_few_publications() {
    let mut world = world(200);
    let group = world.desired.service_groups.get_mut(&group_uuid(1));
    let check = group.unwrap().policy.health.check.as_mut().unwrap();
    (check.interval_ms, check.timeout_ms, check.fall) = (1_000, 1_000, 1);
    let mut running = start(world);
    pass(INTERVAL).await;
    (1..=200).for_each(|host| running.answers.fail(host, FailureKind::Timeout));
    running.verdicts.mark_unchanged();
    let mut publications = 0;
    let begun = Instant::now();
    while begun.elapsed() < INTERVAL {
        tokio::select! {
            changed = running.verdicts.changed() => {
                changed.unwrap();
                publications += 1;
            }
            () = pass(Duration::from_secs(2)) => break,
        }
    }
    assert!((1..=12).contains(&publications), "{publications}");
    assert!((1..=200).all(|number| running.fitness(number) == Some(Fitness::Unhealthy)));
}

#[tokio::test(start_paused = true)]
async fn a_recovered_instance_warms_up_in_steps() {
    let mut world = world(2);
    let group = world.desired.service_groups.get_mut(&group_uuid(1));
    group.unwrap().policy.health.slow_start_ms = 40_000;
    let carried = Carried::from([(key(1), Fitness::Unhealthy)]);
    let mut running = run(world, carried, Duration::from_millis(1), 10);
    assert_eq!(running.fitness(1), Some(Fitness::Unhealthy), "carried");
    let mut seen = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if timeout(INTERVAL, running.verdicts.changed()).await.is_ok() {
            seen.push((running.fitness(1).unwrap(), begun.elapsed()));
        }
    }
    let fitness: Vec<_> = seen.iter().map(|(fitness, _)| *fitness).collect();
    let warming = |percent| Fitness::Warming { percent };
    let want = [
        warming(20),
        warming(40),
        warming(60),
        warming(80),
        Fitness::Healthy,
    ];
    assert_eq!(fitness, want);
    let (first, last) = (seen[0].1, seen[4].1);
    let took = (last - first).as_secs_f64();
    assert!((39.0..41.0).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn what_hangs_takes_room_and_the_rest_waits_its_turn() {
    let running = run(world(50), Carried::new(), Duration::from_millis(1900), 10);
    pass(INTERVAL * 6).await;
    assert_eq!(running.answers.most.load(Ordering::Relaxed), 10);
    let counters = running.handle.counters();
    assert!(counters.late > 0, "{counters:?}");
    // Ten at once, 1.9 s each, over 30 s.
    assert!((140..=160).contains(&counters.checks), "{counters:?}");
}

#[tokio::test(start_paused = true)]
async fn the_desired_state_says_what_is_checked() {
    let mut running = start(world(3));
    running.answers.fail(2, FailureKind::Refused);
    pass(INTERVAL * 5).await;
    assert_eq!(running.fitness(2), Some(Fitness::Unhealthy));
    // A draining instance keeps its verdict and is not asked any more; a stopped one has none.
    running.world.instance(2).state = draining(3600);
    running.world.instance(3).state = InstanceState::Stopped;
    running.publish();
    pass(INTERVAL).await;
    running.answers.asked();
    pass(INTERVAL * 2).await;
    let asked = running.answers.asked();
    assert!(!asked.is_empty() && asked.iter().all(|(_, to)| to.ip() == v4(1)));
    assert_eq!(running.fitness(2), Some(Fitness::Unhealthy));
    assert_eq!(running.fitness(3), None);
    // A new one begins as the policy says; those that are known go on.
    let group = running.world.desired.service_groups.get_mut(&group_uuid(1));
    group.unwrap().policy.health.initial = InitialHealth::Unhealthy;
    running.world.add_instance(4, 1, v4(4));
    running.publish();
    pass(Duration::from_millis(200)).await;
    assert_eq!(running.fitness(4), Some(Fitness::Unhealthy));
    assert_eq!(running.fitness(1), Some(Fitness::Healthy));
    pass(INTERVAL * 2).await;
    assert_eq!(running.fitness(4), Some(Fitness::Healthy));
    // Without a check nothing is said.
    let group = running.world.desired.service_groups.get_mut(&group_uuid(1));
    group.unwrap().policy.health.check = None;
    running.publish();
    pass(INTERVAL).await;
    assert!(running.verdicts.borrow().is_empty());
    assert_eq!(running.handle.counters().configured, 0);
}

#[tokio::test(start_paused = true)]
async fn each_service_has_its_check_on_every_address_that_it_goes_to() {
    let mut world = World::new(&[v4(250), v6(250)]);
    let group = world.add_group(1, &[(80, 8080), (81, 8080), (443, 8443), (53, 5353)]);
    group.services[3].protocol = Transport::Udp;
    group.services[2].ip = Some(v4(250));
    group.policy.health.check = Some(tcp());
    group.policy.health.services = vec![ServiceCheck {
        port: 443,
        protocol: lbagent_api::service_group::Protocol::Tcp,
        check: Some(Check {
            port: Some(9000),
            ..tcp()
        }),
    }];
    world.add_instance(1, 1, v4(1));
    world.instance(1).addresses.push(v6(1).into());
    let running = start(world);
    pass(INTERVAL).await;
    let mut asked: Vec<_> = running
        .answers
        .asked()
        .into_iter()
        .map(|(_, to)| to)
        .collect();
    asked.sort();
    asked.dedup();
    let want = [(v4(1), 8080), (v4(1), 9000), (v6(1), 8080)];
    assert_eq!(asked, want.map(std::net::SocketAddr::from));
}
