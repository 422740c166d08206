//! Random changes of the world, for histories.

use std::time::Duration;

use proptest::prelude::*;

use lbagent_api::health::{Check, InitialHealth, OnFailure, Probe, WhenAllUnhealthy};
use lbagent_api::service_group::Handler;

use super::super::Fitness;
use super::{World, draining, group_uuid, instance_uuid, v4, v6};
use crate::dataplane::Path;
use crate::desired::{
    ForwardingMode, GroupPolicy, HealthPolicy, InstanceState, QuicLayout, Transport,
};

/// Names that groups may have.
pub(crate) const NAMES: [&str; 6] = [
    "a.example",
    "*.a.example",
    "b.a.example",
    "*.example",
    "c.example",
    "d.c.example",
];

/// One change of the world.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Group {
        number: u8,
        ports: Vec<(u16, u16)>,
    },
    NoGroup(u8),
    Instance {
        number: u8,
        group: u8,
        v6: bool,
    },
    NoInstance(u8),
    Drain {
        number: u8,
        seconds: i64,
    },
    Stop(u8),
    Start(u8),
    Weigh {
        number: u8,
        weight: u16,
    },
    Later(u64),
    NoPath(u8),
    Path {
        number: u8,
        ifindex: u32,
    },
    Vips(u8),
    Mode {
        group: u8,
        mode: u8,
    },
    Sources {
        group: u8,
        prefixes: u8,
    },
    QuicServer {
        number: u8,
        server: u8,
    },
    Udp(u8),
    Handlers {
        group: u8,
        port: u16,
        kind: u8,
    },
    /// Gives a name to a group, and takes it from the others.
    Domain {
        group: u8,
        name: u8,
    },
    Judge {
        number: u8,
        fitness: Option<Fitness>,
    },
    Health {
        group: u8,
        policy: u8,
    },
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    let number = 1..12_u8;
    let group = 1..4_u8;
    let ports = prop::collection::vec((80..83_u16, 8080..8082_u16), 0..3);
    prop_oneof![
        2 => (group.clone(), ports).prop_map(|(number, ports)| Change::Group { number, ports }),
        1 => group.clone().prop_map(Change::NoGroup),
        6 => (number.clone(), group, any::<bool>())
            .prop_map(|(number, group, v6)| Change::Instance { number, group, v6 }),
        2 => number.clone().prop_map(Change::NoInstance),
        3 => (number.clone(), 1..100_i64)
            .prop_map(|(number, seconds)| Change::Drain { number, seconds }),
        1 => number.clone().prop_map(Change::Stop),
        2 => number.clone().prop_map(Change::Start),
        2 => (number.clone(), prop_oneof![Just(0), 100..=1000_u16])
            .prop_map(|(number, weight)| Change::Weigh { number, weight }),
        2 => (1..50_u64).prop_map(Change::Later),
        1 => number.clone().prop_map(Change::NoPath),
        1 => (number, 1..4_u32).prop_map(|(number, ifindex)| Change::Path { number, ifindex }),
        1 => (0..4_u8).prop_map(Change::Vips),
    ]
}

/// The same, and changes of policies.
pub(crate) fn change_of_anything() -> impl Strategy<Value = Change> {
    let group = 1..4_u8;
    prop_oneof![
        12 => change(),
        1 => (group.clone(), 0..4_u8).prop_map(|(group, mode)| Change::Mode { group, mode }),
        2 => (group.clone(), 0..4_u8)
            .prop_map(|(group, prefixes)| Change::Sources { group, prefixes }),
        2 => (1..12_u8, 0..3_u8)
            .prop_map(|(number, server)| Change::QuicServer { number, server }),
        1 => group.clone().prop_map(Change::Udp),
        3 => (group.clone(), 80..83_u16, 0..3_u8)
            .prop_map(|(group, port, kind)| Change::Handlers { group, port, kind }),
        2 => (group.clone(), 0..NAMES.len() as u8)
            .prop_map(|(group, name)| Change::Domain { group, name }),
        3 => change_of_health(),
    ]
}

/// Checks, and what they say.
pub(crate) fn change_of_health() -> impl Strategy<Value = Change> {
    let fitness = prop_oneof![
        2 => Just(Some(Fitness::Unhealthy)),
        1 => Just(Some(Fitness::Healthy)),
        1 => (1..100_u8).prop_map(|percent| Some(Fitness::Warming { percent })),
        1 => Just(None),
    ];
    prop_oneof![
        3 => (1..12_u8, fitness).prop_map(|(number, fitness)| Change::Judge { number, fitness }),
        1 => (1..4_u8, 0..16_u8).prop_map(|(group, policy)| Change::Health { group, policy }),
    ]
}

