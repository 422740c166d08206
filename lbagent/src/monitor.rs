//! Tells whoever watches what becomes of packets.
//!
//! One task reads the data plane's events and hands each watcher those that it asked for. It has
//! packets sampled while somebody watches: the finest sample that is asked for, of the outcomes
//! that any of them wants. Watchers of coarser samples get a part of it. When the last one leaves,
//! sampling ends; when the agent is killed, it ends by itself ([`Sampling::LEASE`]).

mod names;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use lbagent_api::monitor::{self, MonitorLine, MonitorQuery};
use lbagent_common::{FlowEvent, Outcome, Verdict};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::dataplane::{EventReader, Sampling};
use crate::desired::DesiredState;
use crate::reconcile::ReconcilerHandle;
use names::Names;

/// Most events that a watcher is told in a second. The others are counted.
const MOST_PER_SECOND: u32 = 10_000;
/// Lines that wait for a slow watcher.
const QUEUE: usize = 4_096;
/// How often events are taken while somebody watches. The ring has room for 3,200 of them.
const POLL: Duration = Duration::from_millis(10);
/// How often watchers that left are looked for.
const TICK: Duration = Duration::from_millis(250);
/// Events taken before others get a turn.
const BATCH: usize = 512;
/// Silence after which a watcher is told that there is nothing to tell, which finds out whether it
/// is still there.
const IDLE: Duration = Duration::from_secs(2);
/// How often the data plane is told to go on.
const RENEWAL: Duration = Duration::from_secs(3);

/// Why a watcher is refused.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no such outcome.
    #[error(
        "No outcome '{0}': expected forward, pass, answer, drop, or one that `lbctl counters --all` \
         lists"
    )]
    Outcome(String),
    /// There is no such service group.
    #[error("No service group '{0}'")]
    Group(String),
    /// The agent is stopping, or has no events to tell.
    #[error("the agent does not tell events now")]
    Stopped,
}

/// Somebody who watches.
struct Watcher {
    sampling: Sampling,
    group: Option<Uuid>,
    lines: mpsc::Sender<MonitorLine>,
    /// Events told in this second, and when it began.
    told: u32,
    second: Instant,
    /// Events not told since the last line.
    lost: u64,
    last_line: Instant,
}

/// Where watchers come in.
#[derive(Clone, Debug)]
pub struct MonitorHandle {
    watchers: mpsc::Sender<Watcher>,
}

impl MonitorHandle {
    /// A monitor that tells nothing, and the task's end of it.
    fn channel() -> (Self, mpsc::Receiver<Watcher>) {
        let (watchers, arriving) = mpsc::channel(16);
        (Self { watchers }, arriving)
    }

    /// A monitor without a task: every watcher is refused.
    pub fn closed() -> Self {
        Self::channel().0
    }

    /// Begins to watch. Dropping the receiver ends it.
    pub async fn watch(
        &self,
        query: &MonitorQuery,
        desired: &DesiredState,
    ) -> Result<mpsc::Receiver<MonitorLine>, WatchError> {
        let sampling = Sampling {
            shift: query.sample.next_power_of_two().trailing_zeros() + 1,
            outcomes: outcomes(&query.outcomes)?,
        };
        let group = match &query.group {
            None => None,
            Some(word) => Some(group(desired, word)?),
        };
        let (lines, receiver) = mpsc::channel(QUEUE);
        let sample = 1 << (sampling.shift - 1);
        // The queue is empty, so this has room.
        let _ = lines.try_send(MonitorLine::Watching { sample });
        let watcher = Watcher {
            sampling,
            group,
            lines,
            told: 0,
            second: Instant::now(),
            lost: 0,
            last_line: Instant::now(),
        };
        let added = self.watchers.send(watcher).await;
        added.map_err(|_| WatchError::Stopped)?;
        Ok(receiver)
    }
}

