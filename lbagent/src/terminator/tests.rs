//! Who is active when, and what a snapshot says.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbagent_api::certificate::Secret;
use lbagent_api::health::{Check, OnFailure, Probe};
use lbagent_api::service_group::Handler;
use lbagent_api::terminator::{
    GroupReport, InstanceState, Report, ServiceKind, ServicePolicy, Snapshot, UpstreamProtocol,
};
use lbagent_api::terminators::TerminatorState::{self, Active, Draining, Preparing, Standby};
use serde_json::json;
use tokio::sync::mpsc;

use super::listener::Listener;
use super::registry::{Command, Kind, Listeners, Registry, Target};
use super::snapshot::{Inputs, snapshot};
use crate::config::ServingSettings;
use crate::desired::{DEFAULT_ACCOUNT, Domain};
use crate::plan::Fitness;
use crate::plan::testing::{World, draining, group_uuid, instance_uuid, v4, v6};

fn sockets() -> Listeners {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    vec![Arc::new(Listener::examine(socket.into()).unwrap())]
}

/// A registry and what its terminators were told.
#[derive(Default)]
struct Gateway {
    registry: Registry,
    told: Vec<(u32, mpsc::UnboundedReceiver<Command>)>,
}

impl Gateway {
    fn enter(&mut self, listeners: Listeners, began: u64) -> u32 {
        let (commands, told) = mpsc::unbounded_channel();
        let kind = Kind::Connected {
            listeners,
            commands,
        };
        let id = self.registry.enter(kind, "lbterm 0".into(), (7, began));
        self.told.push((id, told));
        id
    }

    /// Those that were told to drain since the last time.
    fn drained(&mut self) -> Vec<u32> {
        let told = self.told.iter_mut();
        told.filter_map(|(id, told)| told.try_recv().is_ok().then_some(*id))
            .collect()
    }

    #[track_caller]
    fn assert(&self, expected: &[(u32, TerminatorState)]) {
        let found: Vec<_> = self
            .registry
            .entries()
            .iter()
            .map(|entry| (entry.id, self.registry.state(entry)))
            .collect();
        assert_eq!(found, expected);
    }

    /// The socket that new connections go to.
    fn steered(&self) -> Option<u64> {
        match self.registry.target() {
            Target::Sockets(listeners) => Some(listeners[0].cookie),
            Target::None | Target::Process(..) => None,
        }
    }
}

#[test]
fn a_successor_takes_the_sockets_over_and_its_predecessor_drains() {
    let mut gateway = Gateway::default();
    assert!(gateway.registry.offer().is_empty());
    let own = sockets();
    let first = gateway.enter(own.clone(), 100);
    gateway.assert(&[(first, Preparing)]);
    assert_eq!(gateway.steered(), None, "nothing before it can serve");
    gateway.registry.ready(first);
    gateway.assert(&[(first, Active)]);
    assert_eq!(gateway.steered(), Some(own[0].cookie));

    let offered = gateway.registry.offer();
    assert_eq!(offered[0].cookie, own[0].cookie);
    let second = gateway.enter(offered, 200);
    gateway.assert(&[(first, Active), (second, Preparing)]);
    assert!(gateway.drained().is_empty());
    gateway.registry.ready(second);
    gateway.assert(&[(first, Draining), (second, Active)]);
    assert_eq!(gateway.drained(), [first]);
    let later = Instant::now() + Duration::from_secs(60);
    gateway.registry.leave(first, later);
    gateway.assert(&[(second, Active)]);
    assert!(gateway.registry.orphans.is_none());
}

#[test]
fn after_a_restart_of_the_agent_the_younger_of_two_stays() {
    for younger_first in [true, false] {
        let mut gateway = Gateway::default();
        let own = sockets();
        let began = if younger_first {
            [200, 100]
        } else {
            [100, 200]
        };
        let ids = began.map(|began| {
            let id = gateway.enter(own.clone(), began);
            gateway.registry.ready(id);
            id
        });
        let [young, old] = if younger_first { ids } else { [ids[1], ids[0]] };
        let state = |id| if id == young { Active } else { Draining };
        gateway.assert(&ids.map(|id| (id, state(id))));
        assert_eq!(gateway.drained(), [old]);
    }
}

