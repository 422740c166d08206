//! A desired state and a data plane in memory, for the tests of several modules.

pub(crate) mod changes;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnetwork::IpNetwork;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    CheckedAddress, Elsewhere, Fitness, GatewaySettings, Health, IdCursor, Plan, PlanInput,
    SynShield, Terminator, UnpublishedPorts, WithoutTerminator, backend_addresses, plan, settle,
};
use crate::dataplane::fake::FakeDataplane;
use crate::dataplane::{ActualState, Dataplane, Path, Region};
use crate::desired::{
    DesiredState, Domain, GroupPolicy, Instance, InstancePolicy, InstanceState, Service,
    ServiceGroup, Transport,
};

/// The moment that tests begin at.
pub(crate) const START: OffsetDateTime = time::macros::datetime!(2026-01-01 00:00 UTC);

pub(crate) fn v4(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, host).into()
}

pub(crate) fn v6(host: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)).into()
}

pub(crate) fn draining(seconds: i64) -> InstanceState {
    InstanceState::draining(START, START + time::Duration::seconds(seconds))
}

pub(crate) fn group_uuid(number: u8) -> Uuid {
    Uuid::from_u128(0xa000_0000_0000_0000_0000_0000_0000_0000 + u128::from(number))
}

pub(crate) fn instance_uuid(number: u8) -> Uuid {
    // Spread, so that the order of UUIDs is not that of the numbers.
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Uuid::from_u128(spread)
}

pub(crate) fn path_to(address: IpAddr) -> Path {
    let (source, onlink_prefix) = if address.is_ipv4() {
        (v4(254), 24)
    } else {
        (v6(254), 64)
    };
    Path {
        ifindex: 3,
        source,
        onlink_prefix,
        takes_xdp: true,
        mtu: 0,
        next_hop: None,
    }
}

/// Desired state, gateway and data plane together.
pub(crate) struct World {
    pub(crate) desired: DesiredState,
    pub(crate) gateway: GatewaySettings,
    pub(crate) health: Health,
    pub(crate) terminator: Terminator,
    pub(crate) dataplane: FakeDataplane,
    pub(crate) retired: BTreeSet<Region>,
    pub(crate) cursor: IdCursor,
    pub(crate) now: OffsetDateTime,
}

impl World {
    pub(crate) fn new(vips: &[IpAddr]) -> Self {
        Self {
            desired: DesiredState::default(),
            gateway: gateway(vips),
            health: Health::new(),
            terminator: Terminator::default(),
            dataplane: FakeDataplane::default(),
            retired: BTreeSet::new(),
            cursor: IdCursor::default(),
            now: START,
        }
    }

    /// Adds a group that publishes TCP ports, (port, destination port), on all VIPs.
    pub(crate) fn add_group(&mut self, number: u8, ports: &[(u16, u16)]) -> &mut ServiceGroup {
        let uuid = group_uuid(number);
        let services = ports.iter().map(|(port, destination_port)| Service {
            port: *port,
            destination_port: *destination_port,
            protocol: Transport::Tcp,
            ip: None,
            handlers: Vec::new(),
        });
        let group = ServiceGroup {
            uuid,
            account: crate::desired::DEFAULT_ACCOUNT,
            name: format!("group-{number}"),
            created_at: START + Duration::from_secs(u64::from(number)),
            persistent: true,
            soft_limit: 100,
            hard_limit: 200,
            services: services.collect(),
            domains: Vec::new(),
            autokill_ms: 0,
            empty_since: None,
            policy: GroupPolicy::default(),
        };
        let groups = &mut self.desired.service_groups;
        groups.insert(uuid, group);
        groups.get_mut(&uuid).expect("just inserted")
    }

    /// Gives a domain to a group, if there is one, and takes it from the others.
    pub(crate) fn name(&mut self, group: u8, fqdn: &str) {
        let uuid = group_uuid(group);
        let groups = &mut self.desired.service_groups;
        let owners: Vec<Uuid> = groups.keys().copied().collect();
        for owner in owners {
            let Some(found) = groups.get_mut(&owner) else {
                continue;
            };
            found.domains.retain(|domain| domain.fqdn != fqdn);
            if owner == uuid {
                found.domains.push(Domain {
                    fqdn: fqdn.to_owned(),
                    certificate: None,
                });
            }
        }
    }

