//! What the store holds, in memory.

use std::net::IpAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::revisions::Unordered;
use super::stored::DesiredError;
use super::terminator::{StoredAuthority, TicketSecret};
use super::{
    Account, Certificate, Claim, DesiredState, Instance, Revisions, ServiceGroup, SharedMap, keys,
};
use crate::store::{Entry, Op, Store, StoreError, Transaction};

/// The store's content at one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) state: Arc<DesiredState>,
    pub(super) hash_seed: Option<u64>,
    /// Secrets of session tickets, the newest first.
    pub(super) ticket_keys: Vec<TicketSecret>,
    /// The authority of a development gateway.
    pub(super) authority: Option<StoredAuthority>,
    /// Version of the store's keys and values.
    pub(super) schema: Option<u32>,
    /// Which instances have each address. Several of one account may share it, in different groups.
    pub(super) addresses: SharedMap<(IpAddr, Uuid), ()>,
}

/// Writes of a transaction after which the memory is put in order: as many as an import has.
const MANY: usize = 10_000;

/// The instances at an address, as the store has them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddressUse {
    pub(super) account: Uuid,
    /// In order.
    pub(super) instances: Vec<Uuid>,
}

impl Snapshot {
    /// Reads all that a store holds.
    pub(super) fn read(store: &dyn Store) -> Result<Self, DesiredError> {
        Self::read_with(store, |_| {})
    }

    /// Reads all that a store holds, and shows it to somebody else as well.
    pub(super) fn read_with(
        store: &dyn Store,
        mut show: impl FnMut(Entry<'_>),
    ) -> Result<Self, DesiredError> {
        let mut found = Found::default();
        let (send, portions) = mpsc::sync_channel(PORTIONS);
        thread::scope(|scope| {
            let reading = scope.spawn(move || read_portions(store, &send));
            // What is left when an entry is unreadable goes with `portions`, and its sender ends.
            for portion in portions {
                for entry in portion.entries() {
                    show(entry);
                    found.take(entry).map_err(|source| {
                        let key = entry.key.to_owned();
                        DesiredError::Unreadable { key, source }
                    })?;
                }
            }
            let joined = reading.join();
            let (generation, revisions) = joined.unwrap_or_else(|panic| resume_unwind(panic))?;
            Ok(found.snapshot_at(generation, revisions))
        })
    }

    /// After the transaction that led to it was written at a revision.
    pub(super) fn at(mut self, transaction: &Transaction, revision: u64) -> Self {
        let state = Arc::make_mut(&mut self.state);
        for op in &transaction.ops {
            match op {
                Op::Put { key, .. } => drop(state.revisions.insert(key, revision)),
                Op::Delete { key } => state.revisions.remove(key),
            }
        }
        state.generation = revision;
        if transaction.ops.len() > MANY {
            state.compact();
            self.addresses.compact();
        }
        self
    }
}

/// Portions that wait to be taken up.
const PORTIONS: usize = 2;
/// Bytes of a portion.
const PORTION: usize = 1 << 18;

/// Some of a store's entries, read by one thread while another takes up those before: of many thousand
/// objects, reading takes as long as understanding.
#[derive(Default)]
struct Portion {
    keys: String,
    values: Vec<u8>,
    /// The ends of key and value, and the revisions.
    entries: Vec<([usize; 2], [u64; 2])>,
}

impl Portion {
    fn push(&mut self, entry: Entry<'_>) {
        self.keys.push_str(entry.key);
        self.values.extend_from_slice(entry.value);
        let ends = [self.keys.len(), self.values.len()];
        self.entries
            .push((ends, [entry.create_revision, entry.mod_revision]));
    }

