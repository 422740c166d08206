//! What the store holds, in memory.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::revisions::Unordered;
use super::stored::DesiredError;
use super::terminator::{StoredAuthority, TicketSecret};
use super::{Account, Certificate, Claim, DesiredState, Instance, ServiceGroup, SharedMap, keys};
use crate::store::{Entry, Op, Store, Transaction};

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
        let mut unreadable = None;
        let generation = store.scan("/", &mut |entry| {
            if unreadable.is_some() {
                return;
            }
            show(entry);
            match found.take(entry) {
                Ok(()) => found.revisions.push(entry.key, entry.mod_revision),
                Err(source) => unreadable = Some((entry.key.to_owned(), source)),
            }
        })?;
        match unreadable {
            Some((key, source)) => Err(DesiredError::Unreadable { key, source }),
            None => Ok(found.snapshot_at(generation)),
        }
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

/// What is found while a store is read. Indexes are made at its end: to keep them up meanwhile would take
/// longer than everything else.
#[derive(Default)]
struct Found {
    /// Objects alone.
    state: DesiredState,
    claims: Unordered<Claim>,
    revisions: Unordered<u64>,
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

    fn snapshot_at(self, generation: u64) -> Snapshot {
        let mut state = DesiredState {
            generation,
            claims: self.claims.into(),
            revisions: self.revisions.into(),
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
