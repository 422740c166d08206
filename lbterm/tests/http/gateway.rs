//! One worker that serves a snapshot.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbagent_api::terminator::{
    Durations, Group, GroupDomain, Instance, InstanceState, Limits, Service, ServiceKind,
    ServicePolicy, Snapshot,
};
use lbterm::metrics::Counters;
use lbterm::serving::Shared;
use lbterm::worker::{self, Alive, Start};
use tokio::sync::watch;
use uuid::Uuid;

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One worker that serves a snapshot, and ends with its last connection after it was dropped.
pub struct Gateway {
    pub shared: Arc<Shared>,
    pub snapshot: Snapshot,
    counters: Arc<Counters>,
    alive: watch::Sender<usize>,
    addresses: Vec<SocketAddr>,
    draining: watch::Sender<bool>,
}

impl Gateway {
    /// With a group `a.example` on the first of its ports, with these instances.
    pub fn new(instances: &[SocketAddr]) -> Self {
        Self::with(|ports| vec![group("a.example", ports[0], instances)])
    }

    /// With these groups, made with the two ports that it listens on.
    pub fn with(groups: impl FnOnce(&[u16; 2]) -> Vec<Group>) -> Self {
        Self::with_limits(Limits::default(), groups)
    }

    /// As [`Self::with`], with limits.
    pub fn with_limits(limits: Limits, groups: impl FnOnce(&[u16; 2]) -> Vec<Group>) -> Self {
        let listeners = [(); 2].map(|()| {
            let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let addresses = listeners.each_ref().map(|l| l.local_addr().unwrap());
        let snapshot = Snapshot {
            generation: 1,
            groups: groups(&addresses.map(|address| address.port())),
            limits,
            ..Snapshot::default()
        };
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let shared = Arc::new(Shared::new(provider));
        shared.replace(&snapshot).unwrap();
        let (draining, watch) = watch::channel(false);
        let alive = watch::Sender::new(0);
        let counters = worker::start(Start {
            index: 0,
            listeners: listeners.into(),
            shared: Arc::clone(&shared),
            draining: watch,
            alive: Alive::new(&alive),
        });
        Self {
            shared,
            snapshot,
            counters: counters.unwrap(),
            alive,
            addresses: addresses.into(),
            draining,
        }
    }

    /// Where the first port is.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where the second port is.
    pub fn second(&self) -> SocketAddr {
        self.addresses[1]
    }

    /// Puts a changed snapshot in force.
    pub fn change(&mut self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.snapshot);
        self.snapshot.generation += 1;
        self.shared.replace(&self.snapshot).unwrap();
    }

    /// No more connections; those that are there end in good order.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether all connections have ended after a drain.
    pub fn has_ended(&self) -> bool {
        *self.alive.borrow() == 0
    }

    /// A counter of the worker or of all groups together.
    pub fn count(&self, name: &str) -> u64 {
        let mut report = BTreeMap::new();
        self.counters.add_to(&mut report);
        for group in self.shared.now().routes.groups() {
            group.counters.add_to(&mut report);
        }
        report.get(name).copied().unwrap_or_default()
    }

    /// Requests of which it is told how long they took.
    pub fn timed(&self) -> u64 {
        let mut durations = Durations::default();
        self.counters.add_durations(&mut durations);
        assert!(durations.sum_us > 0 || durations.counts.iter().all(|count| *count == 0));
        durations.counts.iter().sum()
    }

    /// In flight, served and failed at the instance with this address.
    pub fn load(&self, instance: SocketAddr) -> (u64, u64, u64) {
        let uuid = instance_uuid(instance);
        let serving = self.shared.now();
        let mut instances = serving.routes.groups().flat_map(|group| &group.instances);
        let instance = instances.find(|instance| instance.uuid == uuid).unwrap();
        let load = &instance.load;
        (load.in_flight(), load.served(), load.failed())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.drain();
    }
}

/// A group with this host name on a port, by HTTP without TLS. All instances have the first one's
/// port, and differ in their addresses.
pub fn group(name: &str, port: u16, instances: &[SocketAddr]) -> Group {
    Group {
        uuid: Uuid::new_v4(),
        name: name.to_owned(),
        soft_limit: 1000,
        hard_limit: 1000,
        domains: vec![domain(name)],
        services: vec![service(port, instances, ServiceKind::Http)],
        instances: instances.iter().map(|address| instance(*address)).collect(),
    }
}

pub fn domain(name: &str) -> GroupDomain {
    GroupDomain {
        name: name.to_owned(),
        certificate: None,
        alternatives: Vec::new(),
    }
}

pub fn service(port: u16, instances: &[SocketAddr], kind: ServiceKind) -> Service {
    Service {
        vips: vec![LOOPBACK],
        port,
        destination_port: instances.first().map_or(1, SocketAddr::port),
        kind,
        policy: ServicePolicy::default(),
    }
}

pub fn instance(address: SocketAddr) -> Instance {
    Instance {
        uuid: instance_uuid(address),
        name: address.to_string(),
        addresses: vec![address.ip()],
        weight: 1,
        state: InstanceState::Active,
    }
}

fn instance_uuid(address: SocketAddr) -> Uuid {
    let IpAddr::V4(ip) = address.ip() else {
        panic!("{address} is not of IPv4");
    };
    Uuid::from_u64_pair(ip.to_bits().into(), address.port().into())
}

/// Waits for a condition, for ten seconds at most.
#[track_caller]
pub fn poll_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed().as_secs() < 10, "never happened: {what}");
        pause(Duration::from_millis(5));
    }
}

/// The test or an instance lets this much time pass.
pub fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Lets the other tasks go on for a while.
pub async fn moment() {
    let nothing = std::future::pending::<()>();
    let _ = tokio::time::timeout(Duration::from_millis(1), nothing).await;
}
