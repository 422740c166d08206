//! What the API may ask of terminators.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbagent_api::terminator::ListenerFamily;
use lbagent_api::terminators::{
    Authority, RegisterSpec, Terminator, TerminatorKind, TerminatorState, Terminators,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use time::OffsetDateTime;
use tracing::{info, warn};
use uuid::Uuid;

use super::Shared;
use super::foreign::{ForeignError, Process};
use super::record::Named;
use super::registry::{Entry, Kind, Registry};
use crate::desired::Desired;
use crate::observe;
use crate::reconcile::ObserveError;

/// How often a named program's sockets are looked at again.
const ROUND: Duration = Duration::from_secs(5);
/// How long a successor may take before an upgrade counts as failed.
const UPGRADE: Duration = Duration::from_secs(20);

/// What may be asked of terminators. Cheap to clone.
#[derive(Clone)]
pub struct TerminatorHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) desired: Arc<Desired>,
    pub(super) metro_domain: Arc<str>,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum TerminatorError {
    /// There is no such terminator.
    #[error("There is no terminator {id}")]
    NotFound {
        /// The number.
        id: u32,
    },
    /// Another program's socket cannot be used.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// It is registered already.
    #[error("Process {pid} is registered already, as terminator {id}")]
    Registered {
        /// The process.
        pid: u32,
        /// Its number here.
        id: u32,
    },
    /// It is no program of this project.
    #[error("Terminator {id} is another program, which upgrades itself in its own way")]
    NotOurs {
        /// The number.
        id: u32,
    },
    /// It did not become ready.
    #[error(
        "No successor of terminator {id} became ready within {UPGRADE:?}; it goes on. Its log says \
         more"
    )]
    NoSuccessor {
        /// The number.
        id: u32,
    },
    /// The process cannot be told.
    #[error("Cannot signal process {pid}: {source}")]
    Signal {
        /// The process.
        pid: u32,
        /// Why.
        source: nix::errno::Errno,
    },
    /// There is no development authority.
    #[error(
        "This gateway signs no certificates: set terminator.development_ca in its configuration"
    )]
    NoAuthority,
    /// The counters cannot be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
}

impl TerminatorHandle {
    /// Of an agent where no terminator comes.
    #[cfg(test)]
    pub(crate) fn idle(
        reconciler: crate::reconcile::ReconcilerHandle,
        desired: &Arc<Desired>,
        directory: &std::path::Path,
    ) -> Self {
        Self {
            shared: Arc::new(Shared::new(
                super::Settings {
                    state_dir: directory,
                    user: None,
                    drain: Duration::ZERO,
                },
                reconciler,
                tokio::sync::watch::Sender::default(),
                (
                    tokio::sync::watch::channel(None).1,
                    tokio::sync::watch::Sender::new(0),
                ),
            )),
            desired: Arc::clone(desired),
            metro_domain: "lb.internal".into(),
        }
    }

    /// Whether connections go to somebody.
    pub fn is_active(&self) -> bool {
        self.shared.with(|registry| registry.active().is_some())
    }

    /// Requests under way by instance, over all terminators that tell.
    pub fn in_flight(&self) -> BTreeMap<Uuid, u64> {
        self.shared.with(|registry| {
            let mut in_flight = BTreeMap::new();
            let reports = registry
                .entries()
                .iter()
                .filter_map(|it| it.report.as_ref());
            for instance in reports
                .flat_map(|it| &it.groups)
                .flat_map(|it| &it.instances)
            {
                *in_flight.entry(instance.uuid).or_default() += instance.in_flight;
            }
            in_flight
        })
    }

    /// The snapshot that terminators are to serve; none before the first.
    pub fn snapshot(&self) -> Option<u64> {
        let published = self.shared.published.borrow();
        published.as_ref().map(|published| published.generation)
    }

    /// All terminators, by id.
    pub fn rows(&self) -> Vec<Terminator> {
        self.shared.with(|registry| {
            let entries = registry.entries().iter();
            entries.map(|entry| row(registry, entry)).collect()
        })
    }

    /// All terminators, and what was steered to them.
    pub async fn list(&self) -> Result<Terminators, TerminatorError> {
        let counters = self
            .shared
            .reconciler
            .counters(Vec::new(), Vec::new())
            .await?;
        let generation = self.snapshot();
        let published = self.shared.published.borrow();
        Ok(Terminators {
            taken_at: OffsetDateTime::now_utc(),
            steering: observe::steering(&counters),
            generation,
            left_out: published
                .as_ref()
                .map_or_else(Vec::new, |published| published.left_out.clone()),
            awaits_successor: self.shared.with(|registry| registry.orphans.is_some()),
            all: self.rows(),
        })
    }

    /// Has connections steered to another program's listening sockets.
    pub async fn register(&self, spec: RegisterSpec) -> Result<Terminator, TerminatorError> {
        let process = Process::open(spec.pid)?;
        // Checked before anything changes.
        process.listeners(spec.port)?;
        let id = self.enter(process, spec.port)?;
        self.record();
        self.shared.apply().await;
        self.row(id)
    }

