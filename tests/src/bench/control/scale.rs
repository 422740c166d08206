//! Ten thousand services: everything at once, then one change at a time.
//!
//! Changes are made as the API makes them, in a store on disk. What is measured is the way from the
//! new desired state to the pass that has applied it, and beside it what the store takes before.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lbagent::dataplane::{Capacity, KernelDataplane, NextHop, Path};
use lbagent::desired::validate::{self, NewInstance, NewInstanceGroup, NewServiceGroup};
use lbagent::desired::{
    Caller, DEFAULT_ACCOUNT, Desired, DesiredState, GroupPolicy, Instance, InstancePolicy,
    InstanceState, Service, ServiceGroup, SourcePolicy, StopRequest, Transport,
};
use lbagent::plan::{
    GatewaySettings, Health, SynShield, TerminatorView, UnpublishedPorts, WithoutTerminator,
};
use lbagent::reconcile::{Reconciler, ReconcilerHandle, Timing};
use lbagent::store::RedbStore;
use lbagent_api::Selector;
use lbagent_common::{BackendEntry, ConnBucket, Slot};
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Figure, SEED, VIP, instance_uuid, millis};

pub(super) const INSTANCES: usize = 16;
/// Slots of a table for as many instances.
pub(super) const TABLE: u32 = 2_039;
const PATIENCE: Duration = Duration::from_secs(300);
/// Rounds of changes, each of another group.
const ROUNDS: usize = 11;

pub(super) fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + number as u32))
}

fn path(number: usize) -> Path {
    let [a, b, c, d] = (number as u32).to_be_bytes();
    Path {
        ifindex: 2,
        source: [10, 255, 255, 254].into(),
        onlink_prefix: 32,
        takes_xdp: true,
        mtu: 1500,
        next_hop: Some(NextHop {
            ifindex: 2,
            destination: [2, 0, a, b, c, d],
            source: [2, 1, 0, 0, 0, 1],
            vlan: 0,
        }),
    }
}

/// Spread, as version 4 UUIDs are.
pub(super) fn group_uuid(number: usize) -> Uuid {
    instance_uuid((1 << 64) + number as u128)
}

fn service(port: usize) -> Result<Service> {
    Ok(Service {
        port: u16::try_from(port)?,
        destination_port: 8_080,
        protocol: Transport::Tcp,
        ip: None,
        handlers: Vec::new(),
    })
}

fn state(groups: usize) -> Result<DesiredState> {
    let now = OffsetDateTime::UNIX_EPOCH;
    let mut state = DesiredState {
        generation: 1,
        ..DesiredState::default()
    };
    for group in 0..groups {
        let uuid = group_uuid(group);
        let service_group = ServiceGroup {
            uuid,
            account: DEFAULT_ACCOUNT,
            name: format!("group-{group}"),
            created_at: now,
            persistent: true,
            soft_limit: 0,
            hard_limit: 0,
            services: vec![service(1_000 + group)?],
            domains: Vec::new(),
            autokill_ms: 0,
            empty_since: None,
            policy: GroupPolicy::default(),
        };
        state.service_groups.insert(uuid, service_group);
        for number in group * INSTANCES..(group + 1) * INSTANCES {
            let instance = Instance {
                uuid: instance_uuid(number as u128 + 1),
                account: DEFAULT_ACCOUNT,
                name: format!("instance-{number}"),
                created_at: now,
                state: InstanceState::Running,
                service_group: Some(uuid),
                addresses: vec![address(number).into()],
                image: None,
                tags: Vec::new(),
                annotations: BTreeMap::new(),
                policy: InstancePolicy::default(),
            };
            state.instances.insert(instance.uuid, instance);
        }
    }
    Ok(state)
}

