//! The desired state in the store, and each new generation published.

use std::sync::{Arc, Mutex, PoisonError};

use lbagent_api::events::Author;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use super::document::{PrivateKeys, Secrets};
use super::draft::Draft;
use super::snapshot::Snapshot;
use super::{DesiredState, Expected, Kind, instance, migrate, terminator};
use crate::store::{Range, Store, StoreError, TxnError, Watch};

/// Tries to write before giving up. Only another gateway's writes can make one fail.
const ATTEMPTS: usize = 16;

/// Why the desired state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DesiredError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object is not what this version writes.
    #[error(
        "the store's key {key} is not readable by this lbagent; use the version that wrote it, or export the state there and import it here"
    )]
    Unreadable {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A newer lbagent has written it.
    #[error(
        "the store has schema {found}, this lbagent knows {}; use the version that wrote it, or export the state there and import it here",
        migrate::SCHEMA
    )]
    NewerSchema {
        /// Its schema.
        found: u32,
    },
    /// The object is not as the client saw it, or is gone.
    #[error(
        "The {} changed since it was read (If-Match): read it again, and try with what it is now",
        kind.noun()
    )]
    Changed {
        /// What it is.
        kind: Kind,
    },
    /// Others write all the time.
    #[error(
        "the desired state kept changing while {ATTEMPTS} attempts to write it were made; try again"
    )]
    Contended,
}

/// What a change did, and the generation that it made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// Result of the change.
    pub outcome: T,
    /// Generation of the desired state that contains it.
    pub generation: u64,
}

/// The desired state in the store. Its calls block for a disk write.
#[derive(Clone)]
pub struct Desired {
    shared: Arc<Shared>,
    /// What every change through this handle depends on.
    expected: Option<Expected>,
    /// Who makes the changes through this handle.
    by: Author,
}

struct Shared {
    store: Arc<dyn Store>,
    /// What the store held when last read or written. The lock also orders writes.
    cache: Mutex<Snapshot>,
    published: watch::Sender<Arc<DesiredState>>,
}

impl Desired {
    /// Reads the store; brings an older one up to date, and gives a new one its flow hash key.
    pub fn load(store: Arc<dyn Store>) -> Result<Self, DesiredError> {
        // Before anything else: what is newer need not be readable.
        if let Some(found) = migrate::found(store.as_ref())?
            && found > migrate::SCHEMA
        {
            return Err(DesiredError::NewerSchema { found });
        }
        let snapshot = Snapshot::read(store.as_ref())?;
        let names = migrate::names(store.as_ref(), &snapshot)?;
        let published = watch::Sender::new(snapshot.state.clone());
        let desired = Self {
            shared: Arc::new(Shared {
                store,
                cache: Mutex::new(snapshot),
                published,
            }),
            expected: None,
            by: Author::Agent,
        };
        desired.transact(|draft| {
            migrate::migrate(draft, &names);
            if draft.hash_seed().is_none() {
                let (seed, _) = Uuid::new_v4().as_u64_pair();
                // Six bits of a version 4 UUID are fixed: take them from another one.
                draft.put_hash_seed(seed ^ Uuid::new_v4().as_u64_pair().1.rotate_left(32));
            }
        })?;
        Ok(desired)
    }

    /// The same desired state, whose changes through this handle are made only as long as an object
    /// is as expected. That is checked in each change's transaction.
    pub fn expecting(&self, expected: Expected) -> Self {
        Self {
            expected: Some(expected),
            ..self.clone()
        }
    }

    /// The same desired state, whose changes through this handle are somebody's.
    pub fn by(&self, author: Author) -> Self {
        Self {
            by: author,
            ..self.clone()
        }
    }

    /// Changes of the store's keys below a prefix, from a revision on.
    pub(super) fn watch(&self, prefix: &str, revision: u64) -> Box<dyn Watch> {
        self.shared.store.watch(prefix, revision)
    }

    /// The state as last written.
    pub fn current(&self) -> Arc<DesiredState> {
        self.shared.published.borrow().clone()
    }

    /// The state in the store, with the private keys of its certificates, which belong to exactly
    /// this state, and all other secrets. Reads the whole store.
    pub fn with_private_keys(&self) -> Result<(Arc<DesiredState>, Secrets), DesiredError> {
        let mut keys = PrivateKeys::new();
        let mut unreadable = None;
        let snapshot =
            Snapshot::read_with(
                self.shared.store.as_ref(),
                |entry| match terminator::private_key(entry) {
                    Ok(found) => keys.extend(found),
                    Err(error) => unreadable = Some(error),
                },
            )?;
        match unreadable {
            Some(error) => Err(error),
            None => {
                let terminator = snapshot.terminator();
                Ok((snapshot.state, Secrets { keys, terminator }))
            }
        }
    }

    /// Every later state.
    pub fn subscribe(&self) -> watch::Receiver<Arc<DesiredState>> {
        self.shared.published.subscribe()
    }

    /// Key of the flow hash.
    pub fn hash_seed(&self) -> u64 {
        self.lock().hash_seed.unwrap_or_default()
    }

    /// Stops the instances whose drain deadline has passed.
    pub fn expire_drains(&self, now: OffsetDateTime) -> Result<Written<usize>, DesiredError> {
        self.transact(|draft| instance::expire_drains(draft, now))
    }

    /// Makes a change and writes it as one transaction. `change` runs again when somebody else
    /// wrote meanwhile, so it must depend on the draft only.
    pub(super) fn transact<T>(
        &self,
        mut change: impl FnMut(&mut Draft) -> T,
    ) -> Result<Written<T>, DesiredError> {
        let mut cache = self.lock();
        for _ in 0..ATTEMPTS {
            let mut draft = Draft::new(cache.clone());
            if let Some(expected) = &self.expected
                && !expected.holds(&mut draft)
            {
                let kind = expected.kind;
                return Err(DesiredError::Changed { kind });
            }
            let outcome = change(&mut draft);
            let Some((transaction, snapshot)) = draft.finish(&self.by) else {
                return Ok(Written {
                    outcome,
                    generation: cache.state.generation,
                });
            };
            match self.shared.store.txn(&transaction) {
                Ok(revision) if revision == cache.state.generation + 1 => {
                    *cache = snapshot.at(&transaction, revision);
                    self.shared.published.send_replace(cache.state.clone());
                    return Ok(Written {
                        outcome,
                        generation: revision,
                    });
                }
                Ok(revision) => {
                    // Others wrote keys that this change does not touch.
                    *cache = Snapshot::read(self.shared.store.as_ref())?;
                    self.shared.published.send_replace(cache.state.clone());
                    return Ok(Written {
                        outcome,
                        generation: revision,
                    });
                }
                Err(TxnError::Conflict { .. }) => {
                    *cache = Snapshot::read(self.shared.store.as_ref())?;
                    self.shared.published.send_replace(cache.state.clone());
                }
                Err(TxnError::Store(error)) => return Err(error.into()),
                Err(error @ TxnError::DuplicateKey { .. }) => {
                    unreachable!("a draft holds each key once: {error}")
                }
            }
        }
        Err(DesiredError::Contended)
    }

    /// What the store holds below a prefix.
    pub(super) fn read(&self, prefix: &str) -> Result<Range, DesiredError> {
        Ok(self.shared.store.range(prefix)?)
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Snapshot> {
        // The snapshot is replaced as a whole, never half-written.
        self.shared
            .cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
