//! Active health checks: from the desired state and answers on the network to verdicts, which are an
//! input of the plan.
//!
//! One thread of its own makes all checks, so that they cost one core at most, and nothing else
//! waits for them. [`Board`] knows what is checked and how it is, and is pure but for its log;
//! [`run`] tells it the time and makes the checks that are due, each in a task as long as it takes;
//! [`probe`] speaks to instances. Input: the desired state. Output: a [`Health`] whenever a verdict
//! changed, changes at once in one.

mod board;
mod counters;
mod limits;
mod probe;
mod random;
mod run;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lbagent_api::health_report::{GroupHealth, HealthCounters};
use tokio::sync::watch;
use tracing::warn;
use uuid::Uuid;

use crate::dataplane::Dataplane;
use crate::desired::{DesiredState, ServiceGroup};
use crate::plan::{CheckedAddress, Fitness, GatewaySettings, Health, group_tag};
use board::{Board, Moment};
use probe::Network;

/// What the API may ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HealthHandle {
    board: Arc<Mutex<Board>>,
}

/// What instances counted as before the agent's start.
pub type Carried = BTreeMap<CheckedAddress, Fitness>;

/// Takes up what is desired, and starts to check it. What instances count as at first is known when
/// this returns.
pub fn start(
    desired: watch::Receiver<Arc<DesiredState>>,
    gateway: GatewaySettings,
    (carried, stopped): (Carried, watch::Receiver<bool>),
) -> io::Result<(HealthHandle, watch::Receiver<Health>)> {
    let room = limits::raise();
    let mut board = Board::new(gateway, carried);
    board.follow(&desired.borrow(), Moment::now());
    board.take_news();
    let (verdicts, judged) = watch::channel(board.health());
    let handle = HealthHandle {
        board: Arc::new(Mutex::new(board)),
    };
    let runner = run::Runner::new(handle.clone(), Network::new(), verdicts, room);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Ends with the agent; nobody has to wait for checks under way.
    std::thread::Builder::new()
        .name("health".into())
        .spawn(move || runtime.block_on(runner.run(desired, stopped)))?;
    Ok((handle, judged))
}

/// What the entries of the maps say that instances counted as: to be asked before anything is
/// planned. Where they cannot be read, every instance begins anew.
pub fn carried(desired: &DesiredState, dataplane: &dyn Dataplane) -> Carried {
    let has_checks = |group: &ServiceGroup| group.policy.health.has_checks();
    if !desired.service_groups.values().any(has_checks) {
        return Carried::new();
    }
    let mut entries = Vec::new();
    dataplane.look_up(&mut |maps| match maps.backends() {
        Ok(found) => entries = found,
        Err(error) => warn!(%error, "cannot tell which instances were unhealthy"),
    });
    let carried = entries.into_iter().filter_map(|(_, entry)| {
        let instance = desired.instances.get(&Uuid::from_bytes(entry.instance))?;
        let group = instance.service_group?;
        let key = CheckedAddress {
            instance: instance.uuid,
            group,
            address: entry.addr.into(),
        };
        let fitness = Fitness::of_entry(&entry, instance.policy.weight);
        (entry.group_tag == group_tag(group)).then_some((key, fitness))
    });
    carried.collect()
}

impl HealthHandle {
    /// Of checks that nobody makes.
    #[cfg(test)]
    pub(crate) fn idle(gateway: GatewaySettings) -> Self {
        let board = Board::new(gateway, Carried::new());
        let board = Arc::new(Mutex::new(board));
        Self { board }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // A panic in between left a check unanswered at worst.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The groups that have checks, of those that `is_wanted` says, by name.
    pub fn report(&self, is_wanted: impl Fn(Uuid) -> bool) -> Vec<GroupHealth> {
        self.board().report(is_wanted)
    }

    /// What all checks together did.
    pub fn counters(&self) -> HealthCounters {
        self.board().counters()
    }
}
