//! The store of a single gateway: one redb file.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
};
use time::OffsetDateTime;

use super::history::{History, KEPT_EVENTS};
use super::{Commit, Entry, Event, KeyValue, Op, Store, StoreError, Transaction, TxnError, Watch};

/// Key to (create revision, mod revision, value).
const VALUES: TableDefinition<&str, (u64, u64, &[u8])> = TableDefinition::new("values");
/// What holds for the store as a whole.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// In `META`: version of this layout.
const FORMAT: &str = "format";
/// In `META`: the store's revision.
const REVISION: &str = "revision";
/// The layout above. The desired state's keys tell their own schema; that a file of format 1 becomes
/// one of format 2 with the first write only keeps the lbagent out that knows of no schema.
const KNOWN_FORMAT: u64 = 2;
/// Formats that can be read.
const READABLE_FORMATS: std::ops::RangeInclusive<u64> = 1..=KNOWN_FORMAT;

/// Bytes of the file that are kept in memory. All that is in it is in memory as objects already, and
/// is read once, at the start.
const CACHE: usize = 4 << 20;

/// One file, no server.
pub struct RedbStore {
    /// `None` after a failure, until a write opens it again.
    database: RwLock<Option<Database>>,
    path: PathBuf,
    history: Arc<History>,
}

impl RedbStore {
    /// Opens the file, or makes an empty one, readable by this user only.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = open_database(path)?;
        let revision = prepare(&database, path)?;
        Ok(Self {
            database: RwLock::new(Some(database)),
            path: path.to_owned(),
            history: Arc::new(History::new(revision)),
        })
    }

    /// What `work` makes of the open database.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(redb::Error::PreviousIo)?;
        work(database)
    }

    /// Writes, if need be to a file that is opened again: after a failure, such as that of a full disk,
    /// redb takes no more writes before.
    fn write_again(&self, transaction: &Transaction) -> Result<Written, StoreError> {
        let write = || self.with(|database| write(database, transaction));
        let written = match write() {
            Err(redb::Error::PreviousIo) => {
                self.reopen()?;
                write()
            }
            written => written,
        };
        written.map_err(|error| failed(&self.path, "write", error))
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut place = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The file can be open once only.
        *place = None;
        let database = open_database(&self.path)?;
        let found = prepare(&database, &self.path)?;
        let known = self.history.latest();
        if found != known {
            return Err(StoreError::Diverged {
                path: self.path.clone(),
                found,
                known,
            });
        }
        *place = Some(database);
        tracing::info!(path = %self.path.display(), "opened the store again after a failure");
        Ok(())
    }
}

/// Makes the tables of a new file; returns the revision.
fn prepare(database: &Database, path: &Path) -> Result<u64, StoreError> {
    let prepare = || -> Result<(u64, u64), redb::Error> {
        let transaction = database.begin_write()?;
        let (format, revision);
        {
            transaction.open_table(VALUES)?;
            let mut meta = transaction.open_table(META)?;
            let found = meta.get(FORMAT)?.map(|value| value.value());
            if found.is_none() {
                meta.insert(FORMAT, KNOWN_FORMAT)?;
                meta.insert(REVISION, 0)?;
            }
            format = found.unwrap_or(KNOWN_FORMAT);
            revision = meta.get(REVISION)?.map_or(0, |value| value.value());
        }
        transaction.commit()?;
        Ok((format, revision))
    };
    let (found, revision) = prepare().map_err(|error| failed(path, "read", error))?;
    if !READABLE_FORMATS.contains(&found) {
        return Err(StoreError::Format {
            path: path.to_owned(),
            found,
            known: KNOWN_FORMAT,
        });
    }
    Ok(revision)
}

fn write(database: &Database, transaction: &Transaction) -> Result<Written, redb::Error> {
    let mut write = database.begin_write()?;
    // With a single phase, a damaged page of the last transaction cannot be told from a commit
    // that a power failure interrupted, and the transaction would be rolled back silently.
    write.set_two_phase_commit(true);
    let (revision, events);
    {
        let mut values = write.open_table(VALUES)?;
        for compare in &transaction.compares {
            let found = values.get(compare.key.as_str())?;
            let actual = found.map_or(0, |value| value.value().1);
            if actual != compare.mod_revision {
                return Ok(Written::Conflict(TxnError::Conflict {
                    key: compare.key.clone(),
                    expected: compare.mod_revision,
                    actual,
                }));
            }
        }
        let mut meta = write.open_table(META)?;
        let current = meta.get(REVISION)?.map_or(0, |value| value.value());
        revision = current + 1;
        let mut told = (transaction.ops.len() <= KEPT_EVENTS).then(Vec::new);
        if !apply(&mut values, &transaction.ops, revision, &mut told)? {
            return Ok(Written::Unchanged(current));
        }
        events = told;
        meta.insert(REVISION, revision)?;
        meta.insert(FORMAT, KNOWN_FORMAT)?;
    }
    write.commit()?;
    Ok(Written::Done { revision, events })
}

