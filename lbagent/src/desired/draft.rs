//! A change in the making: edits on a copy, which become one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lbagent_api::Selector;
use lbagent_api::certificate::Secret;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::stored::DesiredError;
use super::terminator::{StoredAuthority, TicketSecret};
use super::{
    Account, Caller, Certificate, Claim, DesiredState, Instance, ServiceGroup, SharedMap, Token,
    keys,
};
use crate::store::{Compare, KeyValue, Op, Range, Transaction};

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
    /// Who uses each address, by its key.
    addresses: SharedMap<String, AddressUse>,
}

/// The instances at an address. Several of one account may share it, in different groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressUse {
    account: Uuid,
    /// In order: one, nearly always, which a set would spend a dozen places on.
    instances: Vec<Uuid>,
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
            state.revisions.insert(&item.key, item.mod_revision);
        }
        state.compact();
        snapshot.addresses.compact();
        snapshot.state = Arc::new(state);
        Ok(snapshot)
    }

    fn read(&mut self, state: &mut DesiredState, item: &KeyValue) -> serde_json::Result<()> {
        let claims = [
            keys::NAMES,
            keys::DOMAINS,
            keys::PORTS,
            keys::CERTIFICATE_USES,
        ];
        let is_claim = claims.iter().any(|prefix| item.key.starts_with(prefix));
        if item.key.starts_with(keys::GROUPS) {
            let group: ServiceGroup = serde_json::from_slice(&item.value)?;
            state.put_group(group);
        } else if item.key.starts_with(keys::INSTANCES) {
            let instance: Instance = serde_json::from_slice(&item.value)?;
            state.put_instance(instance);
        } else if item.key.starts_with(keys::CERTIFICATES) {
            let certificate: Certificate = serde_json::from_slice(&item.value)?;
            state.put_certificate(certificate);
        } else if is_claim {
            let owner = serde_json::from_slice(&item.value)?;
            state.claims.insert(item.key.clone(), owner);
        } else if item.key.starts_with(keys::ACCOUNTS) {
            let account: Account = serde_json::from_slice(&item.value)?;
            state.access.accounts.insert(account.uuid, account);
        } else if item.key.starts_with(keys::TOKENS) {
            state.access.put_token(serde_json::from_slice(&item.value)?);
        } else if item.key.starts_with(keys::ADDRESSES) {
            let users = serde_json::from_slice(&item.value)?;
            self.addresses.insert(item.key.clone(), users);
        } else if item.key == keys::HASH_SEED {
            self.hash_seed = Some(serde_json::from_slice(&item.value)?);
        } else if item.key == keys::TICKET_KEYS {
            self.ticket_keys = serde_json::from_slice(&item.value)?;
        } else if item.key == keys::AUTHORITY {
            self.authority = Some(serde_json::from_slice(&item.value)?);
        } else if item.key == keys::SCHEMA {
            self.schema = Some(serde_json::from_slice(&item.value)?);
        }
        // Other keys belong to a newer version and are left alone.
        Ok(())
    }
}

