//! Who has a domain or a port. A domain is one group's. A port is one group's too, which gets its
//! packets as they are, or is shared by any number of groups that a terminator tells apart by host
//! name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::draft::Draft;
use super::{Caller, Service, ServiceGroup, Transport, keys};

/// What a group cannot have because others have it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// Another group has the domain.
    #[error("Domain '{fqdn}' is in use{}; choose another one", by_group(by.as_ref()))]
    DomainTaken {
        /// The domain.
        fqdn: String,
        /// Name of that group, if it is the caller's.
        by: Option<String>,
    },
    /// Another group publishes the port, raw.
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
    /// The port is to be raw, but is shared by groups that use handlers.
    #[error(
        "Port {port}/{} is published with handlers already, so it cannot be a raw port; choose another port{}, or give it handlers",
        protocol.name(), if *other_ip { " or another 'ip'" } else { "" }
    )]
    PortShared {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Transport,
        /// Whether it is free on another VIP.
        other_ip: bool,
    },
}

/// What a claimed key of the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Claim {
    /// A name, a domain, or a raw port: one object's alone.
    Owner(Uuid),
    /// A port that is terminated, or a certificate.
    Shared {
        /// Groups that publish it, or name it.
        #[serde(rename = "terminated")]
        groups: u32,
    },
}

impl Claim {
    /// The one owner, if there is one.
    pub const fn owner(&self) -> Option<Uuid> {
        match self {
            Self::Owner(uuid) => Some(*uuid),
            Self::Shared { .. } => None,
        }
    }
}

/// Who keeps a group from publishing a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A group that has it raw.
    Group(Uuid),
    /// Groups that share it.
    Terminated,
}

/// Who keeps a service from being published, `former` being what its group publishes already.
pub(super) fn holder(
    mut claim: impl FnMut(&str) -> Option<Claim>,
    service: &Service,
    vips: &BTreeSet<IpAddr>,
    former: Option<&ServiceGroup>,
) -> Option<Holder> {
    let others: Vec<Option<IpAddr>> = match service.ip {
        Some(vip) => vec![Some(vip)],
        None => vips.iter().copied().map(Some).collect(),
    };
    let places = std::iter::once(None).chain(others);
    places
        .map(|vip| keys::port(vip, service.protocol, service.port))
        .find_map(|key| match claim(&key)? {
            Claim::Owner(uuid) if former.is_some_and(|former| former.uuid == uuid) => None,
            Claim::Owner(uuid) => Some(Holder::Group(uuid)),
            Claim::Shared { .. } if !service.is_raw() => None,
            Claim::Shared { groups } => {
                let has = |former: &ServiceGroup| {
                    let placed = former.placed();
                    placed.iter().any(|ours| keys::service(ours) == key)
                };
                let ours = former.is_some_and(has);
                (groups > u32::from(ours)).then_some(Holder::Terminated)
            }
        })
}

/// Whether a group can have domains and ports, the latter as they are placed. `former` is the group as it is, which has its own
/// ones already.
pub(super) fn check<'a>(
    draft: &mut Draft,
    caller: Caller,
    fqdns: impl Iterator<Item = &'a str>,
    services: &[Service],
    vips: &BTreeSet<IpAddr>,
    former: Option<&ServiceGroup>,
) -> Result<(), Clash> {
    let own = former.map(|former| former.uuid);
    for fqdn in fqdns {
        let owner = draft.owner(&keys::domain(fqdn));
        if let Some(owner) = owner.filter(|owner| Some(*owner) != own) {
            let (fqdn, by) = (fqdn.to_owned(), group_name(draft, caller, owner));
            return Err(Clash::DomainTaken { fqdn, by });
        }
    }
    for service in services {
        let Some(holder) = holder(|key| draft.claimed(key), service, vips, former) else {
            continue;
        };
        let other_ip = has_free_vip(|key| draft.claimed(key), service, vips);
        let (port, protocol) = (service.port, service.protocol);
        return Err(match holder {
            Holder::Group(owner) => Clash::PortTaken {
                port,
                protocol,
                by: group_name(draft, caller, owner),
                other_ip,
            },
            Holder::Terminated => Clash::PortShared {
                port,
                protocol,
                other_ip,
            },
        });
    }
    Ok(())
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

/// Whether the service could be published on one of the VIPs.
pub(super) fn has_free_vip(
    mut claim: impl FnMut(&str) -> Option<Claim>,
    service: &Service,
    vips: &BTreeSet<IpAddr>,
) -> bool {
    vips.iter().any(|vip| {
        let elsewhere = Service {
            ip: Some(*vip),
            ..service.clone()
        };
        holder(&mut claim, &elsewhere, vips, None).is_none()
    })
}
