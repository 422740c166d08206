//! The rows of `lbctl show`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lbagent_api::instance::InstanceState;
use lbagent_api::service_group::{Protocol, Service};
use lbagent_api::status::{Table, TableBackend, TableGroup, TableNextHop, TableVip, Traffic};
use lbagent_common::{BackendEntry, BackendId, TrafficCounter, VipEntry, VipKey};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::desired::{self, DesiredState, ForwardingMode};
use crate::plan::{Family, table_region};
use crate::reconcile::Observation;

/// What the data plane has, under the names of the desired state. `generation` is the one that was
/// applied last, `taken_at` the moment of the observation.
pub fn table(
    desired: &DesiredState,
    observation: &Observation,
    generation: u64,
    taken_at: OffsetDateTime,
) -> Table {
    let members = members(desired, observation);
    // A group without any entry is shown as well: the operator asked for it.
    let mut groups: BTreeMap<Uuid, Vec<TableVip>> = desired
        .service_groups
        .keys()
        .map(|uuid| (*uuid, Vec::new()))
        .collect();
    for (key, entry) in &observation.actual.vips {
        if !key.is_address() && !entry.is_terminated() {
            let group = Uuid::from_bytes(entry.service_group);
            groups.entry(group).or_default().push(vip_row(
                desired,
                observation,
                &members,
                (*key, entry),
            ));
        }
    }
    let mut groups: Vec<TableGroup> = groups
        .into_iter()
        .map(|(uuid, vips)| {
            let known = desired.service_groups.get(&uuid);
            let name = known.map_or_else(|| uuid.to_string(), |group| group.name.clone());
            TableGroup {
                uuid,
                name,
                policy: known.map(|group| group.policy.clone()).unwrap_or_default(),
                vips,
                terminated: known.map(terminated).unwrap_or_default(),
            }
        })
        .collect();
    groups.sort_by(|a, b| (&a.name, a.uuid).cmp(&(&b.name, b.uuid)));
    Table {
        taken_at,
        generation_applied: generation,
        groups,
    }
}

fn terminated(group: &desired::ServiceGroup) -> Vec<Service> {
    let services = group.services.iter();
    services
        .filter(|service| !service.is_raw())
        .map(Service::from)
        .collect()
}

/// The backends whose instances serve a group, by group and family.
type Members = BTreeMap<(Uuid, Family), Vec<BackendId>>;

fn members(desired: &DesiredState, observation: &Observation) -> Members {
    let mut members = Members::new();
    for (id, backend) in &observation.actual.backends {
        let instance = desired.instances.get(&Uuid::from_bytes(backend.instance));
        if let Some(group) = instance.and_then(|instance| instance.service_group) {
            let family = Family::of_addr(&backend.addr);
            members.entry((group, family)).or_default().push(*id);
        }
    }
    members
}

fn vip_row(
    desired: &DesiredState,
    observation: &Observation,
    members: &Members,
    (key, entry): (VipKey, &VipEntry),
) -> TableVip {
    let Observation { actual, counters } = observation;
    let table = table_region(entry).and_then(|region| actual.table(region));
    let mut slots: BTreeMap<BackendId, u32> = BTreeMap::new();
    // An instance that serves this family with an address of the other one is in the table, except
    // while it takes no new flows; then it is told by its own family's VIPs.
    let mut named = BTreeSet::new();
    for slot in table.as_deref().unwrap_or_default() {
        *slots.entry(slot.current).or_default() += 1;
        named.extend([slot.current, slot.previous()]);
    }
    let group = Uuid::from_bytes(entry.service_group);
    let family = Family::of_addr(&key.addr);
    named.extend(members.get(&(group, family)).into_iter().flatten());
    let found = named
        .iter()
        .filter_map(|id| Some((id, actual.backends.get(id)?)));
    let mut backends: Vec<TableBackend> = found
        .map(|(id, backend)| {
            let owned = slots.get(id).copied().unwrap_or(0);
            backend_row(desired, backend, owned, counters.backends.get(id))
        })
        .collect();
    backends.sort_by(|a, b| (&a.name, a.uuid).cmp(&(&b.name, b.uuid)));
    TableVip {
        ip: key.addr.into(),
        port: key.port.get(),
        protocol: if key.protocol == lbagent_common::Protocol::UDP {
            Protocol::Udp
        } else {
            Protocol::Tcp
        },
        destination_port: entry.destination_port.get(),
        forwarding_mode: mode_name(entry.forwarding_mode).into(),
        slots: entry.table_len,
        traffic: traffic(counters.vips.get(&entry.vip_id)),
        backends,
    }
}

fn mode_name(mode: u8) -> &'static str {
    match mode {
        VipEntry::MODE_NAT => ForwardingMode::Nat.name(),
        VipEntry::MODE_DSR_L2 => ForwardingMode::DsrL2.name(),
        VipEntry::MODE_DSR_IPIP => ForwardingMode::DsrIpip.name(),
        VipEntry::MODE_DSR_GUE => ForwardingMode::DsrGue.name(),
        _ => "unknown",
    }
}

fn backend_row(
    desired: &DesiredState,
    backend: &BackendEntry,
    slots: u32,
    counter: Option<&TrafficCounter>,
) -> TableBackend {
    let uuid = Uuid::from_bytes(backend.instance);
    let instance = desired.instances.get(&uuid);
    TableBackend {
        uuid,
        name: instance.map_or_else(|| uuid.to_string(), |instance| instance.name.clone()),
        ip: IpAddr::from(backend.addr),
        state: match instance.map(|instance| &instance.state) {
            None => InstanceState::Deleted,
            Some(desired::InstanceState::Running) => InstanceState::Running,
            Some(desired::InstanceState::Draining { .. }) => InstanceState::Draining,
            Some(desired::InstanceState::Stopped) => InstanceState::Stopped,
            Some(desired::InstanceState::Standby) => InstanceState::Standby,
        },
        weight: backend.weight,
        slots,
        next_hop: next_hop(backend),
        traffic: traffic(counter),
    }
}

