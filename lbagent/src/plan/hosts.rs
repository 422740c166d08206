//! Which host names are sent to HTTPS before the kernel has seen their clients, and on which VIPs.
//!
//! A name's entry holds one bit for each VIP. A VIP keeps its bit as long as it is configured: its address
//! entry says which it has. Names come into the map before a port says that it looks there, and what the
//! map lacks is left to the terminator; so the one thing to see to is that a name which is *not* to be
//! redirected is never missing below a wildcard that is. That is why all names of port 80 are in the map,
//! or, where there is no room for all, none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lbagent_api::service_group::Handler;
use lbagent_common::{HostEntry, HostKey, VipEntry, VipKey, limits};

use super::diff::Target;
use super::in_use::InUse;
use super::publish::{Published, vips_of};
use super::{Condition, GatewaySettings, Object, PlanInput, Reason};
use crate::dataplane::ActualState;
use crate::desired::{Service, ServiceGroup, Transport};

/// The only port that redirects.
const HTTP: u16 = 80;
/// The port that a URL without one means.
const HTTPS: u16 = 443;

/// VIPs with their places in bit sets.
pub(super) type Indexes = BTreeMap<IpAddr, u8>;

/// Gives each VIP the place that it has, or a free one, as far as there are any.
pub(super) fn index_vips(gateway: &GatewaySettings, actual: &ActualState) -> Indexes {
    let mut taken = BTreeSet::new();
    let mut indexes = Indexes::new();
    for vip in &gateway.vips {
        let entry = actual.vips.get(&VipKey::address((*vip).into()));
        let index = entry.map_or(0, |entry| entry.vip_index);
        if (1..=VipEntry::MAX_VIP_INDEX).contains(&index) && taken.insert(index) {
            indexes.insert(*vip, index);
        }
    }
    let free: Vec<u8> = (1..=VipEntry::MAX_VIP_INDEX)
        .filter(|index| !taken.contains(index))
        .collect();
    let new = gateway.vips.iter().filter(|vip| !indexes.contains_key(vip));
    let new: Vec<(IpAddr, u8)> = new.copied().zip(free).collect();
    indexes.extend(new);
    indexes
}

/// Names under which a group is found on port 80 of some VIP, as far as the map can hold them.
pub fn host_keys(group: &ServiceGroup) -> impl Iterator<Item = HostKey> {
    let has_port = group.placed().iter().any(is_http);
    let domains = group.domains.iter().filter(move |_| has_port);
    domains.filter_map(|domain| HostKey::of(&domain.fqdn))
}

/// Whether a service is one of port 80 that a terminator takes.
fn is_http(service: &Service) -> bool {
    !service.is_raw() && service.port == HTTP && service.protocol == Transport::Tcp
}

/// Whether a service sends clients to HTTPS.
pub(super) fn is_redirect(service: &Service) -> bool {
    is_http(service) && service.handlers.contains(&Handler::Redirect)
}

/// Adds the names of all groups to the target. Whether ports may look there: not where the map has too
/// little room.
pub(super) fn add_hosts(
    input: &PlanInput<'_>,
    in_use: &InUse,
    indexes: &Indexes,
    target: &mut Target,
) -> bool {
    if !input.gateway.redirect_at_nic {
        return false;
    }
    for group in input.desired.service_groups.values() {
        let entry = entry(group, input, indexes);
        if entry != HostEntry::default() {
            target
                .hosts
                .extend(host_keys(group).map(|key| (key, entry)));
        }
    }
    let elsewhere = in_use.hosts - input.actual.hosts.len();
    let needed = u32::try_from(elsewhere + target.hosts.len()).unwrap_or(u32::MAX);
    let capacity = input.actual.capacity.hosts;
    if needed <= capacity {
        return true;
    }
    target.hosts.clear();
    let reason = Reason::MapFull {
        map: limits::HOSTS,
        needed,
        free: capacity,
        capacity,
    };
    target
        .conditions
        .push(Condition::new(Object::Gateway, reason));
    false
}

/// What all names of a group say.
fn entry(group: &ServiceGroup, input: &PlanInput<'_>, indexes: &Indexes) -> HostEntry {
    let mut entry = HostEntry::default();
    let services = group.placed();
    for service in services.iter().filter(|service| is_http(service)) {
        let vips = vips_of(service, input.gateway);
        // Whether there is a terminator is said by the ports: it may come and go.
        let redirects = is_redirect(service) && https_port(&services, &vips, input) == HTTPS;
        for vip in vips {
            let bit = indexes.get(&vip).map_or(0, |index| 1 << (index - 1));
            entry.serves |= bit;
            entry.redirects |= if redirects { bit } else { 0 };
        }
    }
    entry
}

/// Where the terminator sends the clients of a port with these VIPs.
fn https_port(services: &[Service], vips: &[IpAddr], input: &PlanInput<'_>) -> u16 {
    let is_https = |service: &&Service| {
        let has = |handler| service.handlers.contains(&handler);
        has(Handler::Tls) && has(Handler::Http)
    };
    let is_near = |service: &&Service| {
        let others = vips_of(service, input.gateway);
        others.iter().any(|vip| vips.contains(vip))
    };
    let near = services.iter().filter(is_https).filter(is_near);
    lbagent_api::terminator::https_port(near.map(|service| service.port))
}

/// Tells why redirects are left to the terminator: all, or for want of a place those of some VIPs.
pub(super) fn add_conditions(
    input: &PlanInput<'_>,
    indexes: &Indexes,
    published: &Published,
    target: &mut Target,
) {
    if published.redirected.is_empty() {
        return;
    }
    if let Some(reason) = &input.gateway.not_at_nic {
        let reason = Reason::NoCookies {
            reason: reason.clone(),
        };
        let condition = Condition::new(Object::Gateway, reason);
        target.conditions.push(condition);
    }
    if !input.gateway.redirect_at_nic {
        return;
    }
    let vips = input.gateway.vips.iter();
    let without = vips.filter(|vip| !indexes.contains_key(vip));
    target
        .conditions
        .extend(without.map(|vip| Condition::new(Object::Vip(*vip), Reason::NoVipIndex)));
}
