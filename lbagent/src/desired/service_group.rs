//! Creating and deleting service groups.

use std::collections::BTreeSet;

use lbagent_api::Selector;
use lbagent_api::envelope::Reference;
use time::OffsetDateTime;
use uuid::Uuid;

use super::certificate::{self, CertificateError};
use super::draft::Draft;
use super::usage::{self, QuotaError};
use super::validate::{Gateway, NewServiceGroup};
use super::{
    Caller, Clash, Desired, DesiredError, Domain, GroupPolicy, ServiceGroup, Written, keys, names,
    ports,
};

/// Why a service group was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateServiceGroupError {
    /// Another group has the name.
    #[error("A service group with name '{name}' already exists")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Another group has its domain or its port.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// The account may not have more.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// A domain cannot be served with the certificate that it names.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Why a service group was not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteServiceGroupError {
    /// There is no such group.
    #[error("No service group with {0}")]
    NotFound(Selector),
    /// Instances serve it.
    #[error(
        "Service group '{name}' has {} attached",
        if *count == 1 { format!("instance '{first}'") } else { format!("{count} instances ('{first}', …)") }
    )]
    Attached {
        /// Its name.
        name: String,
        /// One of them.
        first: String,
        /// How many there are.
        count: usize,
    },
}

impl Desired {
    /// Creates service groups, each on its own terms.
    pub fn create_service_groups(
        &self,
        caller: Caller,
        groups: &[NewServiceGroup],
        gateway: &Gateway,
        now: OffsetDateTime,
    ) -> Result<Written<Vec<Result<ServiceGroup, CreateServiceGroupError>>>, DesiredError> {
        self.transact(|draft| {
            groups
                .iter()
                .map(|new| create(draft, caller, new, gateway, now, true))
                .collect()
        })
    }

    /// Deletes service groups that nothing is attached to.
    pub fn delete_service_groups(
        &self,
        caller: Caller,
        selectors: &[Selector],
    ) -> Result<Written<Vec<Result<Reference, DeleteServiceGroupError>>>, DesiredError> {
        self.transact(|draft| {
            selectors
                .iter()
                .map(|selector| delete(draft, caller, selector))
                .collect()
        })
    }
}

/// Checks everything before it writes anything.
pub(super) fn create(
    draft: &mut Draft,
    caller: Caller,
    new: &NewServiceGroup,
    gateway: &Gateway,
    now: OffsetDateTime,
    persistent: bool,
) -> Result<ServiceGroup, CreateServiceGroupError> {
    let name = new.name.clone().unwrap_or_else(names::random_name);
    if draft
        .owner(&keys::group_name(caller.account, &name))
        .is_some()
    {
        return Err(CreateServiceGroupError::NameTaken { name });
    }
    draft.check_quota(caller.account, usage::of_group(&new.services))?;
    let mut domains = new
        .domains
        .clone()
        .unwrap_or_else(|| vec![derived_domain(new, &name, gateway)]);
    let fqdns = domains.iter().map(|domain| domain.fqdn.as_str());
    ports::check(draft, caller, fqdns, &new.services, &gateway.vips, None)?;
    certificate::choose(draft, caller, &mut domains, &[])?;
    let group = ServiceGroup {
        uuid: Uuid::new_v4(),
        account: caller.account,
        name,
        created_at: now,
        persistent,
        soft_limit: new.soft_limit,
        hard_limit: new.hard_limit,
        services: new.services.clone(),
        domains,
        autokill_ms: new.autokill_ms,
        empty_since: Some(now),
        policy: GroupPolicy::default(),
    };
    insert(draft, group.clone());
    Ok(group)
}

/// A name that was made up is as unique as a domain has to be; one that was given gets a suffix.
fn derived_domain(new: &NewServiceGroup, name: &str, gateway: &Gateway) -> Domain {
    let label = match new.name {
        Some(_) => names::domain_label(name),
        None => name.to_owned(),
    };
    Domain {
        fqdn: gateway.domain_below_metro(&label),
        certificate: None,
    }
}

