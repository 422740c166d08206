//! What is in force: one snapshot in all its compiled forms, swapped as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::metrics::Gauge;
use crate::route::Routes;

/// One snapshot in all its compiled forms.
#[derive(Debug, Default)]
pub struct Serving {
    /// Who serves which host name.
    pub routes: Routes,
}

/// What all threads share.
#[derive(Debug, Default)]
pub struct Shared {
    /// In force now.
    pub serving: ArcSwap<Serving>,
    /// Connections of clients.
    pub connections: Gauge,
}

impl Shared {
    /// In force at this moment. A connection asks again for each request, so that a new snapshot
    /// reaches the connections that are open.
    pub fn now(&self) -> Arc<Serving> {
        self.serving.load_full()
    }
}
