//! Creating and deleting service groups.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbagent_api::Selector;
use lbagent_api::envelope::Reference;
use time::OffsetDateTime;
use uuid::Uuid;

use super::draft::Draft;
use super::usage::{self, QuotaError};
use super::validate::{Gateway, NewServiceGroup};
use super::{
    Caller, Desired, DesiredError, GroupPolicy, Service, ServiceGroup, Transport, Written, keys,
    names,
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
    /// Another group has the domain.
    #[error("Domain '{fqdn}' is in use{}; choose another one", by_group(by.as_ref()))]
    DomainTaken {
        /// The domain.
        fqdn: String,
        /// Name of that group, if it is the caller's.
        by: Option<String>,
    },
    /// Another group publishes the port.
    #[error(
        "Port {port}/{} is {}; choose another port{}",
        protocol.name(), publisher(by.as_ref()), if *other_ip { " or another 'ip'" } else { "" }
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Transport,
        /// Name of that group, if it is the caller's.
        by: Option<String>,
        /// Whether it is free on another VIP.
        other_ip: bool,
    },
    /// The account may not have more.
    #[error(transparent)]
    Quota(#[from] QuotaError),
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
    let derived = || vec![gateway.domain_below_metro(&names::domain_label(&name))];
    let domains = new.domains.clone().unwrap_or_else(derived);
    for fqdn in &domains {
        if let Some(owner) = draft.owner(&keys::domain(fqdn)) {
            let by = group_name(draft, caller, owner);
            return Err(CreateServiceGroupError::DomainTaken {
                fqdn: fqdn.clone(),
                by,
            });
        }
    }
    for service in &new.services {
        if let Some(owner) = port_owner(draft, service, &gateway.vips) {
            return Err(CreateServiceGroupError::PortTaken {
                port: service.port,
                protocol: service.protocol,
                by: group_name(draft, caller, owner),
                other_ip: has_free_vip(draft, service, &gateway.vips),
            });
        }
    }
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
        policy: GroupPolicy::default(),
    };
    insert(draft, group.clone());
    Ok(group)
}

/// Writes a group with its claims.
pub(super) fn insert(draft: &mut Draft, group: ServiceGroup) {
    for key in claims(&group) {
        draft.claim(key, group.uuid);
    }
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
        for key in claims(&group) {
            draft.release(key);
        }
    }
}

pub(super) fn claims(group: &ServiceGroup) -> Vec<String> {
    let domains = group.domains.iter().map(|fqdn| keys::domain(fqdn));
    let ports = group.services.iter().map(keys::service);
    std::iter::once(keys::group_name(group.account, &group.name))
        .chain(domains)
        .chain(ports)
        .collect()
}

/// Whether a group publishes the port of a service on a VIP that the service wants too.
pub(super) fn has_collision(group: &ServiceGroup, service: &Service) -> bool {
    group.services.iter().any(|other| {
        let shares_vip = match (other.ip, service.ip) {
            (Some(theirs), Some(ours)) => theirs == ours,
            (None, _) | (_, None) => true,
        };
        shares_vip && (other.port, other.protocol) == (service.port, service.protocol)
    })
}

/// The group that publishes a port which collides with this one.
fn port_owner(draft: &mut Draft, service: &Service, vips: &BTreeSet<IpAddr>) -> Option<Uuid> {
    let mut owner =
        |vip: Option<IpAddr>| draft.owner(&keys::port(vip, service.protocol, service.port));
    let everywhere = owner(None);
    match service.ip {
        Some(vip) => everywhere.or_else(|| owner(Some(vip))),
        None => everywhere.or_else(|| vips.iter().find_map(|vip| owner(Some(*vip)))),
    }
}

fn has_free_vip(draft: &mut Draft, service: &Service, vips: &BTreeSet<IpAddr>) -> bool {
    vips.iter().any(|vip| {
        let elsewhere = Service {
            ip: Some(*vip),
            ..service.clone()
        };
        port_owner(draft, &elsewhere, vips).is_none()
    })
}

/// Nobody learns the names of another account.
fn group_name(draft: &Draft, caller: Caller, uuid: Uuid) -> Option<String> {
    let group = draft.state().service_groups.get(&uuid)?;
    (group.account == caller.account).then(|| group.name.clone())
}

fn publisher(name: Option<&String>) -> String {
    match name {
        Some(name) => format!("published by service group '{name}' already"),
        None => "in use".to_owned(),
    }
}

fn by_group(name: Option<&String>) -> String {
    name.map_or_else(String::new, |name| format!(" by service group '{name}'"))
}
