//! What the store holds, in memory.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::stored::DesiredError;
use super::terminator::{StoredAuthority, TicketSecret};
use super::{Account, Certificate, DesiredState, Instance, ServiceGroup, SharedMap, keys};
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
        let mut snapshot = Self::default();
        let mut state = DesiredState::default();
        let mut unreadable = None;
        state.generation = store.scan("/", &mut |entry| {
            if unreadable.is_some() {
                return;
            }
            show(entry);
            match snapshot.take(&mut state, entry) {
                Ok(()) => drop(state.revisions.insert(entry.key, entry.mod_revision)),
                Err(source) => unreadable = Some((entry.key.to_owned(), source)),
            }
        })?;
        if let Some((key, source)) = unreadable {
            return Err(DesiredError::Unreadable { key, source });
        }
        state.compact();
        snapshot.addresses.compact();
        snapshot.state = Arc::new(state);
        Ok(snapshot)
    }

    fn take(&mut self, state: &mut DesiredState, entry: Entry<'_>) -> serde_json::Result<()> {
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
            state.put_group(group);
        } else if key.starts_with(keys::INSTANCES) {
            let instance: Instance = serde_json::from_slice(value)?;
            state.put_instance(instance);
        } else if key.starts_with(keys::CERTIFICATES) {
            let certificate: Certificate = serde_json::from_slice(value)?;
            state.put_certificate(certificate);
        } else if is_claim {
            state.claims.insert(key, serde_json::from_slice(value)?);
        } else if key.starts_with(keys::ACCOUNTS) {
            let account: Account = serde_json::from_slice(value)?;
            state.access.accounts.insert(account.uuid, account);
        } else if key.starts_with(keys::TOKENS) {
            state.access.put_token(serde_json::from_slice(value)?);
        } else if let Some(address) = key.strip_prefix(keys::ADDRESSES) {
            let users: AddressUse = serde_json::from_slice(value)?;
            let address = address.parse().map_err(serde::de::Error::custom)?;
            for instance in users.instances {
                self.addresses.insert((address, instance), ());
            }
        } else if key == keys::HASH_SEED {
            self.hash_seed = Some(serde_json::from_slice(value)?);
        } else if key == keys::TICKET_KEYS {
            self.ticket_keys = serde_json::from_slice(value)?;
        } else if key == keys::AUTHORITY {
            self.authority = Some(serde_json::from_slice(value)?);
        } else if key == keys::SCHEMA {
            self.schema = Some(serde_json::from_slice(value)?);
        }
        // Other keys belong to a newer version and are left alone.
        Ok(())
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
