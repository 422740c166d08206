//! Changing properties of service groups. All operations of one request on a group make one
//! candidate, which is checked as a whole and written as a whole, or not at all.

use std::collections::BTreeMap;

use lbagent_api::envelope::Reference;
use lbagent_api::patch::PortMatch;
use lbagent_api::service_group::{self as contract, check_together, validate_limits};
use lbagent_api::{ContractError, Selector};
use time::OffsetDateTime;
use uuid::Uuid;

use super::certificate::{self, CertificateError};
use super::draft::Draft;
use super::usage::{self, QuotaError};
use super::validate::{Gateway, check_domains};
use super::{
    Caller, Clash, Desired, DesiredError, Domain, PolicyConflict, Service, ServiceGroup, Written,
    policy, ports, service_group,
};

/// One valid operation on one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchOperation {
    /// Which group.
    pub selector: Selector,
    /// What to change.
    pub change: Change,
}

/// What an operation changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Publish these ports and no others.
    SetServices(Vec<Service>),
    /// Publish these ports too.
    AddServices(Vec<Service>),
    /// Publish these ports no more.
    DelServices(Vec<PortMatch>),
    /// Have these domains and no others.
    SetDomains(Vec<Domain>),
    /// Have these domains too.
    AddDomains(Vec<Domain>),
    /// Give these domains up.
    DelDomains(Vec<String>),
    /// The soft limit.
    SetSoftLimit(u16),
    /// The hard limit.
    SetHardLimit(u16),
    /// Milliseconds that the group may be empty; 0 for any time.
    SetAutokill(u64),
}

/// Why a group was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// There is no such group.
    #[error("No service group with {0}")]
    NotFound(Selector),
    /// It does not publish a port that was to go.
    #[error("Service group '{group}' does not publish port {port}")]
    NoSuchPort {
        /// Its name.
        group: String,
        /// The port.
        port: u16,
    },
    /// It does not have a domain that was to go.
    #[error("Service group '{group}' has no domain '{fqdn}'")]
    NoSuchDomain {
        /// Its name.
        group: String,
        /// The domain.
        fqdn: String,
    },
    /// What it would be breaks a rule of the contract.
    #[error("{}", .0.message)]
    Rule(ContractError),
    /// Others have what it would have.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// The account may not have more.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// A domain cannot be served with the certificate that it names.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// What it would publish does not go with its policy.
    #[error(transparent)]
    Policy(#[from] PolicyConflict),
}

impl From<ContractError> for PatchError {
    fn from(error: ContractError) -> Self {
        Self::Rule(error)
    }
}

/// One result for each operation, in their order.
type Outcomes = Vec<Result<Reference, PatchError>>;

impl Desired {
    /// Changes groups, each on its own terms: when one of the operations on a group cannot be done,
    /// none of them is, and all tell why.
    pub fn patch_service_groups(
        &self,
        caller: Caller,
        operations: &[PatchOperation],
        gateway: &Gateway,
        now: OffsetDateTime,
    ) -> Result<Written<Outcomes>, DesiredError> {
        self.transact(|draft| {
            let mut found = Vec::with_capacity(operations.len());
            let mut groups: BTreeMap<Uuid, (ServiceGroup, Vec<&Change>)> = BTreeMap::new();
            let mut order = Vec::new();
            for PatchOperation { selector, change } in operations {
                let group = draft.find_group(caller, selector);
                found.push(group.as_ref().map(|group| group.uuid));
                if let Some(group) = group {
                    let uuid = group.uuid;
                    groups
                        .entry(uuid)
                        .or_insert_with(|| {
                            order.push(uuid);
                            (group, Vec::new())
                        })
                        .1
                        .push(change);
                }
            }
            let results: BTreeMap<Uuid, Result<Reference, PatchError>> = order
                .into_iter()
                .map(|uuid| {
                    let (former, changes) = &groups[&uuid];
                    (uuid, patch(draft, caller, former, changes, gateway, now))
                })
                .collect();
            let outcome = |(uuid, operation): (Option<Uuid>, &PatchOperation)| match uuid {
                Some(uuid) => results[&uuid].clone(),
                None => Err(PatchError::NotFound(operation.selector.clone())),
            };
            found.into_iter().zip(operations).map(outcome).collect()
        })
    }
}

fn patch(
    draft: &mut Draft,
    caller: Caller,
    former: &ServiceGroup,
    changes: &[&Change],
    gateway: &Gateway,
    now: OffsetDateTime,
) -> Result<Reference, PatchError> {
    let mut group = former.clone();
    for change in changes {
        apply(&mut group, change)?;
    }
    let is_empty = || draft.state().members(group.uuid).next().is_none();
    if group.autokill_ms > 0 && group.empty_since.is_none() && is_empty() {
        group.empty_since = Some(now);
    }
    let services: Vec<_> = group.services.iter().map(contract::Service::from).collect();
    check_together(&services)?;
    check_domains(&group.domains)?;
    validate_limits(Some(group.soft_limit.into()), Some(group.hard_limit.into()))?;
    policy::check_group(&group)?;
    draft.check_quota(
        caller.account,
        usage::growth(&former.services, &group.services),
    )?;
    let fqdns = group.domains.iter().map(|domain| domain.fqdn.as_str());
    let vips = &gateway.vips;
    ports::check(draft, caller, fqdns, &group.placed(), vips, Some(former))?;
    certificate::choose(draft, caller, &mut group.domains, &former.domains)?;
    let reference = Reference {
        uuid: group.uuid,
        name: group.name.clone(),
    };
    if group != *former {
        service_group::replace(draft, former, group);
    }
    Ok(reference)
}

fn apply(group: &mut ServiceGroup, change: &Change) -> Result<(), PatchError> {
    match change {
        Change::SetServices(services) => group.services.clone_from(services),
        Change::AddServices(services) => group.services.extend_from_slice(services),
        Change::DelServices(ports) => {
            for port in ports {
                let is_meant = |service: &Service| port.matches(&contract::Service::from(service));
                if !group.services.iter().any(is_meant) {
                    let (group, port) = (group.name.clone(), port.port);
                    return Err(PatchError::NoSuchPort { group, port });
                }
                group.services.retain(|service| !is_meant(service));
            }
        }
        Change::SetDomains(domains) => group.domains.clone_from(domains),
        Change::AddDomains(domains) => group.domains.extend_from_slice(domains),
        Change::DelDomains(fqdns) => {
            for fqdn in fqdns {
                if !group.domains.iter().any(|domain| domain.fqdn == *fqdn) {
                    let (group, fqdn) = (group.name.clone(), fqdn.clone());
                    return Err(PatchError::NoSuchDomain { group, fqdn });
                }
                group.domains.retain(|domain| domain.fqdn != *fqdn);
            }
        }
        Change::SetSoftLimit(limit) => group.soft_limit = *limit,
        Change::SetHardLimit(limit) => group.hard_limit = *limit,
        Change::SetAutokill(time_ms) => group.autokill_ms = *time_ms,
    }
    Ok(())
}