fn gateway() -> GatewaySettings {
    GatewaySettings {
        vips: [VIP].into(),
        unpublished_ports: UnpublishedPorts::Pass,
        hash_seed: SEED,
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

/// What one round of changes is about.
struct Round {
    number: usize,
    /// Services before any change.
    groups: usize,
    group: Uuid,
    instance: Uuid,
    /// What the round has created.
    created: Vec<Uuid>,
    created_group: Uuid,
}

const US: Caller = Caller::operator(DEFAULT_ACCOUNT);

type Change = fn(&Desired, &mut Round) -> Result<()>;

/// What is changed, in this order, in every round.
const CHANGES: [(&str, Change); 9] = [
    ("weight of one instance", |desired, round| {
        let policy = InstancePolicy {
            weight: 50,
            ..InstancePolicy::default()
        };
        desired
            .set_instance_policy(US, &Selector::Uuid(round.instance), &policy)?
            .outcome?;
        Ok(())
    }),
    ("one instance drained", |desired, round| {
        stop(desired, round.instance, Duration::from_secs(3600))
    }),
    ("one instance stopped", |desired, round| {
        stop(desired, round.instance, Duration::ZERO)
    }),
    ("one instance started", |desired, round| {
        desired.start_instances(US, &[Selector::Uuid(round.instance)])?;
        Ok(())
    }),
    ("one instance created", |desired, round| {
        round.created = create(desired, round, round.group, 1)?;
        Ok(())
    }),
    ("one instance deleted", delete),
    ("sources of one service denied", |desired, round| {
        let policy = GroupPolicy {
            sources: SourcePolicy {
                deny: vec!["198.51.100.0/24".parse()?],
                ..SourcePolicy::default()
            },
            ..GroupPolicy::default()
        };
        desired
            .set_group_policy(US, &Selector::Uuid(round.group), &policy, &[VIP].into())?
            .outcome?;
        Ok(())
    }),
    ("one service × 16 created", |desired, round| {
        let group = NewServiceGroup {
            name: None,
            services: vec![service(20_000 + round.number)?],
            domains: None,
            soft_limit: 0,
            hard_limit: 0,
            autokill_ms: 0,
        };
        let now = OffsetDateTime::now_utc();
        let written = desired.create_service_groups(US, &[group], &names(), now)?;
        let [made] = &written.outcome[..] else {
            bail!("one group")
        };
        round.created_group = made.clone()?.uuid;
        round.created = create(desired, round, round.created_group, INSTANCES)?;
        Ok(())
    }),
    ("one service × 16 deleted", |desired, round| {
        delete(desired, round)?;
        let group = Selector::Uuid(round.created_group);
        for outcome in desired.delete_service_groups(US, &[group])?.outcome {
            outcome?;
        }
        Ok(())
    }),
];

fn stop(desired: &Desired, instance: Uuid, drain: Duration) -> Result<()> {
    let request = StopRequest {
        selector: Selector::Uuid(instance),
        drain,
        only_if: None,
    };
    for outcome in desired
        .stop_instances(US, &[request], OffsetDateTime::now_utc())?
        .outcome
    {
        outcome?;
    }
    Ok(())
}

fn create(desired: &Desired, round: &Round, group: Uuid, count: usize) -> Result<Vec<Uuid>> {
    let new = |number| NewInstance {
        name: None,
        addresses: vec![address(round.groups * INSTANCES + number).into()],
        group: NewInstanceGroup::Join(Selector::Uuid(group)),
        running: true,
        image: None,
        tags: Vec::new(),
        annotations: BTreeMap::new(),
    };
    let new: Vec<_> = (0..count).map(new).collect();
    let written = desired.create_instances(US, &new, &names(), OffsetDateTime::now_utc())?;
    let made = written.outcome.into_iter();
    made.map(|made| Ok(made?.uuid)).collect()
}

fn delete(desired: &Desired, round: &mut Round) -> Result<()> {
    let gone: Vec<_> = round.created.drain(..).map(Selector::Uuid).collect();
    for outcome in desired
        .delete_instances(US, &gone, OffsetDateTime::now_utc())?
        .outcome
    {
        outcome?;
    }
    Ok(())
}

fn names() -> validate::Gateway {
    validate::Gateway {
        vips: [VIP].into(),
        metro_domain: "bench.test".to_owned(),
        reserved_names: Arc::default(),
    }
}

/// Many services: everything at once, then one thing at a time.
pub(super) fn measure(groups: usize) -> Result<Vec<Figure>> {
    let backends = groups * INSTANCES;
    let capacity = Capacity {
        vips: groups as u32 + 100,
        // Room for the tables that changes are written to.
        slots: (groups as u32 + 100) * TABLE,
        backends: backends as u32 + 1_000,
        returns: backends as u32 + 1_000,
        ..Capacity::default()
    };
    let mut dataplane = KernelDataplane::open_unattached(None, capacity)?;
    let paths = (0..backends + INSTANCES).map(|number| (address(number), path(number)));
    dataplane.set_paths(paths.collect());
    let directory = tempfile::tempdir()?;
    let store = RedbStore::open(&directory.path().join("store.redb"))?;
    let desired = Desired::load(Arc::new(store))?;
    desired.replace(&state(groups)?.into())?.outcome?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let run = runtime.block_on(async { Run::start(dataplane, desired) })?;
    let name = format!("{groups} services × {INSTANCES}");
    let figure =
        |what: &str, value, unit, goal| Figure::new(format!("{name}: {what}"), value, unit, goal);
    let load = run.loaded()?;
    let (others, resident) = memory()?;
    let mut figures = vec![
        figure("full load", load, "ms", Some(3_000.0)),
        figure("maps", others + mapped(&capacity), "MiB", None),
        figure("agent, maps mapped", resident, "MiB", None),
    ];
    let (mut applied, mut stored) = (vec![Vec::new(); CHANGES.len()], Vec::new());
    for number in 0..ROUNDS {
        let number = number * 37;
        let mut round = Round {
            number,
            groups,
            group: group_uuid(number),
            instance: instance_uuid((number * INSTANCES + 5) as u128 + 1),
            created: Vec::new(),
            created_group: Uuid::nil(),
        };
        for ((what, change), applied) in CHANGES.iter().zip(&mut applied) {
            let (before, after) = run.change(*change, &mut round).context(*what)?;
            stored.push(before);
            applied.push(after);
        }
    }
    let slowest = applied.iter().flatten().copied().fold(0.0, f64::max);
    let medians = CHANGES.iter().zip(applied);
    figures.extend(medians.map(|((what, _), times)| figure(what, median(times), "ms", Some(5.0))));
    figures.push(figure("the slowest of these changes", slowest, "ms", None));
    figures.push(figure(
        "a change's way into the store",
        median(stored),
        "ms",
        None,
    ));
    drop(run);
    runtime.shutdown_timeout(Duration::from_secs(10));
    Ok(figures)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The reconcile loop at work.
struct Run {
    runtime: tokio::runtime::Handle,
    desired: Desired,
    /// What the loop follows: the store's state, from the moment on that the clock runs.
    published: watch::Sender<Arc<DesiredState>>,
    handle: ReconcilerHandle,
    begun: Instant,
}

impl Run {
    fn start(dataplane: KernelDataplane, desired: Desired) -> Result<Self> {
        let (published, watched) = watch::channel(desired.current());
        let timing = Timing {
            // Only changes lead to passes here.
            periodic: Duration::from_secs(3600),
            ..Timing::default()
        };
        let (_, judged) = watch::channel(Health::new());
        let terminators = watch::channel(TerminatorView::default()).1;
        let dataplane = Box::new(dataplane);
        let made = Reconciler::new(dataplane, gateway(), watched, judged, terminators, timing);
        let (reconciler, handle) = made.context("starting the data plane's thread")?;
        let begun = Instant::now();
        tokio::spawn(reconciler.run());
        Ok(Self {
            runtime: tokio::runtime::Handle::current(),
            desired,
            published,
            handle,
            begun,
        })
    }

    fn loaded(&self) -> Result<f64> {
        self.wait(self.desired.current().generation)?;
        Ok(millis(self.begun.elapsed()))
    }

    /// Waits until a generation is applied, wholly.
    fn wait(&self, generation: u64) -> Result<()> {
        let applied = self.handle.wait_applied(generation, PATIENCE);
        let result = self.runtime.block_on(applied)?;
        match (&result.error, result.conditions.first()) {
            (None, None) => Ok(()),
            (error, condition) => bail!("not as asked for: {error:?} {condition:?}"),
        }
    }

    /// Makes a change; returns how long the store took for it, and then how long it took to be
    /// applied. The grace of the former table is waited for.
    fn change(&self, change: Change, round: &mut Round) -> Result<(f64, f64)> {
        crate::poll::keep_pace(Instant::now(), Timing::default().grace * 2);
        let former = self.desired.current().generation;
        let begun = Instant::now();
        change(&self.desired, round)?;
        let state = self.desired.current();
        let stored = millis(begun.elapsed());
        let generation = state.generation;
        ensure!(generation > former, "nothing has changed");
        let begun = Instant::now();
        self.published.send_replace(state);
        self.wait(generation)?;
        Ok((stored, millis(begun.elapsed())))
    }
}

/// MiB of the maps that are mapped into memory, whose descriptors are closed then.
fn mapped(capacity: &Capacity) -> f64 {
    let of = |count: u32, size: usize| f64::from(count) * size as f64;
    let bytes = of(capacity.slots, size_of::<Slot>())
        + of(capacity.backends, size_of::<BackendEntry>())
        + of(capacity.conn_buckets(), size_of::<ConnBucket>());
    bytes / f64::from(1 << 20)
}

/// MiB: what the kernel counts for the maps that this process has open, and what the process has
/// resident, maps that are mapped into memory included.
fn memory() -> Result<(f64, f64)> {
    let field = |text: &str, name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        if let (Some(id), Some(bytes)) = (field(&text, "map_id"), field(&text, "memlock")) {
            maps.insert(id, bytes);
        }
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = field(&status, "VmRSS").context("no VmRSS")?;
    let bytes: u64 = maps.into_values().sum();
    Ok((bytes as f64 / f64::from(1 << 20), resident as f64 / 1024.0))
}
