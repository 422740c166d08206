//! Makes a snapshot whenever what it is made of has changed, and rotates the secrets of session tickets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbagent_api::certificate::Secret;
use lbagent_api::terminator::link::Frame;
use lbagent_api::terminator::{Fault, FromAgent, Snapshot};
use time::OffsetDateTime;
use tokio::sync::watch;
use tracing::{debug, warn};
use uuid::Uuid;

use super::left_out::{LeftOut, Refused};
use super::snapshot::{self, Inputs};
use crate::config::ServingSettings;
use crate::desired::{Certificate, Desired, DesiredState, SharedMap};
use crate::plan::{GatewaySettings, Health};

/// Changes come in groups: a snapshot waits so long for company.
const COMPANY: Duration = Duration::from_millis(20);
/// After a snapshot there is rest for so many times as long as it took to make.
const REST: u32 = 9;
/// How often the secrets of session tickets are looked at, at least.
const ROUND: Duration = Duration::from_secs(600);
/// Wait after a failed read or write of the store.
const RETRY: Duration = Duration::from_secs(5);

/// A snapshot as it travels.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) generation: u64,
    pub(super) frame: Frame<FromAgent>,
    /// What of the desired state it lacks, because a terminator refused it.
    pub(super) left_out: Vec<Fault>,
}

/// What snapshots are made of.
pub(super) struct Publisher {
    pub(super) desired: Arc<Desired>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) gateway: GatewaySettings,
    pub(super) metro_domain: String,
    pub(super) settings: ServingSettings,
    /// A terminator serves this generation already: the next one is above it.
    pub(super) floor: watch::Receiver<u64>,
    /// What the terminator that counts has refused.
    pub(super) refused: watch::Receiver<Option<Refused>>,
    pub(super) published: watch::Sender<Option<Arc<Published>>>,
}

/// What is known between rounds.
#[derive(Default)]
struct Known {
    /// Private keys, and the certificates that they were read for.
    keys_of: SharedMap<Uuid, Certificate>,
    keys: BTreeMap<Uuid, Secret>,
    left_out: LeftOut,
    /// Of the desired state.
    generation: u64,
    /// What was published last, and what it lacked.
    last: Option<(Snapshot, Vec<Fault>)>,
}

impl Publisher {
    /// Runs until the desired state's sender is gone.
    pub(super) async fn run(mut self) {
        let mut states = self.desired.subscribe();
        let mut known = Known::default();
        loop {
            let state = states.borrow_and_update().clone();
            let begun = Instant::now();
            let wait = match self.round(&state, &mut known).await {
                Ok(due) => due,
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "cannot make a snapshot; trying again"
                    );
                    RETRY
                }
            };
            let rest = begun.elapsed() * REST;
            // Every branch is cancel-safe: a round takes everything up anew.
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                Ok(()) = self.health.changed() => {}
                Ok(()) = self.floor.changed() => {}
                Ok(()) = self.refused.changed() => {}
                () = tokio::time::sleep(wait) => continue,
            }
            tokio::time::sleep(rest.max(COMPANY)).await;
        }
    }

    /// Makes and publishes a snapshot if it would differ; tells how long nothing is to do unless
    /// something changes.
    async fn round(
        &mut self,
        state: &Arc<DesiredState>,
        known: &mut Known,
    ) -> anyhow::Result<Duration> {
        let now = OffsetDateTime::now_utc();
        let store = Arc::clone(&self.desired);
        let is_same = known.keys_of.changed_keys(&state.certificates).is_empty();
        let work = move || -> anyhow::Result<_> {
            let due = store.rotate_ticket_keys(now)?;
            let keys = (!is_same).then(|| store.certificate_keys()).transpose()?;
            Ok((due, store.ticket_keys(), keys))
        };
        let (due, ticket_keys, read) = tokio::task::spawn_blocking(work).await??;
        if let Some(read) = read {
            (known.keys_of, known.keys) = (state.certificates.clone(), read);
        }
        let mut next = snapshot::snapshot(&Inputs {
            desired: state,
            health: &self.health.borrow_and_update(),
            gateway: &self.gateway,
            metro_domain: &self.metro_domain,
            keys: &known.keys,
            ticket_keys: &ticket_keys,
            settings: &self.settings,
        });
        let left_out = self.leave_out(state, known, &mut next);
        let former = known.last.as_ref().map_or(0, |(last, _)| last.generation);
        let floor = *self.floor.borrow_and_update();
        next.generation = former;
        let next = (next, left_out);
        if known.last.as_ref() != Some(&next) || floor > former {
            let (mut snapshot, left_out) = next;
            snapshot.generation = former.max(floor) + 1;
            self.publish(&snapshot, &left_out)?;
            known.last = Some((snapshot, left_out));
        }
        let wait = Duration::try_from(due - now).unwrap_or_default();
        let retry = known.left_out.next_retry(Instant::now());
        let wait = wait.min(retry.unwrap_or(ROUND));
        Ok(wait.clamp(Duration::from_secs(1), ROUND))
    }

    /// Takes from a snapshot what the last one was refused for, and tells what that is.
    fn leave_out(
        &mut self,
        state: &DesiredState,
        known: &mut Known,
        next: &mut Snapshot,
    ) -> Vec<Fault> {
        let now = Instant::now();
        let left_out = &mut known.left_out;
        if known.generation != state.generation {
            known.generation = state.generation;
            left_out.restart();
        }
        let refused = self.refused.borrow_and_update();
        if let Some((last, _)) = &known.last {
            match &*refused {
                // A verdict on an earlier one says nothing of this.
                Some(refused) if refused.generation != last.generation => {}
                Some(refused) => left_out.note(refused, last, now),
                None => left_out.restart(),
            }
        }
        left_out.apply(next, now);
        left_out.faults()
    }

    fn publish(&self, snapshot: &Snapshot, left_out: &[Fault]) -> anyhow::Result<()> {
        let generation = snapshot.generation;
        let frame = Frame::new(&FromAgent::Snapshot(Box::new(snapshot.clone())))?;
        debug!(
            generation,
            bytes = frame.size(),
            left_out = left_out.len(),
            "a snapshot for terminators"
        );
        let published = Published {
            generation,
            frame,
            left_out: left_out.to_vec(),
        };
        self.published.send_replace(Some(Arc::new(published)));
        Ok(())
    }
}
