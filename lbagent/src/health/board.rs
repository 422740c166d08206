//! What is checked, how it is, and what is due: all that the health checks know, without a clock
//! and without the network.

mod report;
mod subjects;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lbagent_api::health::SLOW_START_STEPS;
use lbagent_api::health_report::HealthCounters;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::Carried;
use super::counters::Counters;
use super::probe::{FailureKind, Job, Outcome};
use super::random::Random;
use super::state::Tally;
use crate::desired::{Check, Instance, ServiceGroup, SharedMap};
use crate::plan::{CheckedAddress, Fitness, GatewaySettings, Health};

/// New checks begin so far apart, so that many that come together are spread; but all within their
/// interval.
const APART: Duration = Duration::from_micros(500);

/// A moment, by the clock that runs and by the one on the wall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    pub(super) clock: OffsetDateTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            at: Instant::now(),
            clock: OffsetDateTime::now_utc(),
        }
    }
}

/// All that is known.
#[derive(Debug)]
pub(super) struct Board {
    gateway: GatewaySettings,
    groups: SharedMap<Uuid, ServiceGroup>,
    instances: SharedMap<Uuid, Instance>,
    carried: Carried,
    subjects: BTreeMap<CheckedAddress, Subject>,
    checks: HashMap<u64, CheckState>,
    /// Checks by when they are due. Those of checks that are gone are skipped.
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Next steps of slow starts.
    ramps: BTreeSet<(Instant, CheckedAddress)>,
    /// The groups that have checks.
    checked: BTreeSet<Uuid>,
    /// One copy of each check that a group has.
    specs: HashMap<Uuid, Vec<Arc<Check>>>,
    health: Health,
    /// Whether a verdict has changed since the health was taken last.
    has_news: bool,
    running: usize,
    looks_at: Option<Instant>,
    counters: Counters,
    random: Random,
    last_id: u64,
}

/// An address that is checked.
#[derive(Debug)]
struct Subject {
    /// Empty while the instance drains: then it keeps its verdict.
    checks: Vec<u64>,
    fitness: Fitness,
    since: OffsetDateTime,
    /// In a slow start: the next step, if there is one.
    next_step: Option<Instant>,
}

/// One check of one address.
#[derive(Debug)]
struct CheckState {
    subject: CheckedAddress,
    port: u16,
    check: Arc<Check>,
    tally: Tally,
    since: OffsetDateTime,
    checked_at: Option<OffsetDateTime>,
    latency: Option<Duration>,
    error: Option<Box<str>>,
    began: Instant,
}

impl Board {
    /// Knows nothing but what instances counted as before the agent's start.
    pub(super) fn new(gateway: GatewaySettings, carried: Carried) -> Self {
        Self {
            random: Random(gateway.hash_seed),
            gateway,
            groups: SharedMap::new(),
            instances: SharedMap::new(),
            carried,
            subjects: BTreeMap::new(),
            checks: HashMap::new(),
            queue: BinaryHeap::new(),
            ramps: BTreeSet::new(),
            checked: BTreeSet::new(),
            specs: HashMap::new(),
            health: Health::new(),
            has_news: false,
            running: 0,
            looks_at: None,
            counters: Counters::default(),
            last_id: 0,
        }
    }

    /// The verdicts.
    pub(super) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Whether a verdict has changed since this was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Whoever asks for what is due looks again at this time.
    pub(super) const fn sleep_until(&mut self, at: Option<Instant>) {
        self.looks_at = at;
    }

    /// Whether it has to look before, because of a verdict or of a check that is due by then.
    pub(super) fn must_wake(&self) -> bool {
        let next = self.next_due(true);
        let is_early = |next: Instant| self.looks_at.is_none_or(|at| next < at);
        self.has_news || next.is_some_and(is_early)
    }

    /// Checks under way.
    pub(super) const fn running(&self) -> usize {
        self.running
    }