fn group(desired: &DesiredState, word: &str) -> Result<Uuid, WatchError> {
    let named = |group: &&crate::desired::ServiceGroup| {
        group.name == word || group.uuid.to_string() == word.to_lowercase()
    };
    let found = desired.service_groups.values().find(named);
    found
        .map(|group| group.uuid)
        .ok_or_else(|| WatchError::Group(word.to_owned()))
}

/// The bits of the outcomes that words stand for.
fn outcomes(words: &[String]) -> Result<u64, WatchError> {
    let bits = |wanted: &dyn Fn(Outcome) -> bool| {
        let wanted = Outcome::ALL.iter().filter(|outcome| wanted(**outcome));
        wanted.fold(0, |bits, outcome| bits | 1 << (*outcome as u32))
    };
    if words.is_empty() {
        return Ok(bits(&|outcome| outcome.verdict() != Verdict::Passed));
    }
    words.iter().try_fold(0, |sum, word| {
        let verdict = match word.as_str() {
            "forward" | "forwarded" => Some(Verdict::Forwarded),
            "pass" | "passed" => Some(Verdict::Passed),
            "answer" | "answered" => Some(Verdict::Answered),
            "drop" | "dropped" => Some(Verdict::Dropped),
            _ => None,
        };
        let found = bits(&|outcome| {
            outcome.label() == word || verdict.is_some_and(|verdict| outcome.verdict() == verdict)
        });
        if found == 0 {
            return Err(WatchError::Outcome(word.clone()));
        }
        Ok(sum | found)
    })
}

const _: () = assert!(Outcome::COUNT <= 64, "outcomes are bits of a word");

/// The task.
pub struct Monitor {
    reader: EventReader,
    arriving: mpsc::Receiver<Watcher>,
    reconciler: ReconcilerHandle,
    desired: watch::Receiver<Arc<DesiredState>>,
    watchers: Vec<Watcher>,
    names: Names,
    sampling: Sampling,
    renewed: Instant,
    /// Of the ring, as far as watchers know.
    lost: u64,
    /// The ring may hold more events.
    has_more: bool,
    looked_after: Instant,
}

impl Monitor {
    /// Starts the task, which tells events until `stop` is true. Without a reader there is none, and
    /// every watcher is refused.
    pub fn start(
        reader: Option<EventReader>,
        reconciler: &ReconcilerHandle,
        desired: watch::Receiver<Arc<DesiredState>>,
        stop: watch::Receiver<bool>,
    ) -> (MonitorHandle, JoinHandle<()>) {
        let (handle, arriving) = MonitorHandle::channel();
        let Some(reader) = reader else {
            return (handle, tokio::spawn(async {}));
        };
        let monitor = Self {
            reader,
            arriving,
            reconciler: reconciler.clone(),
            desired,
            watchers: Vec::new(),
            names: Names::default(),
            sampling: Sampling::OFF,
            renewed: Instant::now(),
            lost: 0,
            has_more: false,
            looked_after: Instant::now(),
        };
        (handle, tokio::spawn(monitor.run(stop)))
    }