    fn is_full(&self) -> bool {
        self.keys.len() + self.values.len() >= PORTION
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut starts = [0; 2];
        self.entries.iter().map(move |(ends, revisions)| {
            let [key, value] = std::mem::replace(&mut starts, *ends);
            Entry {
                key: &self.keys[key..ends[0]],
                value: &self.values[value..ends[1]],
                create_revision: revisions[0],
                mod_revision: revisions[1],
            }
        })
    }
}

/// Reads a whole store; returns its revision and those of its keys.
fn read_portions(
    store: &dyn Store,
    portions: &SyncSender<Portion>,
) -> Result<(u64, Revisions), StoreError> {
    let mut portion = Portion::default();
    let mut revisions = Unordered::default();
    // Whoever takes them up may have found one that is unreadable, and want no more.
    let send = |portion| drop(portions.send(portion));
    let generation = store.scan("/", &mut |entry| {
        revisions.push(entry.key, entry.mod_revision);
        portion.push(entry);
        if portion.is_full() {
            send(std::mem::take(&mut portion));
        }
    })?;
    send(portion);
    Ok((generation, revisions.into()))
}

/// What is found while a store is read. Indexes are made at its end: to keep them up meanwhile would take
/// longer than everything else.
#[derive(Default)]
struct Found {
    /// Objects alone.
    state: DesiredState,
    claims: Unordered<Claim>,
    addresses: Vec<((IpAddr, Uuid), ())>,
    /// All else of the snapshot.
    beside: Snapshot,
}

impl Found {
    fn take(&mut self, entry: Entry<'_>) -> serde_json::Result<()> {
        let Entry { key, value, .. } = entry;
        let claims = [
            keys::NAMES,
            keys::DOMAINS,
            keys::PORTS,
            keys::CERTIFICATE_USES,
        ];
        let is_claim = claims.iter().any(|prefix| key.starts_with(prefix));
        if key.starts_with(keys::GROUPS) {
            let group: ServiceGroup = serde_json::from_slice(value)?;
            self.state.service_groups.insert(group.uuid, group);
        } else if key.starts_with(keys::INSTANCES) {
            let mut instance: Instance = serde_json::from_slice(value)?;
            instance.pack();
            self.state.instances.insert(instance.uuid, instance);
        } else if key.starts_with(keys::CERTIFICATES) {
            let certificate: Certificate = serde_json::from_slice(value)?;
            let certificates = &mut self.state.certificates;
            certificates.insert(certificate.uuid, certificate);
        } else if is_claim {
            self.claims.push(key, serde_json::from_slice(value)?);
        } else if key.starts_with(keys::ACCOUNTS) {
            let account: Account = serde_json::from_slice(value)?;
            let accounts = &mut self.state.access.accounts;
            accounts.insert(account.uuid, account);
        } else if key.starts_with(keys::TOKENS) {
            self.state.access.put_token(serde_json::from_slice(value)?);
        } else if let Some(address) = key.strip_prefix(keys::ADDRESSES) {
            let users: AddressUse = serde_json::from_slice(value)?;
            let address = address.parse().map_err(serde::de::Error::custom)?;
            let users = users.instances.into_iter();
            self.addresses
                .extend(users.map(|instance| ((address, instance), ())));
        } else if key == keys::HASH_SEED {
            self.beside.hash_seed = Some(serde_json::from_slice(value)?);
        } else if key == keys::TICKET_KEYS {
            self.beside.ticket_keys = serde_json::from_slice(value)?;
        } else if key == keys::AUTHORITY {
            self.beside.authority = Some(serde_json::from_slice(value)?);
        } else if key == keys::SCHEMA {
            self.beside.schema = Some(serde_json::from_slice(value)?);
        }
        // Other keys belong to a newer version and are left alone.
        Ok(())
    }

    fn snapshot_at(self, generation: u64, revisions: Revisions) -> Snapshot {
        let mut state = DesiredState {
            generation,
            claims: self.claims.into(),
            revisions,
            ..self.state
        };
        state.make_index();
        Snapshot {
            state: Arc::new(state),
            addresses: self.addresses.into_iter().collect(),
            ..self.beside
        }
    }
}
