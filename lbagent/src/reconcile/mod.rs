//! The loop that keeps the data plane equal to the desired state.
//!
//! Level-triggered: every pass works on whole snapshots of the desired state, so a wake-up that was
//! missed or came twice does no harm. A pass looks at everything, or, after a change of the desired
//! state or of the host's network, at the groups that differ from what the last one left
//! ([`known`]). Inputs: the desired state, verdicts of health checks, terminators that come and go, changes of the host's network, the next drain deadline, a
//! timer, a retry after failures. Output: one [`ReconcileResult`] a pass.

mod apply;
mod claims;
mod fill;
mod grace;
mod handle;
mod known;
mod owner;
mod pass;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::dataplane::{Dataplane, DataplaneError};
use crate::desired::DesiredState;
use crate::plan::{Condition, GatewaySettings, Health, Object, Reason, TerminatorView};
pub use fill::{FillError, fill};
use grace::Grace;
pub use handle::{
    Observation, ObserveError, ReconcileResult, ReconcilerHandle, WaitError, WakeReason,
};
use owner::DataplaneOwner;
use pass::{Coverage, Done, Memory, Pass};
use sweep::PART_WEIGHT;

/// Passes over everything on the loop's own account, and their parts, take one part in so many of the
/// time at most: changes wait for what is at work.
const WHOLE_SHARE: u32 = 50;

/// How often the loop runs on its own.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the end of a pass over everything, in parts, to the next one; longer where it takes long.
    pub periodic: Duration,
    /// Wait before the first retry; doubled up to [`retry_max`](Self::retry_max).
    pub retry_min: Duration,
    /// Longest wait before a retry.
    pub retry_max: Duration,
    /// How often the data plane hears that the agent lives.
    pub heartbeat: Duration,
    /// How long a region that was switched away from is left alone. A packet holds on to a region
    /// for microseconds.
    pub grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            periodic: Duration::from_secs(30),
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            grace: Duration::from_millis(100),
        }
    }
}

/// The task's state.
#[derive(Debug)]
pub struct Reconciler {
    gateway: Arc<GatewaySettings>,
    desired: watch::Receiver<Arc<DesiredState>>,
    health: watch::Receiver<Health>,
    terminators: watch::Receiver<TerminatorView>,
    wakes: mpsc::Receiver<WakeReason>,
    results: watch::Sender<Arc<ReconcileResult>>,
    owner: DataplaneOwner,
    timing: Timing,
    memory: Memory,
    /// When everything, or the next part of it, is looked at.
    whole_due: Instant,
    failures: u32,
    /// The last pass did all that it planned.
    is_complete: bool,
}

impl Reconciler {
    /// Moves the data plane to a thread of its own. Nothing is read or written before
    /// [`run`](Self::run).
    pub fn new(
        dataplane: Box<dyn Dataplane>,
        gateway: GatewaySettings,
        desired: watch::Receiver<Arc<DesiredState>>,
        health: watch::Receiver<Health>,
        terminators: watch::Receiver<TerminatorView>,
        timing: Timing,
    ) -> std::io::Result<(Self, ReconcilerHandle)> {
        let owner = DataplaneOwner::start(dataplane)?;
        let (wake, wakes) = mpsc::channel(16);
        let (results, latest) = watch::channel(Arc::new(ReconcileResult {
            pass: 0,
            generation: 0,
            applied_at: OffsetDateTime::UNIX_EPOCH,
            wake_reason: WakeReason::Start,
            steps: 0,
            conditions: Vec::new(),
            error: None,
        }));
        let handle = ReconcilerHandle {
            wake,
            results: latest,
            owner: owner.clone(),
        };
        let reconciler = Self {
            gateway: Arc::new(gateway),
            desired,
            health,
            terminators,
            wakes,
            results,
            owner,
            memory: Memory {
                grace: Grace::new(timing.grace),
                ..Memory::default()
            },
            whole_due: Instant::now(),
            timing,
            failures: 0,
            is_complete: false,
        };
        Ok((reconciler, handle))
    }

