//! Which group has which port of which VIP.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbagent_common::{Port, VipKey};
use uuid::Uuid;

use super::{Condition, GatewaySettings, Object, Reason, protocol};
use crate::desired::{DesiredState, Service, ServiceGroup};

/// Every port of every group that is published.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// By group, oldest first: port → destination port.
    pub(super) groups: Vec<(Uuid, BTreeMap<VipKey, u16>)>,
    /// Ports that could not be published.
    pub(super) conditions: Vec<Condition>,
}

/// Resolves services to VIP keys. The API refuses a port that is taken; where two groups have one
/// all the same, after an import or a change of the configured VIPs, the older group has it.
pub(super) fn publish(desired: &DesiredState, gateway: &GatewaySettings) -> Published {
    let mut oldest_first: Vec<&ServiceGroup> = desired.service_groups.values().collect();
    oldest_first.sort_by_key(|group| (group.created_at, group.uuid));
    let mut published = Published::default();
    let mut taken: BTreeMap<VipKey, Uuid> = BTreeMap::new();
    for group in oldest_first {
        let mut keys = BTreeMap::new();
        published.conditions.extend(terminated(group));
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
    published
}

/// Ports for a terminator are no VIPs of the data plane: packets for them pass, as for every port
/// that nobody published, to whatever terminator listens on the host.
fn terminated(group: &ServiceGroup) -> Option<Condition> {
    let services = group.services.iter();
    let ports: Vec<u16> = services
        .filter(|service| !service.is_raw())
        .map(|service| service.port)
        .collect();
    (!ports.is_empty()).then(|| {
        let reason = Reason::NoTerminator { ports };
        Condition::new(Object::ServiceGroup(group.uuid), reason)
    })
}

pub(super) fn vips_of(service: &Service, gateway: &GatewaySettings) -> Vec<IpAddr> {
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