#[test]
fn the_sockets_of_one_that_died_wait_for_a_successor() {
    let mut gateway = Gateway::default();
    let own = sockets();
    let first = gateway.enter(own.clone(), 100);
    gateway.registry.ready(first);
    let until = Instant::now() + Duration::from_secs(10);
    gateway.registry.leave(first, until);
    assert_eq!(
        gateway.steered(),
        Some(own[0].cookie),
        "they are still steered to"
    );
    assert!(!gateway.registry.expire(until - Duration::from_secs(1)));
    let offered = gateway.registry.offer();
    assert_eq!(offered[0].cookie, own[0].cookie);
    assert!(gateway.registry.expire(until));
    assert_eq!(gateway.steered(), None);
    assert!(gateway.registry.offer().is_empty());
    // One that was told to drain leaves nothing to wait for.
    let second = gateway.enter(sockets(), 200);
    gateway.registry.ready(second);
    assert!(gateway.registry.drain(second));
    gateway.registry.draining(second);
    assert_eq!(gateway.steered(), None);
    gateway.registry.leave(second, until);
    assert!(gateway.registry.orphans.is_none());
}

/// Whoever is there without serving yet, or no more, is nobody to send clients to, and no reason to turn
/// them away.
#[test]
fn they_wait_also_while_a_successor_prepares_or_a_predecessor_drains() {
    let until = Instant::now() + Duration::from_secs(10);
    let mut gateway = Gateway::default();
    let own = sockets();
    let first = gateway.enter(own.clone(), 100);
    gateway.registry.ready(first);
    let second = gateway.enter(gateway.registry.offer(), 200);
    gateway.registry.leave(first, until);
    gateway.assert(&[(second, Preparing)]);
    assert_eq!(gateway.steered(), Some(own[0].cookie));
    gateway.registry.ready(second);
    assert!(gateway.registry.orphans.is_none());

    let third = gateway.enter(gateway.registry.offer(), 300);
    gateway.registry.ready(third);
    gateway.registry.leave(third, until);
    gateway.assert(&[(second, Draining)]);
    assert_eq!(gateway.steered(), Some(own[0].cookie));
    assert_eq!(gateway.registry.offer()[0].cookie, own[0].cookie);
    assert!(gateway.registry.expire(until));
    assert_eq!(gateway.steered(), None);
}

#[test]
fn the_sockets_of_one_that_is_restarted_wait_for_the_next() {
    let until = Instant::now() + Duration::from_secs(10);
    for next_comes_before_its_end in [true, false] {
        let mut gateway = Gateway::default();
        let own = sockets();
        let first = gateway.enter(own.clone(), 100);
        gateway.registry.ready(first);
        gateway.registry.draining(first);
        gateway.assert(&[(first, Draining)]);
        assert_eq!(gateway.steered(), Some(own[0].cookie), "while it drains");
        if !next_comes_before_its_end {
            gateway.registry.leave(first, until);
            assert_eq!(gateway.steered(), Some(own[0].cookie), "after its end");
        }
        let second = gateway.enter(gateway.registry.offer(), 200);
        gateway.registry.ready(second);
        gateway.registry.leave(first, until);
        gateway.assert(&[(second, Active)]);
        assert_eq!(gateway.steered(), Some(own[0].cookie));
        assert!(gateway.registry.orphans.is_none());
    }
    // It never served, or somebody wants it gone after all.
    let mut gateway = Gateway::default();
    let first = gateway.enter(sockets(), 100);
    gateway.registry.draining(first);
    assert_eq!(gateway.steered(), None);
    let second = gateway.enter(sockets(), 200);
    gateway.registry.ready(second);
    gateway.registry.draining(second);
    assert!(gateway.registry.drain(second));
    assert_eq!(gateway.steered(), None);
}

#[test]
fn the_last_to_be_ready_is_active_and_the_former_stands_by() {
    let mut gateway = Gateway::default();
    let ids = [100, 200].map(|began| {
        let id = gateway.enter(sockets(), began);
        gateway.registry.ready(id);
        id
    });
    gateway.assert(&[(ids[0], Standby), (ids[1], Active)]);
    assert!(gateway.registry.drain(ids[1]));
    gateway.assert(&[(ids[0], Active), (ids[1], Draining)]);
    assert_eq!(gateway.drained(), [ids[1]]);
    // Another verdict does not bring it back.
    gateway.registry.ready(ids[1]);
    gateway.assert(&[(ids[0], Active), (ids[1], Draining)]);
    assert!(!gateway.registry.drain(99));
}

