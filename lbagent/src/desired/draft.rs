//! A change in the making: edits on a copy, which become one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lbagent_api::Selector;
use uuid::Uuid;

use super::stored::DesiredError;
use super::{DesiredState, Instance, ServiceGroup, SharedMap, keys};
use crate::store::{Compare, KeyValue, Op, Range, Transaction};

/// The store's content at one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) state: Arc<DesiredState>,
    pub(super) hash_seed: Option<u64>,
    /// Owners of names, domains and ports.
    claims: SharedMap<String, Uuid>,
    /// `mod_revision` of every key.
    revisions: SharedMap<String, u64>,
}

impl Snapshot {
    pub(super) fn from_range(range: Range) -> Result<Self, DesiredError> {
        let mut snapshot = Self::default();
        let mut state = DesiredState {
            generation: range.revision,
            ..DesiredState::default()
        };
        for item in range.items {
            snapshot
                .read(&mut state, &item)
                .map_err(|source| DesiredError::Unreadable {
                    key: item.key.clone(),
                    source,
                })?;
            snapshot.revisions.insert(item.key, item.mod_revision);
        }
        snapshot.state = Arc::new(state);
        Ok(snapshot)
    }

    fn read(&mut self, state: &mut DesiredState, item: &KeyValue) -> serde_json::Result<()> {
        let is_claim = [keys::NAMES, keys::DOMAINS, keys::PORTS]
            .iter()
            .any(|prefix| item.key.starts_with(prefix));
        if item.key.starts_with(keys::GROUPS) {
            let group: ServiceGroup = serde_json::from_slice(&item.value)?;
            state.service_groups.insert(group.uuid, group);
        } else if item.key.starts_with(keys::INSTANCES) {
            let instance: Instance = serde_json::from_slice(&item.value)?;
            state.instances.insert(instance.uuid, instance);
        } else if is_claim {
            self.claims
                .insert(item.key.clone(), serde_json::from_slice(&item.value)?);
        } else if item.key == keys::HASH_SEED {
            self.hash_seed = Some(serde_json::from_slice(&item.value)?);
        }
        // Other keys belong to a newer version and are left alone.
        Ok(())
    }
}

/// Edits on a copy of a snapshot.
#[derive(Debug)]
pub(super) struct Draft {
    snapshot: Snapshot,
    /// New value of each key; `None` removes it.
    writes: BTreeMap<String, Option<Vec<u8>>>,
    /// Keys that decisions were based on.
    expects: BTreeSet<String>,
}

impl Draft {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            writes: BTreeMap::new(),
            expects: BTreeSet::new(),
        }
    }

    pub(super) fn state(&self) -> &DesiredState {
        &self.snapshot.state
    }

    /// Who has a name, a domain or a port. The transaction fails when that changes meanwhile.
    pub(super) fn owner(&mut self, key: &str) -> Option<Uuid> {
        self.expects.insert(key.to_owned());
        self.snapshot.claims.get(key).copied()
    }

    pub(super) fn claim(&mut self, key: String, owner: Uuid) {
        self.write(key.clone(), &owner);
        self.snapshot.claims.insert(key, owner);
    }

    pub(super) fn release(&mut self, key: String) {
        self.snapshot.claims.remove(&key);
        self.remove(key);
    }

    pub(super) fn put_group(&mut self, group: ServiceGroup) {
        self.write(keys::group(group.uuid), &group);
        self.edit().service_groups.insert(group.uuid, group);
    }

    pub(super) fn remove_group(&mut self, uuid: Uuid) -> Option<ServiceGroup> {
        self.remove(keys::group(uuid));
        self.edit().service_groups.remove(&uuid)
    }

    pub(super) fn put_instance(&mut self, instance: Instance) {
        self.write(keys::instance(instance.uuid), &instance);
        self.edit().instances.insert(instance.uuid, instance);
    }

    pub(super) fn remove_instance(&mut self, uuid: Uuid) -> Option<Instance> {
        self.remove(keys::instance(uuid));
        self.edit().instances.remove(&uuid)
    }

    pub(super) fn put_hash_seed(&mut self, seed: u64) {
        self.write(keys::HASH_SEED.to_owned(), &seed);
        self.snapshot.hash_seed = Some(seed);
    }

    pub(super) fn hash_seed(&self) -> Option<u64> {
        self.snapshot.hash_seed
    }

    /// The group that a selector names.
    pub(super) fn find_group(&mut self, selector: &Selector) -> Option<ServiceGroup> {
        let uuid = match selector {
            Selector::Uuid(uuid) => *uuid,
            Selector::Name(name) => self.owner(&keys::group_name(name))?,
        };
        self.expects.insert(keys::group(uuid));
        self.state().service_groups.get(&uuid).cloned()
    }

    /// The instance that a selector names.
    pub(super) fn find_instance(&mut self, selector: &Selector) -> Option<Instance> {
        let uuid = match selector {
            Selector::Uuid(uuid) => *uuid,
            Selector::Name(name) => self.owner(&keys::instance_name(name))?,
        };
        self.expects.insert(keys::instance(uuid));
        self.state().instances.get(&uuid).cloned()
    }

    /// What to write, if anything.
    pub(super) fn transaction(&self) -> Option<Transaction> {
        if self.writes.is_empty() {
            return None;
        }
        let keys: BTreeSet<&String> = self.writes.keys().chain(&self.expects).collect();
        let compare = |key: &&String| Compare {
            key: (*key).clone(),
            mod_revision: self.snapshot.revisions.get(*key).copied().unwrap_or(0),
        };
        let op = |(key, value): (&String, &Option<Vec<u8>>)| match value.clone() {
            Some(value) => Op::Put {
                key: key.clone(),
                value,
            },
            None => Op::Delete { key: key.clone() },
        };
        Some(Transaction {
            compares: keys.iter().map(compare).collect(),
            ops: self.writes.iter().map(op).collect(),
        })
    }

    /// The store's content after the transaction was written at a revision.
    pub(super) fn committed(mut self, revision: u64) -> Snapshot {
        for (key, value) in self.writes {
            match value {
                Some(_) => self.snapshot.revisions.insert(key, revision),
                None => self.snapshot.revisions.remove(&key),
            };
        }
        Arc::make_mut(&mut self.snapshot.state).generation = revision;
        self.snapshot
    }

    fn edit(&mut self) -> &mut DesiredState {
        Arc::make_mut(&mut self.snapshot.state)
    }

    fn write(&mut self, key: String, value: &impl serde::Serialize) {
        // Only maps with keys that are no strings fail, and these types have none.
        let value = serde_json::to_vec(value).expect("desired objects are valid JSON");
        self.writes.insert(key, Some(value));
    }

    fn remove(&mut self, key: String) {
        if self.snapshot.revisions.contains_key(&key) {
            self.writes.insert(key, None);
        } else {
            self.writes.remove(&key);
        }
    }
}
