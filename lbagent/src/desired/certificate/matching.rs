//! Which certificate a domain is served with: the one that it names, else the best one of the
//! account that is for it.

use std::collections::BTreeMap;

use lbagent_api::Selector;
use uuid::Uuid;

use super::{Certificate, CertificateError};
use crate::desired::draft::Draft;
use crate::desired::{Caller, DesiredState, Domain, ServiceGroup};

/// Whether a certificate's name is for a domain: the same, or a wildcard in place of its first label.
pub(super) fn covers(name: &str, fqdn: &str) -> bool {
    name == fqdn || wildcard(fqdn).is_some_and(|wildcard| wildcard == name)
}

fn wildcard(fqdn: &str) -> Option<String> {
    let (label, parent) = fqdn.split_once('.')?;
    (label != "*").then(|| format!("*.{parent}"))
}

impl Certificate {
    /// Whether it is for a domain.
    pub fn is_for(&self, fqdn: &str) -> bool {
        self.names.iter().any(|name| covers(name, fqdn))
    }
}

impl DesiredState {
    /// The certificate that a domain of an account's group is served with: the one that it names;
    /// else one with exactly its name, else one with the wildcard above it, and of several the one
    /// that lasts longest.
    pub fn certificate_for(&self, account: Uuid, domain: &Domain) -> Option<&Certificate> {
        self.named_certificate(account, domain).or_else(|| {
            let best = |name: &str| self.certificates_named(account, name).next_back();
            best(&domain.fqdn).or_else(|| best(&wildcard(&domain.fqdn)?))
        })
    }

    /// The account's other certificates for the name that the domain's own was found by, the best
    /// one first; none if the domain names its certificate. Their keys may be of another kind.
    pub fn alternatives_for(&self, account: Uuid, domain: &Domain) -> Vec<&Certificate> {
        if domain.certificate.is_some() {
            return Vec::new();
        }
        let others = |name: &str| {
            let named = self.certificates_named(account, name).rev();
            named.collect::<Vec<_>>()
        };
        let mut found = others(&domain.fqdn);
        if found.is_empty() {
            found = wildcard(&domain.fqdn)
                .map(|wildcard| others(&wildcard))
                .unwrap_or_default();
        }
        found.into_iter().skip(1).collect()
    }

    fn named_certificate(&self, account: Uuid, domain: &Domain) -> Option<&Certificate> {
        let selector = domain.certificate.as_ref()?.selector().ok()??;
        self.certificate(Caller::operator(account), &selector)
    }
}

/// The service groups of an account that each of its certificates is used by.
pub fn attached(state: &DesiredState, account: Uuid) -> BTreeMap<Uuid, Vec<&ServiceGroup>> {
    let mut groups: BTreeMap<Uuid, Vec<&ServiceGroup>> = BTreeMap::new();
    for group in state.service_groups_of(Caller::operator(account)) {
        for domain in &group.domains {
            if let Some(certificate) = state.certificate_for(account, domain) {
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

/// Puts UUIDs in the place of what domains call their certificates, so that these can be deleted
/// only when no domain names them. Domains that the group has already stay as they are.
pub(in crate::desired) fn choose(
    draft: &mut Draft,
    caller: Caller,
    domains: &mut [Domain],
    former: &[Domain],
) -> Result<(), CertificateError> {
    let new = domains.iter_mut().filter(|it| !former.contains(it));
    for domain in new {
        chosen(domain, |selector| draft.find_certificate(caller, selector))?;
    }
    Ok(())
}

/// As [`choose`], for one domain and wherever certificates are found.
pub(in crate::desired) fn chosen(
    domain: &mut Domain,
    find: impl FnOnce(&Selector) -> Option<Certificate>,
) -> Result<(), CertificateError> {
    // A request is valid before it comes here.
    let asked = domain.certificate.as_ref();
    let Some(selector) = asked.and_then(|asked| asked.selector().ok()?) else {
        return Ok(());
    };
    let fqdn = domain.fqdn.clone();
    let Some(certificate) = find(&selector) else {
        return Err(CertificateError::NoneForDomain { fqdn, selector });
    };
    if !certificate.is_for(&fqdn) {
        return Err(CertificateError::NotForDomain {
            name: certificate.name,
            fqdn,
            names: certificate.names,
        });
    }
    domain.certificate = Some((&Selector::Uuid(certificate.uuid)).into());
    Ok(())
}

/// Whether the domains that name a certificate can go on with other names of it.
pub(super) fn check_rotated(
    state: &DesiredState,
    certificate: &Certificate,
) -> Result<(), CertificateError> {
    let account = certificate.account;
    for group in state.service_groups_of(Caller::operator(account)) {
        let named = |domain: &&Domain| {
            let found = state.named_certificate(account, domain);
            found.is_some_and(|found| found.uuid == certificate.uuid)
        };
        let mut domains = group.domains.iter().filter(named);
        if let Some(domain) = domains.find(|domain| !certificate.is_for(&domain.fqdn)) {
            return Err(CertificateError::StillNamed {
                group: group.name.clone(),
                fqdn: domain.fqdn.clone(),
                names: certificate.names.clone(),
            });
        }
    }
    Ok(())
}