#[test]
fn what_was_told_of_a_group_goes_with_it() {
    let group = |number| GroupReport {
        uuid: group_uuid(number),
        counters: BTreeMap::new(),
        instances: Vec::new(),
    };
    let report = |groups: &[u8], gone: &[u8]| Report {
        groups: groups.iter().copied().map(group).collect(),
        gone: gone.iter().copied().map(group_uuid).collect(),
        ..Report::default()
    };
    let mut gateway = Gateway::default();
    let id = gateway.enter(sockets(), 1);
    let entry = gateway.registry.entry(id).unwrap();
    entry.hear(report(&[2, 1], &[]));
    entry.hear(report(&[3], &[1]));
    let known = entry.report.as_ref().unwrap();
    assert_eq!(known.groups, [group(2), group(3)]);
    assert!(known.gone.is_empty());
}

fn made(world: &World) -> Snapshot {
    snapshot(&Inputs {
        desired: &world.desired,
        health: &world.health,
        gateway: &world.gateway,
        metro_domain: "lb.internal",
        keys: &BTreeMap::new(),
        ticket_keys: &[Secret::new("hush".into())],
        settings: &ServingSettings::default(),
    })
}

/// A group with every kind of port, and a raw group beside it.
fn world() -> World {
    let mut world = World::new(&[v4(250), v6(250)]);
    let group = world.add_group(
        1,
        &[(443, 8080), (80, 443), (993, 143), (8080, 80), (22, 22)],
    );
    let [tls, http, redirect] = [Handler::Tls, Handler::Http, Handler::Redirect];
    let handlers = [
        vec![tls, http],
        vec![http, redirect],
        vec![tls],
        vec![http],
        vec![],
    ];
    for (service, handlers) in group.services.iter_mut().zip(handlers) {
        service.handlers = handlers;
    }
    group.services[0].ip = Some(v4(250));
    group.domains = vec![Domain {
        fqdn: "web.lb.internal".into(),
        certificate: None,
    }];
    world.add_group(2, &[(5432, 5432)]);
    world.add_instance(1, 1, v4(1));
    world.add_instance(2, 1, v4(2));
    world.add_instance(3, 2, v4(3));
    world
}

#[test]
fn a_snapshot_has_what_terminators_serve_and_no_more() {
    let mut world = world();
    let policy = json!({"terminated": [
        {"port": 443, "upstream": "h2c", "response_timeout_ms": 900, "requests_per_source": 7},
        {"port": 993, "send_proxy": true, "connect_timeout_ms": 300, "idle_timeout_ms": 4_000},
    ]});
    world
        .desired
        .service_groups
        .get_mut(&group_uuid(1))
        .unwrap()
        .policy = serde_json::from_value(policy).unwrap();
    let snapshot = made(&world);
    let [group] = &snapshot.groups[..] else {
        panic!("{snapshot:?}");
    };
    assert_eq!(group.uuid, group_uuid(1));
    let services: Vec<_> = group
        .services
        .iter()
        .map(|it| (it.port, it.destination_port, it.kind, it.vips.clone()))
        .collect();
    let both = vec![v4(250), v6(250)];
    assert_eq!(
        services,
        [
            (443, 8080, ServiceKind::Https, vec![v4(250)]),
            (80, 443, ServiceKind::Redirect, both.clone()),
            (993, 143, ServiceKind::Tls, both.clone()),
            (8080, 80, ServiceKind::Http, both),
        ]
    );
    let policies = group.services.iter().map(|it| it.policy.clone());
    let usual = ServicePolicy::default;
    let expected = [
        ServicePolicy {
            upstream: UpstreamProtocol::H2c,
            response_timeout_ms: 900,
            requests_per_source: 7,
            ..usual()
        },
        usual(),
        ServicePolicy {
            send_proxy: true,
            connect_timeout_ms: 300,
            idle_timeout_ms: 4_000,
            ..usual()
        },
        usual(),
    ];
    assert_eq!(policies.collect::<Vec<_>>(), expected);
    assert_eq!(group.instances.len(), 2);
    assert_eq!(
        (group.domains[0].certificate, snapshot.default_certificate),
        (None, None)
    );
    assert!(!format!("{snapshot:?}").contains("hush"));
}

