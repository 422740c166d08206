//! The workers together: they get their sockets, begin with the first snapshot, and end in good order.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::listen::Sockets;
use crate::metrics::Counters;
use crate::serving::Shared;
use crate::worker::{self, Start};

/// The workers of this process.
pub struct Crew {
    size: usize,
    shared: Arc<Shared>,
    draining: watch::Sender<bool>,
    deadline: watch::Sender<Option<Instant>>,
    /// Threads that have not ended.
    alive: watch::Sender<usize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sockets: Option<Arc<Sockets>>,
    /// Of each worker that has begun.
    counters: Vec<Arc<Counters>>,
}

/// How the work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every connection had ended.
    Drained,
    /// There was no more time.
    Deadline {
        /// Connections that were still open.
        open: u64,
    },
    /// A worker's thread died.
    Lost,
}

impl Crew {
    /// So many workers, without sockets.
    pub fn new(size: usize, shared: Arc<Shared>) -> Self {
        Self {
            size,
            shared,
            draining: watch::Sender::new(false),
            deadline: watch::Sender::new(None),
            alive: watch::Sender::new(0),
            state: Mutex::default(),
        }
    }

    /// How many workers there are to be.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What is accepted on, once it is known.
    pub fn sockets(&self) -> Option<Arc<Sockets>> {
        self.state().sockets.clone()
    }

    /// Takes the sockets that will be accepted on.
    pub fn equip(&self, sockets: Sockets) {
        self.state().sockets = Some(Arc::new(sockets));
    }

    /// Begins to accept: not before there is something to serve, so that no client is turned away
    /// that a predecessor would have served. Where it failed before, it goes on with the worker that
    /// could not begin.
    pub fn begin(&self) -> io::Result<()> {
        let mut state = self.state();
        let Some(sockets) = state.sockets.clone() else {
            return Ok(());
        };
        if *self.draining.borrow() {
            return Ok(());
        }
        for index in state.counters.len()..self.size {
            let counters = worker::start(Start {
                index,
                listeners: sockets.of_worker(index, self.size)?,
                shared: Arc::clone(&self.shared),
                draining: self.draining.subscribe(),
                alive: worker::Alive::new(&self.alive),
            })?;
            state.counters.push(counters);
        }
        Ok(())
    }

    /// Accepts no more, and finishes what there is within the time; a later call sets another time.
    pub fn drain(&self, within: Duration) {
        info!(?within, open = self.shared.admission.open(), "draining");
        self.deadline.send_replace(Some(Instant::now() + within));
        self.draining.send_replace(true);
    }

    /// Tells when [`Self::drain`] was called.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// What each worker counted.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.state().counters.clone()
    }

    /// Ends when nothing is left to do, or nothing more can be done.
    pub async fn ended(&self) -> Ended {
        let mut draining = self.draining.subscribe();
        let mut alive = self.alive.subscribe();
        let begun = |alive: &usize| *alive == self.size;
        let lost = async {
            // The senders live as long as the crew.
            let _ = alive.wait_for(begun).await;
            let _ = alive.wait_for(|alive| !begun(alive)).await;
        };
        tokio::select! {
            biased;
            _ = draining.wait_for(|is_draining| *is_draining) => {}
            () = lost => return Ended::Lost,
        }
        let mut alive = self.alive.subscribe();
        tokio::select! {
            _ = alive.wait_for(|alive| *alive == 0) => Ended::Drained,
            () = self.deadline() => self.at_once(),
        }
    }

    /// The end, whatever is still open.
    pub fn at_once(&self) -> Ended {
        let open = self.shared.admission.open();
        Ended::Deadline { open }
    }

    /// Ends at the deadline, which may change meanwhile.
    async fn deadline(&self) {
        let mut deadline = self.deadline.subscribe();
        loop {
            let Some(at) = *deadline.borrow_and_update() else {
                let _ = deadline.changed().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(at) => return,
                _ = deadline.changed() => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is done under the lock does not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
