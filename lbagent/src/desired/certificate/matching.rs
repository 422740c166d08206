//! Which certificate a domain is served with.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::Certificate;
use crate::desired::{DesiredState, ServiceGroup};

/// Whether a certificate's name is for a domain: the same, or a wildcard in place of its first label.
pub(super) fn covers(name: &str, fqdn: &str) -> bool {
    name == fqdn || wildcard(fqdn).is_some_and(|wildcard| wildcard == name)
}

fn wildcard(fqdn: &str) -> Option<String> {
    let (label, parent) = fqdn.split_once('.')?;
    (label != "*").then(|| format!("*.{parent}"))
}

/// The certificates of one account by the names that they are for.
#[derive(Debug)]
pub struct Matcher<'a> {
    by_name: HashMap<&'a str, &'a Certificate>,
}

impl<'a> Matcher<'a> {
    /// Costs one look at each certificate of the account.
    pub fn new(state: &'a DesiredState, account: Uuid) -> Self {
        let mut by_name: HashMap<&str, &Certificate> = HashMap::new();
        let certificates = state.certificates.values();
        for certificate in certificates.filter(|certificate| certificate.account == account) {
            for name in &certificate.names {
                let best = by_name.entry(name).or_insert(certificate);
                // The one that lasts longest: a replacement wins before the old one is deleted.
                let rank = |it: &Certificate| (it.not_after, it.created_at, it.uuid);
                if rank(certificate) > rank(best) {
                    *best = certificate;
                }
            }
        }
        Self { by_name }
    }

    /// The certificate for a domain: one with exactly this name, else one with the wildcard above it.
    pub fn find(&self, fqdn: &str) -> Option<&'a Certificate> {
        let exact = self.by_name.get(fqdn).copied();
        exact.or_else(|| self.by_name.get(wildcard(fqdn)?.as_str()).copied())
    }
}

/// The service groups of an account that each of its certificates is used by.
pub fn attached(state: &DesiredState, account: Uuid) -> BTreeMap<Uuid, Vec<&ServiceGroup>> {
    let matcher = Matcher::new(state, account);
    let mut groups: BTreeMap<Uuid, Vec<&ServiceGroup>> = BTreeMap::new();
    let all = state.service_groups.values();
    for group in all.filter(|group| group.account == account) {
        for domain in &group.domains {
            if let Some(certificate) = matcher.find(&domain.fqdn) {
                let groups = groups.entry(certificate.uuid).or_default();
                // The domains of a group come one after the other.
                if groups.last().is_none_or(|last| last.uuid != group.uuid) {
                    groups.push(group);
                }
            }
        }
    }
    groups
}