    /// Adds a running instance, with a path to it.
    pub(crate) fn add_instance(&mut self, number: u8, group: u8, address: IpAddr) {
        let instance = Instance {
            uuid: instance_uuid(number),
            account: crate::desired::DEFAULT_ACCOUNT,
            name: format!("instance-{number}"),
            created_at: START,
            state: InstanceState::Running,
            service_group: Some(group_uuid(group)),
            addresses: vec![IpNetwork::from(address)],
            image: None,
            tags: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
            policy: InstancePolicy::default(),
        };
        self.desired.put_instance(instance);
        self.dataplane.paths.insert(address, path_to(address));
    }

    /// Gives an instance a weight, if there is one.
    pub(crate) fn weigh(&mut self, number: u8, weight: u16) {
        if let Some(instance) = self.desired.instances.get_mut(&instance_uuid(number)) {
            instance.policy.weight = weight;
        }
    }

    /// Says how an instance's addresses are, for the group that it serves; `None`: not known.
    pub(crate) fn judge(&mut self, number: u8, fitness: Option<Fitness>) {
        let Some(found) = self.desired.instances.get(&instance_uuid(number)) else {
            return;
        };
        let addresses = [true, false].into_iter().filter_map(|v4| found.address(v4));
        for address in addresses {
            let Some(group) = found.service_group else {
                return;
            };
            let key = CheckedAddress {
                instance: found.uuid,
                group,
                address,
            };
            match fitness {
                Some(fitness) => drop(self.health.insert(key, fitness)),
                None => drop(self.health.remove(&key)),
            }
        }
    }

    pub(crate) fn instance(&mut self, number: u8) -> &mut Instance {
        self.desired
            .instances
            .get_mut(&instance_uuid(number))
            .expect("an instance that was added")
    }

    pub(crate) fn read(&mut self) -> ActualState {
        let mut actual = self
            .dataplane
            .read(&backend_addresses(&self.desired))
            .expect("readable");
        let vips = settle::due_vips(&actual, &self.gateway);
        if !vips.is_empty() {
            let idle_ticks = self.gateway.settle_after_ticks();
            let stored = self.dataplane.stored_flows(&vips, idle_ticks);
            actual.stored = Some(stored.expect("readable"));
        }
        actual
    }

    pub(crate) fn plan(&mut self) -> Plan {
        let actual = self.read();
        plan(&PlanInput {
            desired: &self.desired,
            gateway: &self.gateway,
            health: &self.health,
            terminator: self.terminator,
            elsewhere: &Elsewhere::default(),
            actual: &actual,
            retired: &self.retired,
            cursor: self.cursor,
            now: self.now,
        })
    }

    /// Plans and applies; no step may fail.
    pub(crate) fn apply(&mut self) -> Plan {
        let plan = self.plan();
        for step in &plan.steps {
            if let Err(error) = self.dataplane.apply(step) {
                panic!("{step:?}: {error}: {:?}", std::error::Error::source(&error));
            }
        }
        self.cursor = plan.cursor;
        plan
    }

    /// One pass, after which another one must find nothing to do.
    #[track_caller]
    pub(crate) fn converge(&mut self) -> Plan {
        let first = self.apply();
        let second = self.plan();
        assert_eq!(second.steps, [], "the plan is not idempotent");
        assert_eq!(second.conditions, first.conditions);
        first
    }
}

pub(crate) fn gateway(vips: &[IpAddr]) -> GatewaySettings {
    GatewaySettings {
        vips: vips.iter().copied().collect(),
        unpublished_ports: UnpublishedPorts::Pass,
        hash_seed: 0x1234_5678_9abc_def0,
        udp_idle: Duration::from_secs(60),
        settle_after: GatewaySettings::SETTLE_AFTER,
        source_port_first: GatewaySettings::SOURCE_PORT_FIRST,
        source_port_count: GatewaySettings::SOURCE_PORT_COUNT,
        without_terminator: WithoutTerminator::Reset,
        answers_per_second: GatewaySettings::ANSWERS_PER_SECOND,
        redirect_at_nic: true,
        not_at_nic: None,
        without_shield: None,
        syn_shield: SynShield::default(),
    }
}