/// A policy for each number below 16: with a check in 14 of them.
fn health_policy(number: u8) -> HealthPolicy {
    let tcp = Probe::Tcp {
        send: None,
        expect: None,
    };
    HealthPolicy {
        check: (number > 1).then(|| Check::new(tcp)),
        when_all_unhealthy: WhenAllUnhealthy::ALL[usize::from(number & 1)],
        on_failure: OnFailure::ALL[usize::from(number >> 1 & 1)],
        initial: InitialHealth::ALL[usize::from(number >> 2 & 1)],
        ..HealthPolicy::default()
    }
}

pub(crate) fn make(world: &mut World, change: Change) {
    let set_state = |world: &mut World, number, state| {
        if let Some(instance) = world.desired.instances.get_mut(&instance_uuid(number)) {
            instance.state = state;
        }
    };
    match change {
        Change::Group { number, ports } => drop(world.add_group(number, &ports)),
        Change::NoGroup(number) => drop(world.desired.remove_group(group_uuid(number))),
        Change::Instance {
            number,
            group,
            v6: both,
        } => {
            // Two instances share each address.
            world.add_instance(number, group, v4(number / 2));
            if both {
                world.instance(number).addresses.push(v6(number / 2).into());
            }
        }
        Change::NoInstance(number) => {
            world.desired.remove_instance(instance_uuid(number));
        }
        Change::Drain { number, seconds } => set_state(world, number, draining(seconds)),
        Change::Stop(number) => set_state(world, number, InstanceState::Stopped),
        Change::Start(number) => set_state(world, number, InstanceState::Running),
        Change::Weigh { number, weight } => world.weigh(number, weight),
        Change::Later(seconds) => world.now += Duration::from_secs(seconds),
        Change::NoPath(number) => drop(world.dataplane.paths.remove(&v4(number))),
        Change::Path { number, ifindex } => {
            let path = Path {
                ifindex,
                source: v4(200),
                onlink_prefix: 32,
                takes_xdp: ifindex % 2 == 0,
                mtu: 0,
                next_hop: None,
            };
            world.dataplane.paths.insert(v4(number), path);
        }
        Change::Vips(mask) => {
            let all = [v4(250), v6(250)].into_iter().enumerate();
            let chosen = all.filter(|(bit, _)| mask & (1 << bit) != 0);
            world.gateway.vips = chosen.map(|(_, vip)| vip).collect();
        }
        Change::Mode { group, mode } => set_policy(world, group, |policy| {
            policy.forwarding_mode = [
                ForwardingMode::Nat,
                ForwardingMode::DsrL2,
                ForwardingMode::DsrIpip,
                ForwardingMode::DsrGue,
            ][usize::from(mode)];
        }),
        Change::Sources { group, prefixes } => set_policy(world, group, |policy| {
            let prefix = |number| format!("198.51.{number}.0/24").parse().expect("a prefix");
            policy.sources.deny = (0..prefixes).map(prefix).collect();
        }),
        Change::QuicServer { number, server } => {
            if let Some(instance) = world.desired.instances.get_mut(&instance_uuid(number)) {
                let group = instance.service_group;
                instance.policy.quic_server_id =
                    (server > 0).then(|| format!("0{server}").parse().expect("a server id"));
                if let Some(group) = group.and_then(|g| world.desired.service_groups.get_mut(&g)) {
                    group.policy.quic = Some(QuicLayout {
                        server_id_length: 1,
                        config_rotation: 0,
                    });
                }
            }
        }
        Change::Judge { number, fitness } => world.judge(number, fitness),
        Change::Health { group, policy } => set_policy(world, group, |found| {
            found.health = health_policy(policy);
        }),
        Change::Domain { group, name } => world.name(group, NAMES[usize::from(name)]),
        Change::Handlers { group, port, kind } => {
            if let Some(group) = world.desired.service_groups.get_mut(&group_uuid(group)) {
                let services = group.services.iter_mut();
                services
                    .filter(|service| service.port == port)
                    .for_each(|service| {
                        service.handlers = match kind {
                            0 => vec![Handler::Tls],
                            1 => vec![Handler::Http],
                            _ => vec![Handler::Http, Handler::Redirect],
                        };
                    });
            }
        }
        Change::Udp(number) => {
            if let Some(group) = world.desired.service_groups.get_mut(&group_uuid(number)) {
                let services = group.services.iter_mut();
                services.for_each(|service| service.protocol = Transport::Udp);
            }
        }
    }
}

fn set_policy(world: &mut World, group: u8, set: impl FnOnce(&mut GroupPolicy)) {
    if let Some(group) = world.desired.service_groups.get_mut(&group_uuid(group)) {
        set(&mut group.policy);
    }
}
