//! Snapshot → [`Routes`], or what of it cannot be served.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use lbagent_api::terminator::{self as wire, Fault, FaultyObject, Service, ServiceKind, Snapshot};
use uuid::Uuid;

use crate::balance::Load;
use crate::metrics::GroupCounters;

use super::{Group, HostTable, Instance, Port, Routes, Target, canonical_host};

impl Routes {
    /// Compiles a snapshot. Groups and instances that `former` has go on with their counters.
    /// Nothing of a snapshot with faults can be served.
    pub fn compile(snapshot: &Snapshot, former: &Self) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let loads = Loads::of(former);
        let mut routes = Self {
            generation: Some(snapshot.generation),
            limits: snapshot.limits.clone(),
            proxies: snapshot.proxies.clone(),
            ..Self::default()
        };
        for wanted in &snapshot.groups {
            let group = Arc::new(loads.group(wanted, former));
            if routes
                .groups
                .insert(wanted.uuid, Arc::clone(&group))
                .is_some()
            {
                faults.push(fault(wanted, "is in the snapshot twice".to_owned()));
            }
            for service in &wanted.services {
                routes.publish(wanted, &group, service, &mut faults);
            }
        }
        if faults.is_empty() {
            Ok(routes)
        } else {
            Err(faults)
        }
    }

    fn publish(
        &mut self,
        wanted: &wire::Group,
        group: &Arc<Group>,
        service: &Service,
        faults: &mut Vec<Fault>,
    ) {
        if service.destination_port == 0 && service.kind != ServiceKind::Redirect {
            let reason = format!(
                "port {}: connections cannot go to port 0 of its instances",
                service.port
            );
            faults.push(fault(wanted, reason));
            return;
        }
        let target = Arc::new(Target {
            group: Arc::clone(group),
            port: service.port,
            destination_port: service.destination_port,
            https_port: https_port(wanted, service),
            kind: service.kind,
            policy: service.policy.clone(),
        });
        let is_tls = matches!(service.kind, ServiceKind::Tls | ServiceKind::Https);
        for vip in &service.vips {
            let place = (vip.to_canonical(), service.port);
            let port = self.ports.entry(place).or_insert_with(|| Port {
                is_tls,
                kind_without_name: None,
                hosts: HostTable::default(),
                targets: Vec::new(),
            });
            if let Err(reason) = port.add(wanted, &target, is_tls) {
                let reason = format!("port {} of {}: {reason}", service.port, vip);
                faults.push(fault(wanted, reason));
                // The same would be said of each address.
                return;
            }
        }
    }
}

impl Port {
    fn add(
        &mut self,
        wanted: &wire::Group,
        target: &Arc<Target>,
        is_tls: bool,
    ) -> Result<(), String> {
        if self.is_tls != is_tls {
            return Err(
                "other groups use it with TLS where this one does not, or the other way \
                        round; publish one of them on another port"
                    .to_owned(),
            );
        }
        for domain in &wanted.domains {
            match self.hosts.entry(&canonical_host(&domain.name)) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Arc::clone(target));
                }
                Entry::Occupied(other) if other.get().group.uuid != target.group.uuid => {
                    return Err(format!("another group has the host name '{}'", domain.name));
                }
                Entry::Occupied(_) => return Err("it has two services there".to_owned()),
            }
        }
        if target.kind != ServiceKind::Tls {
            self.kind_without_name = Some(target.kind);
        }
        self.targets.push(Arc::clone(target));
        Ok(())
    }
}

fn fault(group: &wire::Group, reason: String) -> Fault {
    Fault {
        object: FaultyObject::ServiceGroup(group.uuid),
        reason,
    }
}

/// What the instances of the snapshot in force have to do.
struct Loads<'a>(HashMap<Uuid, &'a Arc<Load>>);

impl<'a> Loads<'a> {
    fn of(routes: &'a Routes) -> Self {
        let instances = routes.groups().flat_map(|group| &group.instances);
        Self(
            instances
                .map(|instance| (instance.uuid, &instance.load))
                .collect(),
        )
    }

    fn group(&self, wanted: &wire::Group, former: &Routes) -> Group {
        let counters = former.group(wanted.uuid).map_or_else(
            || Arc::new(GroupCounters::default()),
            |group| Arc::clone(&group.counters),
        );
        Group {
            uuid: wanted.uuid,
            name: wanted.name.clone(),
            soft_limit: wanted.soft_limit.into(),
            hard_limit: wanted.hard_limit.into(),
            instances: wanted
                .instances
                .iter()
                .map(|wanted| self.instance(wanted))
                .collect(),
            counters,
        }
    }

    fn instance(&self, wanted: &wire::Instance) -> Instance {
        let load = self.0.get(&wanted.uuid).map(|load| Arc::clone(load));
        Instance {
            uuid: wanted.uuid,
            name: wanted.name.clone(),
            addresses: wanted.addresses.clone(),
            weight: wanted.weight,
            state: wanted.state,
            load: load.unwrap_or_default(),
        }
    }
}

/// Where the clients of a service find their group by HTTPS.
fn https_port(group: &wire::Group, service: &Service) -> u16 {
    let is_near = |other: &&Service| {
        other.kind == ServiceKind::Https && other.vips.iter().any(|vip| service.vips.contains(vip))
    };
    let near = group.services.iter().filter(is_near);
    wire::https_port(near.map(|other| other.port))
}
