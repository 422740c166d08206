//! Makes a snapshot whenever what it is made of has changed, and rotates the secrets of session tickets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbagent_api::certificate::Secret;
use lbagent_api::terminator::{FromAgent, Snapshot};
use time::OffsetDateTime;
use tokio::sync::watch;
use tracing::{debug, warn};
use uuid::Uuid;

use super::link::{self, Frame};
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
    pub(super) frame: Frame,
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
    pub(super) published: watch::Sender<Option<Arc<Published>>>,
}

/// Private keys, and the certificates that they were read for.
#[derive(Default)]
struct Keys {
    of: SharedMap<Uuid, Certificate>,
    keys: BTreeMap<Uuid, Secret>,
}

impl Publisher {
    /// Runs until the desired state's sender is gone.
    pub(super) async fn run(mut self) {
        let mut states = self.desired.subscribe();
        let (mut keys, mut last) = (Keys::default(), None::<Snapshot>);
        loop {
            let state = states.borrow_and_update().clone();
            let begun = Instant::now();
            let wait = match self.round(&state, &mut keys, &mut last).await {
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
        keys: &mut Keys,
        last: &mut Option<Snapshot>,
    ) -> anyhow::Result<Duration> {
        let now = OffsetDateTime::now_utc();
        let store = Arc::clone(&self.desired);
        let is_same = keys.of.changed_keys(&state.certificates).is_empty();
        let work = move || -> anyhow::Result<_> {
            let due = store.rotate_ticket_keys(now)?;
            let keys = (!is_same).then(|| store.certificate_keys()).transpose()?;
            Ok((due, store.ticket_keys(), keys))
        };
        let (due, ticket_keys, read) = tokio::task::spawn_blocking(work).await??;
        if let Some(read) = read {
            *keys = Keys {
                of: state.certificates.clone(),
                keys: read,
            };
        }
        let mut next = snapshot::snapshot(&Inputs {
            desired: state,
            health: &self.health.borrow_and_update(),
            gateway: &self.gateway,
            metro_domain: &self.metro_domain,
            keys: &keys.keys,
            ticket_keys: &ticket_keys,
            settings: &self.settings,
        });
        let former = last.as_ref().map_or(0, |last| last.generation);
        let floor = *self.floor.borrow_and_update();
        next.generation = former;
        if last.as_ref() != Some(&next) || floor > former {
            next.generation = former.max(floor) + 1;
            self.publish(&next)?;
            *last = Some(next);
        }
        let wait = Duration::try_from(due - now).unwrap_or_default();
        Ok(wait.clamp(Duration::from_secs(1), ROUND))
    }

    fn publish(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let generation = snapshot.generation;
        let frame = link::frame(&FromAgent::Snapshot(Box::new(snapshot.clone())))?;
        debug!(
            generation,
            bytes = frame.len(),
            "a snapshot for terminators"
        );
        let published = Published { generation, frame };
        self.published.send_replace(Some(Arc::new(published)));
        Ok(())
    }
}
