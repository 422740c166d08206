//! Where the desired state lives. A small trait with etcd's semantics, so that several gateways can
//! share an etcd later without a change above this line.
//!
//! * One **revision** for the whole store rises by one with each transaction that changes a key.
//! * A **transaction** compares the `mod_revision` of some keys (0: the key must not exist) and, if
//!   all are as expected, writes all its operations at one revision.
//! * A **watch** yields every change of a prefix from a revision on, in order and without gaps, or
//!   says that this part of history was compacted away; then the watcher reads the range anew.
//! * **Leases** (keys that vanish with their holder) join the trait with the first store that has
//!   a holder to lose. The redb store lives and dies with its only client, where a lease could
//!   never run out; a TTL there would only be a slower way to delete a key.
//!
//! Calls block: [`crate::desired::Desired`] runs them off the async threads.

mod history;
mod redb;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use lbagent_api::events::Author;
use time::OffsetDateTime;

pub use redb::RedbStore;

/// A key's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Its name; by convention a path.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// Revision at which it came into being.
    pub create_revision: u64,
    /// Revision at which it was last written.
    pub mod_revision: u64,
}

impl KeyValue {
    /// The same, borrowed.
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            key: &self.key,
            value: &self.value,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        }
    }
}

/// A key's state, as long as the store is being read.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub key: &'a str,
    /// Its value.
    pub value: &'a [u8],
    /// Revision at which it came into being.
    pub create_revision: u64,
    /// Revision at which it was last written.
    pub mod_revision: u64,
}

/// The keys below a prefix at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The store's revision.
    pub revision: u64,
    /// Ordered by key.
    pub items: Vec<KeyValue>,
}

/// What a transaction expects of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// Its revision; 0: it must not exist.
    pub mod_revision: u64,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Create or replace.
    Put {
        /// The key.
        key: String,
        /// The new value.
        value: Vec<u8>,
    },
    /// Remove; nothing happens when there is no such key.
    Delete {
        /// The key.
        key: String,
    },
}

impl Op {
    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// All or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Expectations.
    pub compares: Vec<Compare>,
    /// Writes; a key may occur once.
    pub ops: Vec<Op>,
    /// Who makes them, for watches. As with the changes that these tell, a restart forgets it.
    pub by: Author,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was created or replaced.
    Put {
        /// What it is now.
        item: KeyValue,
        /// What it held before; `None` for a new key.
        previous: Option<Vec<u8>>,
    },
    /// It was removed.
    Delete {
        /// The key.
        key: String,
        /// Revision of the removal.
        revision: u64,
        /// What it held.
        previous: Vec<u8>,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { item, .. } => &item.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision at which it changed.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Put { item, .. } => item.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// What one transaction changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// When it was written.
    pub at: OffsetDateTime,
    /// Who wrote it.
    pub by: Arc<Author>,
    /// Its changes.
    pub events: Vec<Event>,
}

/// Where the desired state lives.
pub trait Store: Send + Sync {
    /// Shows every key that starts with `prefix`, in order; returns the store's revision. All of
    /// them at once would take more memory than what they become.
    fn scan(&self, prefix: &str, each: &mut dyn FnMut(Entry<'_>)) -> Result<u64, StoreError>;

    /// Reads every key that starts with `prefix`.
    fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let mut items = Vec::new();
        let revision = self.scan(prefix, &mut |entry| {
            items.push(KeyValue {
                key: entry.key.to_owned(),
                value: entry.value.to_vec(),
                create_revision: entry.create_revision,
                mod_revision: entry.mod_revision,
            });
        })?;
        Ok(Range { revision, items })
    }

    /// Writes durably; returns the store's revision afterwards. A transaction that changes nothing
    /// leaves the revision as it is.
    fn txn(&self, transaction: &Transaction) -> Result<u64, TxnError>;

    /// Every change of keys that start with `prefix`, from `revision` on (inclusive).
    fn watch(&self, prefix: &str, revision: u64) -> Box<dyn Watch>;
}

/// A stream of changes.
pub trait Watch: Send {
    /// The changes of the next revisions, one at least; waits for them. Cancel-safe: nothing is
    /// lost when the future is dropped.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Commit>, WatchError>>;
}

/// Why a transaction was not written.
#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// A key was not as expected; read it and try again.
    #[error("key {key} is at revision {actual}, not at {expected}")]
    Conflict {
        /// The key.
        key: String,
        /// Revision given.
        expected: u64,
        /// Revision found.
        actual: u64,
    },
    /// A key occurs twice among the writes.
    #[error("key {key} is written twice in one transaction")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The revision asked for is not kept any more: read the range and watch from there.
    #[error("revision {asked} was compacted, the oldest kept is {oldest}")]
    Compacted {
        /// Revision asked for.
        asked: u64,
        /// Oldest revision that a watch can start at.
        oldest: u64,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is damaged.
    #[error(
        "the store {} is corrupted; move it away and start with `lbagent run --import-state BACKUP` \
         (a file that `lbctl state export` wrote). The pinned data plane goes on forwarding until \
         then; a start without the backup begins with nothing published",
        path.display()
    )]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
    /// Another process has it.
    #[error("the store {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A version of lbagent that this one does not know wrote it.
    #[error("the store {} has format {found}, this lbagent knows format {known}; use the lbagent \
             that wrote it, or export the state there and import it here", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// A write that was told to have failed is in the file.
    #[error(
        "the store {} has revision {found}, the agent {known}: a change that seemed to have failed was \
         written; restart the agent, which reads the store anew", path.display()
    )]
    Diverged {
        /// The file.
        path: PathBuf,
        /// Its revision.
        found: u64,
        /// That of the last write that was told to have succeeded.
        known: u64,
    },
    /// Reading or writing failed.
    #[error("cannot {operation} the store {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
}