/// Edits on a copy of a snapshot.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) snapshot: Snapshot,
    /// New value of each key; `None` removes it.
    writes: BTreeMap<String, Option<Vec<u8>>>,
    /// Keys that decisions were based on.
    pub(super) expects: BTreeSet<String>,
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
    pub(super) fn claimed(&mut self, key: &str) -> Option<Claim> {
        self.expects.insert(key.to_owned());
        self.state().claims.get(key).copied()
    }

    /// As [`Self::claimed`], for what only one object can have.
    pub(super) fn owner(&mut self, key: &str) -> Option<Uuid> {
        self.claimed(key)?.owner()
    }

    pub(super) fn claim(&mut self, key: String, owner: Uuid) {
        self.put_claim(key, Claim::Owner(owner));
    }

    /// One more group has a terminated port, or names a certificate.
    pub(super) fn share(&mut self, key: String) {
        let groups = 1 + self.sharers(&key);
        self.put_claim(key, Claim::Shared { groups });
    }

    /// One group less does.
    pub(super) fn unshare(&mut self, key: String) {
        match self.sharers(&key) {
            0 | 1 => self.release(key),
            sharers => {
                let groups = sharers - 1;
                self.put_claim(key, Claim::Shared { groups });
            }
        }
    }

    fn sharers(&mut self, key: &str) -> u32 {
        match self.claimed(key) {
            Some(Claim::Shared { groups }) => groups,
            Some(Claim::Owner(_)) | None => 0,
        }
    }

    fn put_claim(&mut self, key: String, claim: Claim) {
        self.write(key.clone(), &claim);
        self.edit().claims.insert(key, claim);
    }

    pub(super) fn release(&mut self, key: String) {
        self.edit().claims.remove(&key);
        self.remove(key);
    }

    /// Whose instances are at an address. The transaction fails when that changes meanwhile.
    pub(super) fn address_account(&mut self, address: IpAddr) -> Option<Uuid> {
        let key = keys::address(address);
        let users = self.snapshot.addresses.get(&key);
        let account = users.map(|users| users.account);
        self.expects.insert(key);
        account
    }

    pub(super) fn claim_addresses(&mut self, instance: &Instance) {
        for address in &instance.addresses {
            let key = keys::address(address.ip());
            let users = self.snapshot.addresses.get(&key).cloned();
            let mut users = users.unwrap_or(AddressUse {
                account: instance.account,
                instances: Vec::new(),
            });
            if let Err(place) = users.instances.binary_search(&instance.uuid) {
                users.instances.insert(place, instance.uuid);
                self.write(key.clone(), &users);
                self.snapshot.addresses.insert(key, users);
            }
        }
    }

    pub(super) fn release_addresses(&mut self, instance: &Instance) {
        for address in &instance.addresses {
            let key = keys::address(address.ip());
            let Some(mut users) = self.snapshot.addresses.get(&key).cloned() else {
                continue;
            };
            users.instances.retain(|user| *user != instance.uuid);
            if users.instances.is_empty() {
                self.snapshot.addresses.remove(&key);
                self.remove(key);
            } else {
                self.write(key.clone(), &users);
                self.snapshot.addresses.insert(key, users);
            }
        }
    }

    pub(super) fn put_group(&mut self, group: ServiceGroup) {
        self.write(keys::group(group.uuid), &group);
        self.edit().put_group(group);
    }

    pub(super) fn remove_group(&mut self, uuid: Uuid) -> Option<ServiceGroup> {
        self.remove(keys::group(uuid));
        self.edit().remove_group(uuid)
    }

    pub(super) fn put_instance(&mut self, instance: Instance) {
        self.write(keys::instance(instance.uuid), &instance);
        self.edit().put_instance(instance);
    }

    pub(super) fn remove_instance(&mut self, uuid: Uuid) -> Option<Instance> {
        self.remove(keys::instance(uuid));
        self.edit().remove_instance(uuid)
    }

    /// The account with a UUID. The transaction fails when that changes meanwhile.
    pub(super) fn account(&mut self, uuid: Uuid) -> Option<Account> {
        self.expects.insert(keys::account(uuid));
        self.state().access.account(uuid)
    }

    pub(super) fn put_account(&mut self, account: Account) {
        self.write(keys::account(account.uuid), &account);
        self.edit().access.accounts.insert(account.uuid, account);
    }

    pub(super) fn remove_account(&mut self, uuid: Uuid) {
        self.remove(keys::account(uuid));
        self.edit().access.accounts.remove(&uuid);
    }

    pub(super) fn put_token(&mut self, token: Token) {
        self.write(keys::token(token.uuid), &token);
        self.edit().access.put_token(token);
    }

    pub(super) fn remove_token(&mut self, uuid: Uuid) -> Option<Token> {
        self.remove(keys::token(uuid));
        self.edit().access.take_token(uuid)
    }

    /// Writes a certificate, and its private key if that changes.
    pub(super) fn put_certificate(&mut self, certificate: Certificate, key: Option<&Secret>) {
        if let Some(key) = key {
            self.write(keys::certificate_key(certificate.uuid), &key.reveal());
        }
        self.write(keys::certificate(certificate.uuid), &certificate);
        self.edit().put_certificate(certificate);
    }

    pub(super) fn remove_certificate(&mut self, uuid: Uuid) -> Option<Certificate> {
        self.remove(keys::certificate_key(uuid));
        self.remove(keys::certificate(uuid));
        self.edit().remove_certificate(uuid)
    }

    pub(super) fn put_hash_seed(&mut self, seed: u64) {
        self.write(keys::HASH_SEED.to_owned(), &seed);
        self.snapshot.hash_seed = Some(seed);
    }

    pub(super) fn hash_seed(&self) -> Option<u64> {
        self.snapshot.hash_seed
    }

    /// The caller's group that a selector names.
    pub(super) fn find_group(
        &mut self,
        caller: Caller,
        selector: &Selector,
    ) -> Option<ServiceGroup> {
        self.expects.insert(match selector {
            Selector::Uuid(uuid) => keys::group(*uuid),
            Selector::Name(name) => keys::group_name(caller.account, name),
        });
        let group = self.state().service_group(caller, selector).cloned()?;
        self.expects.insert(keys::group(group.uuid));
        Some(group)
    }

    /// The caller's instance that a selector names.
    pub(super) fn find_instance(
        &mut self,
        caller: Caller,
        selector: &Selector,
    ) -> Option<Instance> {
        self.expects.insert(match selector {
            Selector::Uuid(uuid) => keys::instance(*uuid),
            Selector::Name(name) => keys::instance_name(caller.account, name),
        });
        let instance = self.state().instance(caller, selector).cloned()?;
        self.expects.insert(keys::instance(instance.uuid));
        Some(instance)
    }

    /// The caller's certificate that a selector names.
    pub(super) fn find_certificate(
        &mut self,
        caller: Caller,
        selector: &Selector,
    ) -> Option<Certificate> {
        self.expects.insert(match selector {
            Selector::Uuid(uuid) => keys::certificate(*uuid),
            Selector::Name(name) => keys::certificate_name(caller.account, name),
        });
        let certificate = self.state().certificate(caller, selector).cloned()?;
        self.expects.insert(keys::certificate(certificate.uuid));
        Some(certificate)
    }

    /// The revision of a key; 0 when there is none. The transaction fails when that changes meanwhile.
    pub(super) fn revision(&mut self, key: String) -> u64 {
        let revision = self.state().revision(&key);
        self.expects.insert(key);
        revision
    }

    /// What to write, if anything.
    pub(super) fn transaction(&self) -> Option<Transaction> {
        if self.writes.is_empty() {
            return None;
        }
        let keys: BTreeSet<&String> = self.writes.keys().chain(&self.expects).collect();
        let compare = |key: &&String| Compare {
            key: (*key).clone(),
            mod_revision: self.state().revision(key),
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
        let state = Arc::make_mut(&mut self.snapshot.state);
        for (key, value) in self.writes {
            match value {
                Some(_) => state.revisions.insert(&key, revision),
                None => state.revisions.remove(&key),
            };
        }
        state.generation = revision;
        self.snapshot
    }

    fn edit(&mut self) -> &mut DesiredState {
        Arc::make_mut(&mut self.snapshot.state)
    }

    pub(super) fn write(&mut self, key: String, value: &impl serde::Serialize) {
        // Only maps with keys that are no strings fail, and these types have none.
        let value = serde_json::to_vec(value).expect("desired objects are valid JSON");
        self.writes.insert(key, Some(value));
    }

    fn remove(&mut self, key: String) {
        if self.state().revisions.get(&key).is_some() {
            self.writes.insert(key, None);
        } else {
            self.writes.remove(&key);
        }
    }
}
