//! A change in the making: edits on a copy, which become one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use lbagent_api::Selector;
use lbagent_api::certificate::Secret;
use lbagent_api::events::Author;
use uuid::Uuid;

use super::snapshot::{AddressUse, Snapshot};
use super::{
    Account, Caller, Certificate, Claim, DesiredState, Instance, ServiceGroup, Token, keys,
};
use crate::store::{Compare, Op, Transaction};

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
        self.state().claims.get(key)
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
        self.edit().claims.insert(&key, claim);
        self.write(key, &claim);
    }

    pub(super) fn release(&mut self, key: String) {
        self.edit().claims.remove(&key);
        self.remove(key);
    }

    /// Whose instances are at an address. The transaction fails when that changes meanwhile.
    pub(super) fn address_account(&mut self, address: IpAddr) -> Option<Uuid> {
        self.expects.insert(keys::address(address));
        let user = *self.users(address).first()?;
        let instance = self.state().instances.get(&user);
        instance.map(|instance| instance.account)
    }

    /// The instances at an address, in order.
    fn users(&self, address: IpAddr) -> Vec<Uuid> {
        let from = (address, Uuid::nil());
        let users = self
            .snapshot
            .addresses
            .range(&from, &(address, Uuid::max()));
        users.map(|((_, instance), ())| *instance).collect()
    }

    pub(super) fn claim_addresses(&mut self, instance: &Instance) {
        for address in instance.addresses.iter().map(IpNetwork::ip) {
            let claim = (address, instance.uuid);
            if self.snapshot.addresses.insert(claim, ()).is_none() {
                self.write_users(address, instance.account);
            }
        }
    }

    pub(super) fn release_addresses(&mut self, instance: &Instance) {
        for address in instance.addresses.iter().map(IpNetwork::ip) {
            let claim = (address, instance.uuid);
            if self.snapshot.addresses.remove(&claim).is_some() {
                self.write_users(address, instance.account);
            }
        }
    }

    fn write_users(&mut self, address: IpAddr, account: Uuid) {
        let (key, instances) = (keys::address(address), self.users(address));
        match instances.is_empty() {
            true => self.remove(key),
            false => self.write(key, &AddressUse { account, instances }),
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

    /// What to write, if anything, and what the store holds then.
    pub(super) fn finish(self, by: &Author) -> Option<(Transaction, Snapshot)> {
        let Self {
            snapshot,
            writes,
            expects,
        } = self;
        if writes.is_empty() {
            return None;
        }
        let keys: BTreeSet<&String> = writes.keys().chain(&expects).collect();
        let compare = |key: &String| Compare {
            mod_revision: snapshot.state.revision(key),
            key: key.clone(),
        };
        let compares = keys.into_iter().map(compare).collect();
        let op = |(key, value)| match value {
            Some(value) => Op::Put { key, value },
            None => Op::Delete { key },
        };
        let ops = writes.into_iter().map(op).collect();
        let by = by.clone();
        Some((Transaction { compares, ops, by }, snapshot))
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