#[test]
fn instances_are_what_state_and_checks_say() {
    let mut world = world();
    let group = world
        .desired
        .service_groups
        .get_mut(&group_uuid(1))
        .unwrap();
    group.policy.health.check = Some(Check::new(Probe::Tcp {
        send: None,
        expect: None,
    }));
    group.policy.health.on_failure = OnFailure::Keep;
    let states = |world: &World| {
        let snapshot = made(world);
        let state = |number| {
            let mut instances = snapshot.groups[0].instances.iter();
            let found = instances.find(|it| it.uuid == instance_uuid(number));
            found.map(|it| (it.state, it.weight))
        };
        [state(1), state(2)]
    };
    let weight = 100;
    let whole = world.instance(1).policy.weight;
    let active = Some((InstanceState::Active, u32::from(whole)));
    assert_eq!(states(&world), [active, active], "before the first verdict");
    world.judge(1, Some(Fitness::Unhealthy));
    let unhealthy = Some((InstanceState::Unhealthy, u32::from(whole)));
    assert_eq!(states(&world), [unhealthy, active]);
    // Nobody is healthy: everybody serves, unless the policy says otherwise.
    world.judge(2, Some(Fitness::Unhealthy));
    assert_eq!(states(&world), [active, active]);
    world.judge(1, Some(Fitness::Warming { percent: 50 }));
    world.weigh(1, weight);
    world.instance(2).state = draining(10);
    assert_eq!(
        states(&world),
        [
            Some((InstanceState::Active, 50)),
            Some((InstanceState::Draining, u32::from(whole)))
        ]
    );
    world.instance(1).state = crate::desired::InstanceState::Stopped;
    assert_eq!(states(&world)[0], None);
    assert_eq!(world.instance(1).account, DEFAULT_ACCOUNT);
}

#[test]
fn a_development_gateway_signs_for_its_domain_once_and_renews() {
    use crate::desired::{Caller, Desired};
    use crate::store::RedbStore;
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&directory.path().join("state.redb")).unwrap();
    let desired = Desired::load(Arc::new(store)).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let ensure = |now| super::authority::ensure(&desired, "lb.internal", now).unwrap();
    assert!(ensure(now));
    assert!(!ensure(now + time::Duration::days(50)), "it lasts");
    let authority = desired.authority().unwrap();
    let certificate = || {
        let caller = Caller::operator(DEFAULT_ACCOUNT);
        let name = lbagent_api::Selector::Name(super::authority::NAME.into());
        let state = desired.current();
        state.certificate(caller, &name).unwrap().clone()
    };
    let first = certificate();
    assert_eq!(first.names, ["*.lb.internal", "lb.internal"]);
    assert!(
        ensure(now + time::Duration::days(61)),
        "renewed before it ends"
    );
    let second = certificate();
    assert_eq!(second.uuid, first.uuid);
    assert!(second.not_after > first.not_after);
    assert_eq!(
        desired.authority().unwrap(),
        authority,
        "signed by the same authority"
    );
    assert!(!format!("{authority:?}").contains("PRIVATE"));

    // A group below the domain is served with it, whichever account it is of.
    let mut world = world();
    for certificate in desired.current().certificates.values() {
        world.desired.put_certificate(certificate.clone());
    }
    let group = world
        .desired
        .service_groups
        .get_mut(&group_uuid(1))
        .unwrap();
    group.account = uuid::Uuid::from_u128(9);
    let snapshot = snapshot(&Inputs {
        desired: &world.desired,
        health: &world.health,
        gateway: &world.gateway,
        metro_domain: "lb.internal",
        keys: &desired.certificate_keys().unwrap(),
        ticket_keys: &[],
        settings: &ServingSettings::default(),
    });
    assert_eq!(snapshot.groups[0].domains[0].certificate, Some(first.uuid));
    assert_eq!(snapshot.default_certificate, Some(first.uuid));
    assert_eq!(snapshot.certificates[0].uuid, first.uuid);
}
