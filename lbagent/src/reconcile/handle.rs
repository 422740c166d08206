//! The face of the reconciler towards the API and the agent.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};

use super::owner::DataplaneOwner;
use super::pass::Scope;
use crate::dataplane::{
    ActualState, CounterSnapshot, Dataplane, DataplaneError, FlowMaps, Sampling,
};
use crate::plan::Condition;

/// Why a pass ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// The first pass after the agent's start.
    Start,
    /// The desired state has a new generation.
    DesiredChanged,
    /// Health checks have another verdict on some instances.
    HealthChanged,
    /// A terminator came or went, or cannot serve some object.
    TerminatorChanged,
    /// An interface, an address, a route or a neighbour of the host changed.
    NetworkChanged,
    /// A draining instance reached its deadline.
    DrainDeadline,
    /// Nothing happened for a while: whatever was changed behind the agent's back is put right.
    Periodic,
    /// The last pass left something undone.
    Retry,
    /// Somebody asked for it.
    Requested,
}

impl WakeReason {
    /// What the pass has to look at.
    pub(super) const fn scope(self) -> Scope {
        match self {
            Self::DesiredChanged
            | Self::HealthChanged
            | Self::TerminatorChanged
            | Self::DrainDeadline => Scope::Changes,
            Self::NetworkChanged => Scope::Network,
            Self::Periodic => Scope::Part,
            Self::Start | Self::Retry | Self::Requested => Scope::Everything,
        }
    }
}

/// What the last pass left behind.
#[derive(Clone, Debug)]
pub struct ReconcileResult {
    /// Passes so far; 0 before the first one.
    pub pass: u64,
    /// Generation of the desired state that the pass worked on.
    pub generation: u64,
    /// When it ended.
    pub applied_at: OffsetDateTime,
    /// Why it ran.
    pub wake_reason: WakeReason,
    /// Writes that succeeded.
    pub steps: usize,
    /// Objects that are not as they were asked for, ordered by object.
    pub conditions: Vec<Condition>,
    /// Why the pass is incomplete; it is tried again. `None`: the data plane is as planned.
    pub error: Option<String>,
}

/// Why waiting for a pass ended without it.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The time is over.
    #[error(
        "generation {generation} was not applied within {timeout:?}; the data plane is at {applied}"
    )]
    Timeout {
        /// Generation waited for.
        generation: u64,
        /// Generation of the last pass.
        applied: u64,
        /// How long.
        timeout: Duration,
    },
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopped,
}

/// Why the data plane could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Reading failed.
    #[error("cannot read the data plane")]
    Dataplane(#[source] DataplaneError),
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopped,
}

/// What the data plane holds and has counted, read together.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Maps and host, with the paths that were asked about.
    pub actual: ActualState,
    /// Counters of every VIP and backend in `actual`.
    pub counters: CounterSnapshot,
}

/// Cheap to clone; everything that others may ask of the reconciler.
#[derive(Clone, Debug)]
pub struct ReconcilerHandle {
    pub(super) wake: mpsc::Sender<WakeReason>,
    pub(super) results: watch::Receiver<Arc<ReconcileResult>>,
    pub(super) owner: DataplaneOwner,
}

impl ReconcilerHandle {
    /// Asks for a pass. Never blocks; requests that arrive during a pass lead to one more.
    pub fn notify(&self, reason: WakeReason) {
        // A full queue means that a pass is due anyway; a closed one that the agent is stopping.
        let _ = self.wake.try_send(reason);
    }

    /// What the last pass left behind.
    pub fn latest(&self) -> Arc<ReconcileResult> {
        self.results.borrow().clone()
    }

    /// Every later result.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ReconcileResult>> {
        self.results.clone()
    }

    /// Waits until a pass for this generation, or a later one, has ended. The pass may have left
    /// something undone: see [`ReconcileResult::error`].
    pub async fn wait_applied(
        &self,
        generation: u64,
        timeout: Duration,
    ) -> Result<Arc<ReconcileResult>, WaitError> {
        let mut results = self.results.clone();
        let applied = results.wait_for(|result| result.pass > 0 && result.generation >= generation);
        match tokio::time::timeout(timeout, applied).await {
            Ok(Ok(result)) => Ok(result.clone()),
            Ok(Err(_)) => Err(WaitError::Stopped),
            Err(_) => Err(WaitError::Timeout {
                generation,
                applied: self.latest().generation,
                timeout,
            }),
        }
    }

    /// Reads maps and counters on the thread that owns the data plane, between two passes.
    /// `addresses` must be those of a pass ([`crate::plan::backend_addresses`]): the data plane
    /// lets go of the neighbours of all others.
    pub async fn observe(&self, addresses: BTreeSet<IpAddr>) -> Result<Observation, ObserveError> {
        let read = move |dataplane: &mut dyn crate::dataplane::Dataplane| {
            let actual = dataplane.read(&addresses)?;
            let vips: Vec<u32> = actual
                .vips
                .values()
                .map(|entry| entry.vip_id)
                .filter(|id| *id != 0)
                .collect();
            let backends: Vec<u32> = actual.backends.keys().copied().collect();
            let counters = dataplane.counters(&vips, &backends)?;
            Ok(Observation { actual, counters })
        };
        let outcome = self.owner.run(read).await.ok_or(ObserveError::Stopped)?;
        outcome.map_err(ObserveError::Dataplane)
    }

    /// Reads the counters of these ids, and all outcomes.
    pub async fn counters(
        &self,
        vips: Vec<u32>,
        backends: Vec<u32>,
    ) -> Result<CounterSnapshot, ObserveError> {
        let read = move |dataplane: &mut dyn crate::dataplane::Dataplane| {
            dataplane.counters(&vips, &backends)
        };
        let outcome = self.owner.run(read).await.ok_or(ObserveError::Stopped)?;
        outcome.map_err(ObserveError::Dataplane)
    }

    /// Looks single entries up on the thread that owns the data plane, between two passes.
    pub async fn look_up<T: Send + 'static>(
        &self,
        look_up: impl FnOnce(&dyn FlowMaps) -> Result<T, DataplaneError> + Send + 'static,
    ) -> Result<T, ObserveError> {
        let read = move |dataplane: &mut dyn Dataplane| {
            let (mut look_up, mut found) = (Some(look_up), None);
            dataplane.look_up(&mut |maps| found = look_up.take().map(|look_up| look_up(maps)));
            found
        };
        let found = self.owner.run(read).await.flatten();
        found
            .ok_or(ObserveError::Stopped)?
            .map_err(ObserveError::Dataplane)
    }

    /// Has connections of a family steered to a listening socket, or to none; returns when the data
    /// plane does so. `index` is one of [`lbagent_common::TERMINATOR_V4`] and
    /// [`lbagent_common::TERMINATOR_V6`].
    pub async fn set_terminator(
        &self,
        index: u32,
        socket: Option<OwnedFd>,
    ) -> Result<(), ObserveError> {
        let set =
            move |dataplane: &mut dyn Dataplane| dataplane.set_terminator(index, socket.as_ref());
        let outcome = self.owner.run(set).await.ok_or(ObserveError::Stopped)?;
        outcome.map_err(ObserveError::Dataplane)
    }

    /// Says which packets are told to whoever watches; to be repeated within
    /// [`Sampling::LEASE`].
    pub async fn set_sampling(&self, sampling: Sampling) -> Result<(), ObserveError> {
        let set = move |dataplane: &mut dyn Dataplane| dataplane.set_sampling(sampling);
        let outcome = self.owner.run(set).await.ok_or(ObserveError::Stopped)?;
        outcome.map_err(ObserveError::Dataplane)
    }
}