    /// Runs passes until the sender of the desired state is gone.
    pub async fn run(mut self) {
        let mut reason = WakeReason::Start;
        loop {
            let Some(due) = self.pass(reason).await else {
                return;
            };
            match self.wait(due).await {
                Some(next) => reason = next,
                None => return,
            }
        }
    }

    /// One pass; returns when the next one is due and why. `None`: the data plane is gone.
    async fn pass(&mut self, reason: WakeReason) -> Option<(Instant, WakeReason)> {
        let desired = self.desired.borrow_and_update().clone();
        let (started, now) = (Instant::now(), OffsetDateTime::now_utc());
        match reason {
            // One part of many.
            WakeReason::Periodic => debug!(generation = desired.generation, "looking at a part"),
            _ => info!(reason = ?reason, generation = desired.generation, "reconciling"),
        }
        let job = Pass {
            desired: desired.clone(),
            gateway: self.gateway.clone(),
            health: self.health.borrow_and_update().clone(),
            terminator: self.terminators.borrow_and_update().takes,
            memory: std::mem::take(&mut self.memory),
            scope: reason.scope(),
            part_weight: PART_WEIGHT,
            now,
        };
        let run = move |dataplane: &mut dyn Dataplane| {
            let (memory, mut outcome) = job.run(dataplane);
            if let Ok(done) = &mut outcome {
                // They may be many. What that thread has allocated it gives back best itself.
                done.plan.steps = Vec::new();
            }
            (memory, outcome)
        };
        let (memory, outcome) = self.owner.run(run).await?;
        self.memory = memory;
        let is_complete = |done: &Done| done.report.failures.is_empty();
        self.is_complete = outcome.as_ref().is_ok_and(is_complete);
        let wants_retry = outcome
            .as_ref()
            .map_or(true, |done| done.plan.awaits_room || !is_complete(done));
        let rest = started.elapsed() * WHOLE_SHARE;
        let coverage = outcome.as_ref().map(|done| done.coverage);
        match coverage.unwrap_or(Coverage::Everything) {
            Coverage::Changes => {}
            Coverage::Part => self.whole_due = Instant::now() + rest.min(self.timing.periodic),
            Coverage::Everything => {
                self.whole_due = Instant::now() + rest.max(self.timing.periodic);
            }
        }
        self.publish(desired.generation, reason, started, outcome);
        Some(self.next_due(wants_retry, now))
    }

    fn publish(
        &self,
        generation: u64,
        reason: WakeReason,
        started: Instant,
        outcome: Result<Done, DataplaneError>,
    ) {
        let previous = self.results.borrow().clone();
        let is_part = matches!(&outcome, Ok(done) if done.coverage == Coverage::Part);
        let (steps, conditions, error) = match outcome {
            Ok(Done {
                plan,
                report,
                without_cookies,
                ..
            }) => {
                let mut conditions = plan.conditions;
                conditions.extend(report.conditions());
                conditions.extend(self.terminators.borrow().faults.iter().cloned());
                let reason = without_cookies.map(|reason| Reason::NoCookies { reason });
                conditions.extend(reason.map(|reason| Condition::new(Object::Gateway, reason)));
                conditions.sort();
                conditions.dedup();
                (report.applied, conditions, report.error())
            }
            // Nothing was looked at, so what the last pass found stands.
            Err(error) => (0, previous.conditions.clone(), Some(chain(&error))),
        };
        // A part that has found all as it was is no news.
        let is_same = steps == 0 && generation == previous.generation && error == previous.error;
        if is_part && is_same && conditions == previous.conditions {
            return;
        }
        for condition in conditions
            .iter()
            .filter(|found| previous.conditions.binary_search(found).is_err())
        {
            warn!(object = ?condition.object, "{}", condition.reason);
        }
        match &error {
            Some(error) => warn!(%error, "the pass is incomplete and is tried again"),
            None => debug!(steps, elapsed = ?started.elapsed(), "reconciled"),
        }
        self.results.send_replace(Arc::new(ReconcileResult {
            pass: previous.pass + 1,
            generation,
            applied_at: OffsetDateTime::now_utc(),
            wake_reason: reason,
            steps,
            conditions,
            error,
        }));
    }