/// Writes a group with its claims.
pub(super) fn insert(draft: &mut Draft, group: ServiceGroup) {
    claims(&group)
        .iter()
        .for_each(|claim| claim.take(draft, group.uuid));
    draft.put_group(group);
}

/// Writes a group in the place of another one with the same identity.
pub(super) fn replace(draft: &mut Draft, former: &ServiceGroup, group: ServiceGroup) {
    let (old, new) = (claims(former), claims(&group));
    old.difference(&new).for_each(|claim| claim.give_up(draft));
    new.difference(&old)
        .for_each(|claim| claim.take(draft, group.uuid));
    draft.put_group(group);
}

fn delete(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
) -> Result<Reference, DeleteServiceGroupError> {
    let not_found = || DeleteServiceGroupError::NotFound(selector.clone());
    let group = draft.find_group(caller, selector).ok_or_else(not_found)?;
    let mut members = draft.state().members(group.uuid);
    if let Some(first) = members.next() {
        let (first, count) = (first.name.clone(), 1 + members.count());
        return Err(DeleteServiceGroupError::Attached {
            name: group.name,
            first,
            count,
        });
    }
    drop(members);
    remove(draft, group.uuid);
    Ok(Reference {
        uuid: group.uuid,
        name: group.name,
    })
}

/// Removes a group with its claims.
pub(super) fn remove(draft: &mut Draft, uuid: Uuid) {
    if let Some(group) = draft.remove_group(uuid) {
        claims(&group).iter().for_each(|claim| claim.give_up(draft));
    }
}

/// A key of the store that a group has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimed {
    /// Alone.
    Alone(String),
    /// With others.
    Shared(String),
}

impl Claimed {
    fn take(&self, draft: &mut Draft, owner: Uuid) {
        match self.clone() {
            Self::Alone(key) => draft.claim(key, owner),
            Self::Shared(key) => draft.share(key),
        }
    }

    fn give_up(&self, draft: &mut Draft) {
        match self.clone() {
            Self::Alone(key) => draft.release(key),
            Self::Shared(key) => draft.unshare(key),
        }
    }
}

pub(super) fn claims(group: &ServiceGroup) -> BTreeSet<Claimed> {
    let name = keys::group_name(group.account, &group.name);
    let domains = group.domains.iter();
    let domains = domains.map(|domain| Claimed::Alone(keys::domain(&domain.fqdn)));
    let certificates = group.domains.iter().filter_map(|domain| {
        let uuid = domain.certificate.as_ref()?.uuid.as_ref()?.parse().ok()?;
        Some(Claimed::Shared(keys::certificate_use(uuid)))
    });
    let placed = group.placed();
    let ports = placed.iter().map(|service| {
        let key = keys::service(service);
        if service.is_raw() {
            Claimed::Alone(key)
        } else {
            Claimed::Shared(key)
        }
    });
    let claims = domains.chain(ports).chain(certificates);
    claims.chain([Claimed::Alone(name)]).collect()
}

impl Desired {
    /// Deletes the groups among these whose time without instances is over; returns how many.
    pub fn expire_groups(
        &self,
        groups: &[Uuid],
        now: OffsetDateTime,
    ) -> Result<Written<usize>, DesiredError> {
        self.transact(|draft| {
            let is_over = |uuid: &&Uuid| {
                let group = draft.state().service_groups.get(*uuid);
                let end = group.and_then(ServiceGroup::ends_at);
                let is_empty = draft.state().members(**uuid).next().is_none();
                is_empty && end.is_some_and(|end| end <= now)
            };
            let over: Vec<Uuid> = groups.iter().filter(is_over).copied().collect();
            for uuid in &over {
                remove(draft, *uuid);
            }
            over.len()
        })
    }
}
