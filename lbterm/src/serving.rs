//! What is in force: one snapshot in all its compiled forms, swapped as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use lbagent_api::terminator::{Fault, FaultyObject, Snapshot};
use rustls::crypto::CryptoProvider;

use crate::http;
use crate::limits::Admission;
use crate::route::Routes;
use crate::tls::{SealingKey, Tickets, Tls};

/// One snapshot in all its compiled forms.
#[derive(Debug, Default)]
pub struct Serving {
    /// Who serves which host name.
    pub routes: Routes,
    /// How handshakes are answered.
    pub tls: Tls,
}

/// What all threads share.
#[derive(Debug)]
pub struct Shared {
    serving: ArcSwap<Serving>,
    tickets: Arc<Tickets>,
    provider: Arc<CryptoProvider>,
    /// Connections of clients.
    pub admission: Arc<Admission>,
    /// What requests share.
    pub http: http::Shared,
}

impl Shared {
    /// Serves nothing yet.
    pub fn new(provider: CryptoProvider) -> Self {
        Self {
            serving: ArcSwap::default(),
            tickets: Arc::default(),
            provider: Arc::new(provider),
            admission: Arc::default(),
            http: http::Shared::default(),
        }
    }

    /// In force at this moment. A connection asks again for each request, so that a new snapshot
    /// reaches the connections that are open.
    pub fn now(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    /// Puts a snapshot in force, all of it or nothing.
    pub fn replace(&self, snapshot: &Snapshot) -> Result<(), Vec<Fault>> {
        let former = self.now();
        let keys = SealingKey::derive_all(&snapshot.ticket_keys).map_err(|reason| {
            vec![Fault {
                object: FaultyObject::Gateway,
                reason,
            }]
        });
        let routes = Routes::compile(snapshot, &former.routes);
        let tls = Tls::compile(snapshot, &former.tls, &self.tickets, &self.provider);
        match (routes, tls, keys) {
            (Ok(routes), Ok(tls), Ok(keys)) => {
                self.tickets.replace(keys);
                self.serving.store(Arc::new(Serving { routes, tls }));
                Ok(())
            }
            (routes, tls, keys) => Err([routes.err(), tls.err(), keys.err()]
                .into_iter()
                .flatten()
                .flatten()
                .collect()),
        }
    }
}