    /// The earliest of: the next full pass, a retry, a drain deadline that the pass of a moment came
    /// before.
    fn next_due(&mut self, wants_retry: bool, planned: OffsetDateTime) -> (Instant, WakeReason) {
        let now = Instant::now();
        let mut due = (self.whole_due, WakeReason::Periodic);
        if wants_retry {
            let wait = self
                .timing
                .retry_min
                .saturating_mul(1 << self.failures.min(16));
            self.failures += 1;
            let wait = wait.min(self.timing.retry_max).max(self.timing.grace);
            due = due.min_by_time((now + wait, WakeReason::Retry));
        } else {
            self.failures = 0;
        }
        if let Some(deadline) = self.memory.deadlines.after(planned) {
            // None for one that has come while the pass ran.
            let wait = Duration::try_from(deadline - OffsetDateTime::now_utc()).unwrap_or_default();
            // Far deadlines are left to a later pass: an `Instant` may not reach them.
            let wait = wait.min(self.timing.periodic);
            due = due.min_by_time((now + wait, WakeReason::DrainDeadline));
        }
        due
    }

    /// Tells the data plane that the agent lives, unless the last pass left something undone: then a
    /// backend's entry may name a way that is none any more. `None`: the data plane is gone.
    async fn beat(&mut self) -> Option<()> {
        if !self.is_complete {
            return Some(());
        }
        let has_cookies = self.memory.has_cookies;
        let beat = move |dataplane: &mut dyn Dataplane| {
            renew(dataplane);
            drop(offer_cookies(dataplane, has_cookies));
        };
        self.owner.run(beat).await
    }

    /// Sleeps until something happens. `None`: the agent is stopping.
    async fn wait(&mut self, due: (Instant, WakeReason)) -> Option<WakeReason> {
        let reason = loop {
            // Every branch is cancel-safe: `changed` and `recv` lose nothing when another one wins,
            // because the pass takes a whole snapshot.
            break tokio::select! {
                changed = self.desired.changed() => {
                    changed.ok().map(|()| WakeReason::DesiredChanged)?
                }
                // Whoever checks may end first: then nothing more is learnt.
                Ok(()) = self.health.changed() => WakeReason::HealthChanged,
                Ok(()) = self.terminators.changed() => WakeReason::TerminatorChanged,
                Some(reason) = self.wakes.recv() => reason,
                () = tokio::time::sleep_until(due.0) => due.1,
                () = tokio::time::sleep(self.timing.heartbeat) => {
                    self.beat().await?;
                    continue;
                }
            };
        };
        // What else is queued is served by the same pass: the one that looks at most.
        let queued = std::iter::from_fn(|| self.wakes.try_recv().ok());
        std::iter::once(reason)
            .chain(queued)
            .max_by_key(|reason| reason.scope())
    }
}

/// Says that the agent lives.
fn renew(dataplane: &mut dyn Dataplane) {
    if let Err(error) = dataplane.renew() {
        warn!(
            error = chain(&error),
            "each packet's way will be looked up in the routing table"
        );
    }
}

/// Has SYNs answered with cookies where some port wants it; tells why they are not.
fn offer_cookies(dataplane: &mut dyn Dataplane, wanted: bool) -> Option<String> {
    let error = dataplane.offer_cookies(wanted).err()?;
    Some(format!(
        "{}; let the agent set net.ipv4.tcp_syncookies, or set it to 2 yourself",
        chain(&error)
    ))
}

trait MinByTime {
    fn min_by_time(self, other: Self) -> Self;
}

impl MinByTime for (Instant, WakeReason) {
    fn min_by_time(self, other: Self) -> Self {
        if other.0 < self.0 { other } else { self }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