    /// Tells events until `stop` is true or its sender is gone; then nothing is sampled any more.
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // An agent that was killed may have left it on.
        self.set(Sampling::OFF).await;
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_watched = !self.watchers.is_empty();
            // Every branch is cancel-safe: a watcher that arrives stays in the channel, and events
            // stay in their ring.
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(watcher) = self.arriving.recv() => self.add(watcher).await,
                _ = ticks.tick(), if is_watched && !self.has_more => self.tell().await,
                () = tokio::task::yield_now(), if is_watched && self.has_more => self.tell().await,
            }
            if is_watched && self.looked_after.elapsed() >= TICK {
                self.looked_after = Instant::now();
                self.look_after().await;
            }
        }
        self.watchers.clear();
        self.set(Sampling::OFF).await;
    }

    async fn add(&mut self, watcher: Watcher) {
        if self.watchers.is_empty() {
            // What was told to nobody is no news to somebody who comes later.
            while self.reader.pop().is_some() {}
            self.lost = self.reader.lost().unwrap_or_default();
        }
        self.watchers.push(watcher);
        self.adjust().await;
    }

    /// Lets go of watchers that left, and keeps the others' sampling on.
    async fn look_after(&mut self) {
        let lost = self.reader.lost().unwrap_or(self.lost);
        let new = lost.wrapping_sub(self.lost);
        self.lost = lost;
        for watcher in &mut self.watchers {
            watcher.lost += new;
            watcher.keep_up();
        }
        self.watchers.retain(|watcher| !watcher.lines.is_closed());
        if !self.watchers.is_empty() && self.renewed.elapsed() >= RENEWAL {
            self.set(self.sampling).await;
        }
        self.adjust().await;
    }

    /// Samples what the watchers ask for.
    async fn adjust(&mut self) {
        let finest = self.watchers.iter().map(|watcher| watcher.sampling.shift);
        let wanted = Sampling {
            shift: finest.min().unwrap_or(0),
            outcomes: self
                .watchers
                .iter()
                .fold(0, |bits, watcher| bits | watcher.sampling.outcomes),
        };
        if wanted != self.sampling {
            debug!(watchers = self.watchers.len(), ?wanted, "sampling packets");
            self.set(wanted).await;
        }
    }

    async fn set(&mut self, sampling: Sampling) {
        self.sampling = sampling;
        self.renewed = Instant::now();
        if let Err(error) = self.reconciler.set_sampling(sampling).await {
            warn!("cannot change which packets are sampled: {error}");
        }
    }

    /// Hands some events on.
    async fn tell(&mut self) {
        let pass = self.reconciler.latest().pass;
        if self.names.pass != Some(pass) {
            let read = self.reconciler.look_up(Names::read).await;
            self.names = read.unwrap_or_default();
            self.names.pass = Some(pass);
        }
        let desired = self.desired.borrow().clone();
        self.has_more = true;
        for _ in 0..BATCH {
            let Some(event) = self.reader.pop() else {
                self.has_more = false;
                return;
            };
            let group = self.names.group(&event);
            for watcher in &mut self.watchers {
                if watcher.wants(&event, group, self.sampling.shift) {
                    watcher.tell(|| self.names.event(&event, &desired));
                }
            }
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end too.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Watcher {
    /// Whether an event is one of the sample, the outcomes and the group that are asked for.
    fn wants(&self, event: &FlowEvent, group: Option<Uuid>, shift: u32) -> bool {
        // Of a finer sample than asked for, a part that looks random: the clock's lower bits.
        let thinner = self.sampling.shift.saturating_sub(shift);
        let mixed = event.time_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let is_sampled = thinner == 0 || mixed >> (64 - thinner) == 0;
        is_sampled
            && self.sampling.outcomes >> (event.outcome & 63) & 1 != 0
            && (self.group.is_none() || self.group == group)
    }

    fn tell(&mut self, event: impl FnOnce() -> Option<monitor::FlowEvent>) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.second = Instant::now();
            self.told = 0;
        }
        // Room for a line that tells of losses is kept.
        if self.told >= MOST_PER_SECOND || self.lines.capacity() < 2 {
            self.lost += 1;
            return;
        }
        let Some(event) = event() else {
            self.lost += 1;
            return;
        };
        self.told += 1;
        self.send(MonitorLine::Event(event));
    }

    /// Tells of losses, or that there is nothing to tell.
    fn keep_up(&mut self) {
        if self.lost > 0 && self.lines.capacity() > 0 {
            let events = std::mem::take(&mut self.lost);
            self.send(MonitorLine::Lost { events });
        } else if self.last_line.elapsed() >= IDLE {
            self.send(MonitorLine::Idle {});
        }
    }

    fn send(&mut self, line: MonitorLine) {
        self.last_line = Instant::now();
        // A watcher that left is found at the next tick.
        let _ = self.lines.try_send(line);
    }
}