fn next_hop(backend: &BackendEntry) -> Option<TableNextHop> {
    if !backend.has_next_hop() {
        return None;
    }
    let link = backend.link[..2].iter().flat_map(|word| word.to_ne_bytes());
    let link: Vec<String> = link.take(6).map(|byte| format!("{byte:02x}")).collect();
    let name = nix::net::if_::if_indextoname(backend.ifindex).unwrap_or_default();
    Some(TableNextHop {
        // Some C libraries name an unknown interface by an empty string.
        interface: match name.to_string_lossy() {
            name if name.is_empty() => format!("interface {}", backend.ifindex),
            name => name.into_owned(),
        },
        link_address: link.join(":"),
        vlan: backend.vlan,
        mtu: backend.mtu,
    })
}

fn traffic(counter: Option<&TrafficCounter>) -> Traffic {
    let counter = counter.copied().unwrap_or_default();
    Traffic {
        flows: counter.flows,
        in_packets: counter.in_packets,
        out_packets: counter.out_packets,
        in_bytes: counter.in_bytes,
        out_bytes: counter.out_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Dataplane;
    use crate::dataplane::fake::FakeDataplane;
    use crate::plan::testing::{World, draining, v4};

    fn observe(dataplane: &mut FakeDataplane) -> Observation {
        let actual = dataplane.read(&BTreeSet::new()).expect("readable");
        let vips: Vec<u32> = actual.vips.values().map(|entry| entry.vip_id).collect();
        let backends: Vec<u32> = actual.backends.keys().copied().collect();
        let counters = dataplane.counters(&vips, &backends).expect("readable");
        Observation { actual, counters }
    }

    #[test]
    fn rows_carry_names_states_slots_and_counters() {
        let mut world = World::new(&[v4(250)]);
        world.add_group(1, &[(80, 8080)]);
        world.add_instance(1, 1, v4(1));
        world.add_instance(2, 1, v4(2));
        world.converge();
        world.instance(2).state = draining(60);
        world.converge();
        let traffic = TrafficCounter {
            flows: 3,
            in_packets: 9,
            ..TrafficCounter::default()
        };
        world.dataplane.vip_counters.insert(1, traffic);
        let id = *world
            .dataplane
            .backends
            .iter()
            .find(|(_, b)| b.addr == v4(1).into())
            .unwrap()
            .0;
        world.dataplane.backend_counters.insert(id, traffic);

        let observation = observe(&mut world.dataplane);
        let table = table(&world.desired, &observation, 7, OffsetDateTime::UNIX_EPOCH);

        assert_eq!(table.generation_applied, 7);
        let [group] = &table.groups[..] else {
            panic!("{table:?}")
        };
        assert_eq!(group.name, "group-1");
        let [vip] = &group.vips[..] else {
            panic!("{group:?}")
        };
        assert_eq!(
            (vip.ip, vip.port, vip.destination_port),
            (v4(250), 80, 8080)
        );
        assert_eq!(
            (vip.slots, vip.traffic.flows, vip.traffic.in_packets),
            (509, 3, 9)
        );
        let rows: Vec<_> = vip
            .backends
            .iter()
            .map(|row| {
                (
                    row.name.as_str(),
                    row.state,
                    row.slots,
                    row.weight,
                    row.traffic.flows,
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("instance-1", InstanceState::Running, 509, 100, 3),
                ("instance-2", InstanceState::Draining, 0, 100, 0),
            ]
        );
    }

    #[test]
    fn a_next_hop_is_told_where_it_is_known() {
        let mut entry = BackendEntry {
            link: BackendEntry::link_words([2, 0, 0xab, 0, 0, 1], [2, 0, 0, 0, 0, 9]),
            ifindex: u32::MAX,
            mtu: 1500,
            ..BackendEntry::default()
        };
        assert_eq!(next_hop(&entry), None);
        entry.flags = BackendEntry::FLAG_ALIVE | BackendEntry::FLAG_NEXT_HOP;
        let wanted = TableNextHop {
            interface: format!("interface {}", u32::MAX),
            link_address: "02:00:ab:00:00:01".into(),
            vlan: 0,
            mtu: 1500,
        };
        assert_eq!(next_hop(&entry), Some(wanted));
    }

    #[test]
    fn what_nobody_asks_for_any_more_shows_under_its_uuid() {
        let mut world = World::new(&[v4(250)]);
        world.add_group(1, &[(80, 80)]);
        world.add_instance(1, 1, v4(1));
        world.converge();
        let empty = DesiredState::default();
        let observation = observe(&mut world.dataplane);
        let table = table(&empty, &observation, 0, OffsetDateTime::UNIX_EPOCH);
        assert_eq!(table.groups[0].name, table.groups[0].uuid.to_string());
        assert_eq!(
            table.groups[0].vips[0].backends[0].state,
            InstanceState::Deleted
        );
    }

    #[test]
    fn a_group_without_entries_is_shown() {
        let mut world = World::new(&[]);
        world.add_group(1, &[(80, 80)]);
        let observation = observe(&mut world.dataplane);
        let table = table(&world.desired, &observation, 0, OffsetDateTime::UNIX_EPOCH);
        assert_eq!(table.groups.len(), 1);
        assert!(table.groups[0].vips.is_empty());
    }
}
