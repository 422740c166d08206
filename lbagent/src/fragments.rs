//! Holds fragments that overtook the first one of their datagram until it has come.
//!
//! A later fragment has no ports, so the programs can't tell where it goes before they saw the first
//! one. They hand it to the agent through a ring of limited size; what does not fit is dropped. One
//! task keeps these frames and looks in `FRAGMENTS` whether the first fragment has come: at once, then
//! at ever longer intervals. When it has, the frames run through `lb_ingress` again.
//!
//! Nothing here grows with what clients send: the ring, the store and the share of a CPU that the task
//! takes are limited. With the agent everything that waits is lost, as if the network had lost it.

mod store;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lbagent_common::FragmentKey;
use nix::time::ClockId;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use self::store::{Store, has_expired};
use crate::dataplane::{HeldFragments, HeldFrame};

/// Frames that wait at most: 8 MiB of them.
const CAPACITY: usize = 4_096;
/// Frames taken from the ring in one pass, and frames sent, as far as datagrams allow.
const BATCH: usize = 32;
/// The shortest rest between two passes.
const SHORTEST_REST: Duration = Duration::from_millis(1);
/// A rest is so many times as long as the pass before: the task takes a quarter of a CPU at most.
const REST: u32 = 3;
/// A rest where nothing waits; the ring ends it.
const IDLE: Duration = Duration::from_secs(3_600);

/// What a [`Holder`] asks of the data plane.
pub trait Gate {
    /// The oldest fragment that the programs handed over and that was not taken yet.
    fn pop(&mut self) -> Option<HeldFrame>;
    /// Whether the first fragment of a datagram has come.
    fn is_decided(&mut self, key: &FragmentKey) -> bool;
    /// Sends a frame through the programs once more; whether that worked.
    fn send(&mut self, frame: &HeldFrame) -> bool;
}

/// What became of fragments that were held, since the agent's start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Wait now.
    pub waiting: AtomicU64,
    /// Sent through the programs again.
    pub released: AtomicU64,
    /// Forgotten, because the first fragment did not come in time.
    pub expired: AtomicU64,
    /// Forgotten, because newer ones needed the room.
    pub displaced: AtomicU64,
    /// Lost when they were to be sent: their interface is gone, or takes no frames.
    pub failed: AtomicU64,
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// Holds fragments, and lets them go.
pub struct Holder<G> {
    gate: G,
    store: Store,
    counters: Arc<Counters>,
    has_more: bool,
}

impl<G: Gate> Holder<G> {
    /// A holder with room for so many frames.
    pub fn new(gate: G, capacity: usize) -> Self {
        Self {
            gate,
            store: Store::new(capacity),
            counters: Arc::default(),
            has_more: false,
        }
    }

    /// What became of fragments.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The data plane.
    pub fn gate(&mut self) -> &mut G {
        &mut self.gate
    }

    /// Takes some fragments in, lets those go whose first one has come, and forgets those that waited
    /// for too long. `now` is ns of the monotonic clock, as in [`HeldFrame::time_ns`].
    pub fn pass(&mut self, now: u64) {
        self.take_in(now);
        self.let_go(now);
        add(&self.counters.expired, self.store.expire(now));
        let waiting = self.store.len() as u64;
        self.counters.waiting.store(waiting, Ordering::Relaxed);
    }

    fn take_in(&mut self, now: u64) {
        self.has_more = true;
        for _ in 0..BATCH {
            let Some(frame) = self.gate.pop() else {
                self.has_more = false;
                return;
            };
            // The ring keeps what came while there was no agent.
            if has_expired(frame.time_ns, now) {
                add(&self.counters.expired, 1);
            } else {
                let displaced = self.store.insert(frame, now);
                add(&self.counters.displaced, displaced);
            }
        }
    }

    fn let_go(&mut self, now: u64) {
        let mut sent = 0;
        for key in self.store.due(now) {
            // The others stay due.
            if sent >= BATCH {
                return;
            }
            if !self.gate.is_decided(&key) {
                self.store.postpone(&key, now);
                continue;
            }
            for frame in self.store.take(&key) {
                let is_sent = self.gate.send(&frame);
                let counter = if is_sent {
                    &self.counters.released
                } else {
                    &self.counters.failed
                };
                add(counter, 1);
                sent += 1;
            }
        }
    }

    /// How long nothing is to be done, unless fragments come.
    fn idle(&self, now: u64) -> Duration {
        if self.has_more {
            return Duration::ZERO;
        }
        let due = self.store.next_due();
        due.map_or(IDLE, |due| Duration::from_nanos(due.saturating_sub(now)))
    }
}

impl Gate for HeldFragments {
    fn pop(&mut self) -> Option<HeldFrame> {
        Self::pop(self)
    }

    fn is_decided(&mut self, key: &FragmentKey) -> bool {
        Self::is_decided(self, key).unwrap_or_else(|error| {
            debug!(%error, "cannot look for the first fragment of a datagram");
            false
        })
    }

    fn send(&mut self, frame: &HeldFrame) -> bool {
        let sent = Self::send(self, frame);
        if let Err(error) = &sent {
            debug!(ifindex = frame.ifindex, %error, "a held fragment is lost");
        }
        sent.is_ok()
    }
}

/// Starts the task, which holds fragments until `stop` is true. Without fragments there is none.
pub fn start(
    fragments: Option<HeldFragments>,
    stop: watch::Receiver<bool>,
) -> (Arc<Counters>, JoinHandle<()>) {
    let Some(fragments) = fragments else {
        return (Arc::default(), tokio::spawn(async {}));
    };
    let ready = fragments.readiness();
    let holder = Holder::new(fragments, CAPACITY);
    let counters = holder.counters();
    let task = match ready {
        Ok(ready) => tokio::spawn(run(holder, ready, stop)),
        Err(error) => {
            warn!(%error, "fragments that overtake the first one of their datagram are lost");
            tokio::spawn(async {})
        }
    };
    (counters, task)
}

async fn run(
    mut holder: Holder<HeldFragments>,
    ready: AsyncFd<OwnedFd>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let started = Instant::now();
        holder.pass(now());
        let rest = (started.elapsed() * REST).max(SHORTEST_REST);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(rest) => {}
        }
        let idle = holder.idle(now());
        // Every branch is cancel-safe: frames stay in their ring.
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(idle) => {}
            // Cleared before the ring is read, so that no fragment is missed.
            readable = ready.readable() => match readable {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return,
            },
        }
    }
}

/// The clock that the programs read.
fn now() -> u64 {
    let now = ClockId::CLOCK_MONOTONIC.now();
    // Every kernel has this clock.
    store::nanos(now.map(Duration::from).unwrap_or_default())
}