fn failed(path: &Path, operation: &'static str, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::Corrupted(_) => StoreError::Corrupted {
            path,
            source: error.into(),
        },
        error => StoreError::Io {
            path,
            operation,
            source: error.into(),
        },
    }
}

/// How a transaction ended.
enum Written {
    Done {
        revision: u64,
        events: Option<Vec<Event>>,
    },
    Unchanged(u64),
    Conflict(TxnError),
}

/// Writes all operations at one revision; returns whether that changed anything. `events` takes what
/// changed, if it is to be told.
fn apply(
    values: &mut Table<'_, &'static str, (u64, u64, &'static [u8])>,
    ops: &[Op],
    revision: u64,
    events: &mut Option<Vec<Event>>,
) -> Result<bool, redb::Error> {
    let mut is_changed = false;
    for op in ops {
        match op {
            Op::Put { key, value } => {
                let found = values.get(key.as_str())?;
                let former = |bytes: &[u8]| events.is_some().then(|| bytes.to_vec());
                let found = found.map(|value| (value.value().0, former(value.value().2)));
                let (created, previous) = found.unzip();
                let create_revision = created.unwrap_or(revision);
                values.insert(key.as_str(), (create_revision, revision, value.as_slice()))?;
                is_changed = true;
                if let Some(events) = events {
                    let item = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision,
                        mod_revision: revision,
                    };
                    let previous = previous.flatten();
                    events.push(Event::Put { item, previous });
                }
            }
            Op::Delete { key } => {
                if let Some(previous) = values.remove(key.as_str())? {
                    is_changed = true;
                    if let Some(events) = events {
                        events.push(Event::Delete {
                            key: key.clone(),
                            revision,
                            previous: previous.value().2.to_vec(),
                        });
                    }
                }
            }
        }
    }
    Ok(is_changed)
}

impl Store for RedbStore {
    fn scan(&self, prefix: &str, each: &mut dyn FnMut(Entry<'_>)) -> Result<u64, StoreError> {
        let read = |database: &Database| -> Result<u64, redb::Error> {
            let transaction = database.begin_read()?;
            let meta = transaction.open_table(META)?;
            let revision = meta.get(REVISION)?.map_or(0, |value| value.value());
            for entry in transaction.open_table(VALUES)?.range(prefix..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                let (create_revision, mod_revision, value) = value.value();
                each(Entry {
                    key: key.value(),
                    value,
                    create_revision,
                    mod_revision,
                });
            }
            Ok(revision)
        };
        self.with(read)
            .map_err(|error| failed(&self.path, "read", error))
    }

    fn txn(&self, transaction: &Transaction) -> Result<u64, TxnError> {
        let mut keys: Vec<&str> = transaction.ops.iter().map(Op::key).collect();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(TxnError::DuplicateKey {
                key: pair[0].to_owned(),
            });
        }
        let _order = self.history.writing();
        match self.write_again(transaction)? {
            Written::Done { revision, events } => {
                let commit = events.map(|events| Commit {
                    at: OffsetDateTime::now_utc(),
                    by: Arc::new(transaction.by.clone()),
                    events,
                });
                self.history.push(revision, commit);
                Ok(revision)
            }
            Written::Unchanged(revision) => Ok(revision),
            Written::Conflict(conflict) => Err(conflict),
        }
    }

    fn watch(&self, prefix: &str, revision: u64) -> Box<dyn Watch> {
        Box::new(self.history.watch(prefix, revision))
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let io = |operation| {
        move |error: std::io::Error| StoreError::Io {
            path: path.to_owned(),
            operation,
            source: error.into(),
        }
    };
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(io("create"))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io("open"))?;
    // A damaged file can make redb panic rather than return an error.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let is_repaired = Arc::new(AtomicBool::new(false));
        let repairs = Arc::clone(&is_repaired);
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        builder.set_repair_callback(move |_| repairs.store(true, Ordering::Relaxed));
        let mut database = builder.create_file(file)?;
        // Checksums of every page: a damaged page is found now, not when it is needed. The repair of a
        // file that was not closed has just looked at them.
        if !is_repaired.load(Ordering::Relaxed) {
            database.check_integrity()?;
        }
        Ok(database)
    }));
    let corrupted = |source: anyhow::Error| StoreError::Corrupted {
        path: path.to_owned(),
        source,
    };
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(StoreError::InUse {
            path: path.to_owned(),
        }),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error))))
            if error.kind() != std::io::ErrorKind::InvalidData
                && error.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            Err(io("open")(error))
        }
        Ok(Err(error)) => Err(corrupted(error.into())),
        Err(_) => Err(corrupted(anyhow::anyhow!(
            "the file's structure is damaged"
        ))),
    }
}