    fn enter(&self, process: Arc<Process>, port: u16) -> Result<u32, TerminatorError> {
        let (pid, began) = (process.pid, process.began);
        let id = self.shared.with(|registry| {
            let known = registry.entries().iter().find(|entry| entry.pid == pid);
            if let Some(known) = known {
                return Err(TerminatorError::Registered { pid, id: known.id });
            }
            let name = process.name.clone();
            let process = Arc::clone(&process);
            let id = registry.enter(Kind::Named { process, port }, name, (pid, began));
            registry.ready(id);
            Ok(id)
        })?;
        info!(
            id,
            pid,
            port,
            program = process.name,
            "registered a program's listening socket"
        );
        tokio::spawn(self.clone().watch(id, process));
        Ok(id)
    }

    /// Follows a named program to its end.
    async fn watch(self, id: u32, process: Arc<Process>) {
        while tokio::time::timeout(ROUND, process.ended()).await.is_err() {
            if self.shared.with(|registry| registry.entry(id).is_none()) {
                return;
            }
            // Its sockets may be others by now.
            self.shared.apply().await;
        }
        info!(id, pid = process.pid, "a registered program has ended");
        self.forget(id).await;
    }

    async fn forget(&self, id: u32) {
        self.shared
            .with(|registry| registry.leave(id, Instant::now()));
        self.record();
        self.shared.apply().await;
    }

    /// Takes up the programs that were registered when the agent ended.
    pub(super) async fn restore(&self) {
        for named in self.shared.record.read() {
            let process = Process::open(named.pid).ok();
            let process = process.filter(|process| process.began == named.began);
            let process = process.filter(|process| process.listeners(named.port).is_ok());
            if let Some(process) = process {
                if let Err(error) = self.enter(process, named.port) {
                    warn!(%error, "a program is not registered any more");
                }
                self.shared.apply().await;
            }
        }
    }

    fn record(&self) {
        let named = self.shared.with(|registry| {
            let entries = registry.entries().iter();
            let named = entries.filter_map(|entry| match &entry.kind {
                Kind::Named { process, port } => Some(Named {
                    pid: process.pid,
                    began: process.began,
                    port: *port,
                }),
                Kind::Connected { .. } => None,
            });
            named.collect::<Vec<_>>()
        });
        if let Err(error) = self.shared.record.write(&named) {
            warn!(%error, "cannot note who is registered: a restarted agent will not know");
        }
    }

    /// Has no new connections go to a terminator. Another program is forgotten by that.
    pub async fn drain(&self, id: u32) -> Result<Terminator, TerminatorError> {
        let row = self.row(id)?;
        self.shared.with(|registry| registry.drain(id));
        match row.kind {
            TerminatorKind::Named => {
                self.forget(id).await;
                Ok(Terminator {
                    state: TerminatorState::Draining,
                    ..row
                })
            }
            TerminatorKind::Connected => {
                self.shared.apply().await;
                self.row(id)
            }
        }
    }

    /// Has a terminator start its successor from the binary on disk; returns the successor when
    /// connections go to it.
    pub async fn upgrade(&self, id: u32) -> Result<Terminator, TerminatorError> {
        let Terminator { kind, pid, .. } = self.row(id)?;
        if kind != TerminatorKind::Connected {
            return Err(TerminatorError::NotOurs { id });
        }
        // The seam's word for it: the terminator's own signal.
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP)
            .map_err(|source| TerminatorError::Signal { pid, source })?;
        let mut view = tokio::time::interval(Duration::from_millis(50));
        let deadline = Instant::now() + UPGRADE;
        while Instant::now() < deadline {
            view.tick().await;
            let successor = self.shared.with(|registry| {
                let active = registry.active().filter(|active| active.id > id);
                active.map(|active| row(registry, active))
            });
            if let Some(successor) = successor {
                return Ok(successor);
            }
        }
        Err(TerminatorError::NoSuccessor { id })
    }

    /// The development authority.
    pub fn authority(&self) -> Result<Authority, TerminatorError> {
        let authority = self.desired.authority();
        let authority = authority.ok_or(TerminatorError::NoAuthority)?;
        Ok(Authority {
            certificate: authority.certificate,
            name: format!("*.{}", self.metro_domain),
        })
    }

    fn row(&self, id: u32) -> Result<Terminator, TerminatorError> {
        self.shared.with(|registry| {
            let entry = registry.entries().iter().find(|entry| entry.id == id);
            let entry = entry.ok_or(TerminatorError::NotFound { id })?;
            Ok(row(registry, entry))
        })
    }
}

fn row(registry: &Registry, entry: &Entry) -> Terminator {
    let families = [ListenerFamily::Ipv4, ListenerFamily::Ipv6].into_iter();
    let (kind, families, sockets) = match &entry.kind {
        Kind::Connected { listeners, .. } => {
            let takes = |family: &ListenerFamily| listeners.iter().any(|it| it.takes(*family));
            let families = families.filter(takes).collect();
            (TerminatorKind::Connected, families, listeners.len())
        }
        Kind::Named { process, port } => {
            let listeners = process.listeners(*port).unwrap_or_default();
            let takes = |family: &ListenerFamily| listeners.iter().any(|it| it.takes(*family));
            let families = families.filter(takes).collect();
            (TerminatorKind::Named, families, listeners.len())
        }
    };
    Terminator {
        id: entry.id,
        software: entry.software.clone(),
        pid: entry.pid,
        kind,
        state: registry.state(entry),
        families,
        sockets,
        generation: entry.generation,
        faults: entry.faults.clone(),
        report: entry.report.clone(),
    }
}