    /// Makes the steps of slow starts that are due.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some((due, key)) = self.ramps.first().copied().filter(|(due, _)| *due <= now) {
            self.ramps.remove(&(due, key));
            let Some(subject) = self.subjects.get_mut(&key) else {
                continue;
            };
            let Fitness::Warming { percent } = subject.fitness else {
                continue;
            };
            let reached = u32::from(percent) * SLOW_START_STEPS / 100 + 1;
            let fitness = warming(reached);
            subject.fitness = fitness;
            subject.next_step = None;
            if fitness != Fitness::Healthy {
                let next = due + step_of(self.groups.get(&key.group));
                subject.next_step = Some(next);
                self.ramps.insert((next, key));
            }
            self.tell(key, fitness);
        }
    }

    /// A check that is due, and is under way from now on.
    pub(super) fn next_job(&mut self, now: Instant) -> Option<Job> {
        loop {
            let Reverse((due, id)) = self.queue.peek().copied().filter(|next| next.0.0 <= now)?;
            self.queue.pop();
            let Some(state) = self.checks.get_mut(&id) else {
                continue;
            };
            if now - due > interval(&state.check) / 10 {
                self.counters.late += 1;
            }
            state.began = now;
            self.running += 1;
            return Some(Job {
                id,
                to: SocketAddr::new(state.subject.address, state.port),
                check: Arc::clone(&state.check),
            });
        }
    }

    /// When [`next_job`](Self::next_job) or [`advance`](Self::advance) have something to do;
    /// without room for another check, the latter.
    pub(super) fn next_due(&self, has_room: bool) -> Option<Instant> {
        let step = self.ramps.first().map(|(due, _)| *due);
        let job = self.queue.peek().map(|Reverse((due, _))| *due);
        job.filter(|_| has_room).into_iter().chain(step).min()
    }

    /// A check has ended.
    pub(super) fn finish(&mut self, id: u64, outcome: &Outcome, moment: Moment) {
        self.running -= 1;
        self.counters.count(outcome);
        let Some(state) = self.checks.get_mut(&id) else {
            // Nobody wants to know any more.
            return;
        };
        let next = state.began + self.random.about(interval(&state.check));
        // Never twice at once.
        self.queue.push(Reverse((next.max(moment.at), id)));
        state.checked_at = Some(moment.clock);
        let key = state.subject;
        match outcome {
            Ok(latency) => (state.latency, state.error) = (Some(*latency), None),
            Err(failure) => state.error = Some(failure.text.as_str().into()),
        }
        if matches!(outcome, Err(failure) if failure.kind == FailureKind::Local) {
            debug!(address = %key.address, error = state.error, "a check could not be made");
            return;
        }
        let Check { rise, fall, .. } = *state.check;
        if state.tally.observe(outcome.is_ok(), rise, fall) {
            state.since = moment.clock;
            self.judge(key, moment);
        }
    }

    /// Gathers what the checks of an address say.
    fn judge(&mut self, key: CheckedAddress, moment: Moment) {
        let Some(subject) = self.subjects.get(&key) else {
            return;
        };
        let checks = || subject.checks.iter().filter_map(|id| self.checks.get(id));
        let failed = checks().find(|check| !check.tally.is_healthy);
        let was_unhealthy = subject.fitness == Fitness::Unhealthy;
        if failed.is_some() == was_unhealthy {
            return;
        }
        let (group, instance) = self.names(&key);
        match failed {
            Some(check) => {
                let (port, kind) = (check.port, check.check.probe.kind());
                let error = check.error.as_deref().unwrap_or_default();
                warn!(group, instance, address = %key.address, port, kind, error, "unhealthy");
                self.counters.became_unhealthy += 1;
            }
            None => {
                info!(group, instance, address = %key.address, "healthy");
                self.counters.became_healthy += 1;
            }
        }
        let step = step_of(self.groups.get(&key.group));
        let fitness = match failed {
            Some(_) => Fitness::Unhealthy,
            None if step.is_zero() => Fitness::Healthy,
            None => warming(1),
        };
        self.change(key, fitness, moment);
    }

    /// Gives an address another fitness.
    fn change(&mut self, key: CheckedAddress, fitness: Fitness, moment: Moment) {
        let next = moment.at + step_of(self.groups.get(&key.group));
        let Some(subject) = self.subjects.get_mut(&key) else {
            return;
        };
        if let Some(planned) = subject.next_step.take() {
            self.ramps.remove(&(planned, key));
        }
        subject.fitness = fitness;
        subject.since = moment.clock;
        if matches!(fitness, Fitness::Warming { .. }) {
            subject.next_step = Some(next);
            self.ramps.insert((next, key));
        }
        self.tell(key, fitness);
    }

    fn tell(&mut self, key: CheckedAddress, fitness: Fitness) {
        self.health.insert(key, fitness);
        self.has_news = true;
    }

    fn names(&self, key: &CheckedAddress) -> (String, String) {
        let group = self.groups.get(&key.group).map(|group| &group.name);
        let instance = self.instances.get(&key.instance).map(|found| &found.name);
        let name = |name: Option<&String>| name.cloned().unwrap_or_default();
        (name(group), name(instance))
    }

    /// What all checks together did.
    pub(super) fn counters(&self) -> HealthCounters {
        self.counters.told(self.checks.len(), self.running)
    }
}

fn interval(check: &Check) -> Duration {
    Duration::from_millis(check.interval_ms.into())
}

/// What a recovering address counts as after so many steps.
fn warming(steps: u32) -> Fitness {
    match u8::try_from(steps * 100 / SLOW_START_STEPS) {
        Ok(percent @ 1..=99) => Fitness::Warming { percent },
        _ => Fitness::Healthy,
    }
}

/// The time of one step of a group's slow start; nothing without one.
fn step_of(group: Option<&ServiceGroup>) -> Duration {
    let whole = group.map_or(0, |group| group.policy.health.slow_start_ms);
    Duration::from_millis(whole.into()) / (SLOW_START_STEPS - 1)
}
