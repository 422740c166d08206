//! A thread with a runtime of its own that accepts connections and sends each on its way.

use std::sync::Arc;

use tokio::sync::watch;

use crate::http::Engine;
use crate::metrics::Counters;
use crate::serving::Shared;

/// What the connections of one worker share. It never leaves its thread.
pub struct Worker {
    /// Number of the worker, from 0.
    pub index: usize,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// What happened here.
    pub counters: Arc<Counters>,
    /// Whether connections are to be ended in good order.
    pub draining: watch::Receiver<bool>,
    /// What requests of this thread share, as the pool of upstream connections.
    pub http: Engine,
}

impl Worker {
    /// Whether connections are to be ended in good order.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Ends when connections are to be ended in good order.
    pub async fn drained(&self) {
        let mut draining = self.draining.clone();
        // Without a sender the process is ending anyway.
        let _ = draining.wait_for(|is_draining| *is_draining).await;
    }
}
