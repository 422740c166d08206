//! Which group has which port of which VIP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lbagent_common::{Port, VipKey};
use uuid::Uuid;

use super::hosts::is_redirect;
use super::{
    Condition, Family, GatewaySettings, Object, PlanInput, Reason, WithoutTerminator, protocol,
};
use crate::desired::{Service, ServiceGroup};

/// Ports with handlers that groups share which a plan is not about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// All of them.
    pub terminated: BTreeSet<VipKey>,
    /// Those that send clients to HTTPS.
    pub redirected: BTreeSet<VipKey>,
}

/// A group and its ports: port → destination port.
pub(super) type PublishedGroup = (Uuid, BTreeMap<VipKey, u16>);

/// Every port of every group that is published.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Oldest first.
    pub(super) groups: Vec<PublishedGroup>,
    /// Ports with handlers, which any number of groups share; never one that a group has.
    pub(super) terminated: BTreeSet<VipKey>,
    /// Those among them that send clients of some group to HTTPS.
    pub(super) redirected: BTreeSet<VipKey>,
    /// Ports that could not be published.
    pub(super) conditions: Vec<Condition>,
}

/// Resolves services to VIP keys. The API refuses a port that is taken; where two groups have one
/// all the same, after an import or a change of the configured VIPs, the older group has it.
pub(super) fn publish(input: &PlanInput<'_>) -> Published {
    let PlanInput {
        desired, gateway, ..
    } = *input;
    let mut oldest_first: Vec<&ServiceGroup> = desired.service_groups.values().collect();
    oldest_first.sort_by_key(|group| (group.created_at, group.uuid));
    let mut published = Published::default();
    let mut taken: BTreeMap<VipKey, Uuid> = BTreeMap::new();
    for group in oldest_first {
        let mut keys = BTreeMap::new();
        published.add_terminated(group, input);
        for service in group.placed().iter().filter(|service| service.is_raw()) {
            for vip in vips_of(service, gateway) {
                let key = vip_key(vip, service);
                let reason = match taken.get(&key) {
                    _ if !gateway.vips.contains(&vip) => Reason::UnknownVip { address: vip },
                    Some(by) if *by != group.uuid => Reason::PortTaken {
                        vip,
                        port: service.port,
                        protocol: service.protocol,
                        by: *by,
                    },
                    _ => {
                        taken.insert(key, group.uuid);
                        keys.entry(key).or_insert(service.destination_port);
                        continue;
                    }
                };
                published
                    .conditions
                    .push(Condition::new(Object::ServiceGroup(group.uuid), reason));
            }
        }
        published.groups.push((group.uuid, keys));
    }
    published.terminated.extend(&input.elsewhere.terminated);
    published.redirected.extend(&input.elsewhere.redirected);
    published.terminated.retain(|key| !taken.contains_key(key));
    published
}

impl Published {
    /// Adds a group's ports with handlers: they lead to a terminator on this host.
    fn add_terminated(&mut self, group: &ServiceGroup, input: &PlanInput<'_>) {
        let condition = |reason| Condition::new(Object::ServiceGroup(group.uuid), reason);
        let mut unserved = BTreeSet::new();
        for service in group.placed().iter().filter(|service| !service.is_raw()) {
            for vip in vips_of(service, input.gateway) {
                if !input.gateway.vips.contains(&vip) {
                    let reason = Reason::UnknownVip { address: vip };
                    self.conditions.push(condition(reason));
                    continue;
                }
                self.terminated.insert(vip_key(vip, service));
                if is_redirect(service) {
                    self.redirected.insert(vip_key(vip, service));
                }
                if !input.terminator.takes(Family::of(&vip)) {
                    unserved.insert(service.port);
                }
            }
        }
        if !unserved.is_empty() {
            let ports = unserved.into_iter().collect();
            let resets = input.gateway.without_terminator == WithoutTerminator::Reset;
            let reason = Reason::NoTerminator { ports, resets };
            self.conditions.push(condition(reason));
        }
    }
}

/// The VIPs that a service is published on, if they are of this gateway.
pub(crate) fn vips_of(service: &Service, gateway: &GatewaySettings) -> Vec<IpAddr> {
    match service.ip {
        Some(vip) => vec![vip],
        None => gateway.vips.iter().copied().collect(),
    }
}

pub(super) fn vip_key(vip: IpAddr, service: &Service) -> VipKey {
    VipKey::new(
        vip.into(),
        Port::new(service.port),
        protocol(service.protocol),
    )
}
