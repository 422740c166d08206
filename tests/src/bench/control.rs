//! `cargo xtask bench control`: what it costs the agent to load everything, and to change one thing.
//!
//! The real object, unattached, under the agent's own reconcile loop: from a new desired state to
//! the pass that has applied it. Ways are given, as no host has 160,000 backends; they have a next
//! hop each, as the agent would find.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lbagent::dataplane::embedded_object;
use lbagent::dataplane::{Capacity, Dataplane, KernelDataplane, NextHop, Path, Region, Step};
use lbagent::desired::{
    DesiredState, GroupPolicy, Instance, InstancePolicy, InstanceState, Service, ServiceGroup,
    Transport,
};
use lbagent::plan::{GatewaySettings, UnpublishedPorts, maglev};
use lbagent::reconcile::{Reconciler, ReconcilerHandle, Timing};
use lbagent_common::{BackendEntry, ConnBucket, Slot, VipEntry, VipKey};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use crate::bpf_stack::deepest_chains;

/// What to measure, and what to do with it.
#[derive(Clone, Debug)]
pub struct Options {
    /// A tenth of the services, fewer rounds.
    pub quick: bool,
    /// Tell whether all goals are met.
    pub check: bool,
    /// Where to write the figures.
    pub json: Option<PathBuf>,
}

const INSTANCES: usize = 16;
/// Slots of a table for as many instances.
const TABLE: u32 = 2_039;
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const SEED: u64 = 0x1234_5678_9abc_def0;
const PATIENCE: Duration = Duration::from_secs(300);

/// What is changed of an instance.
type Change = fn(&mut Instance);

/// One figure with its goal, if it has one.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    /// The most that it may be.
    goal: Option<f64>,
}

impl Figure {
    fn new(what: impl Into<String>, value: f64, unit: &'static str, goal: Option<f64>) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            goal,
        }
    }

    fn is_missed(&self) -> bool {
        self.goal.is_some_and(|goal| self.value > goal)
    }
}

/// Measures, prints, and tells whether every goal is met, if that was asked.
pub fn run(options: &Options) -> Result<bool> {
    let mut figures = verifier()?;
    figures.extend(tables()?);
    figures.extend(scale(if options.quick { 1_000 } else { 10_000 })?);
    print!("{}", table(&figures));
    if let Some(path) = &options.json {
        write_json(&figures, path)?;
    }
    let missed: Vec<&str> = figures
        .iter()
        .filter(|figure| figure.is_missed())
        .map(|figure| figure.what.as_str())
        .collect();
    if !options.check || missed.is_empty() {
        return Ok(true);
    }
    println!("goals missed: {}", missed.join("; "));
    Ok(false)
}

fn table(figures: &[Figure]) -> String {
    let mut lines = format!("{:<52} {:>12} {:<6} goal\n", "what", "figure", "");
    for figure in figures {
        let Figure {
            what,
            value,
            unit,
            goal,
        } = figure;
        let verdict = if figure.is_missed() { "MISSED" } else { "met" };
        let goal = goal.map_or(String::new(), |goal| format!("≤ {goal} {verdict}"));
        let digits = if unit.ends_with('s') && *unit != "insns" {
            2
        } else {
            0
        };
        lines.push_str(&format!(
            "{what:<52} {value:>12.digits$} {unit:<6} {goal}\n"
        ));
    }
    lines
}

fn write_json(figures: &[Figure], path: &FilePath) -> Result<()> {
    let describe = || format!("--json {}", path.display());
    let mut file = std::io::BufWriter::new(fs::File::create(path).with_context(describe)?);
    for figure in figures {
        serde_json::to_writer(&mut file, figure).with_context(describe)?;
        writeln!(file).with_context(describe)?;
    }
    file.flush().with_context(describe)
}

fn millis(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e3
}

/// The best of some runs: everything else is the machine's other work.
fn best(runs: usize, mut run: impl FnMut() -> Result<Duration>) -> Result<f64> {
    let mut least = Duration::MAX;
    for _ in 0..runs {
        least = least.min(run()?);
    }
    Ok(millis(least))
}

/// Loading: the time for maps and both programs together, which is more than the verifier's.
fn verifier() -> Result<Vec<Figure>> {
    let load = best(3, || {
        let begun = Instant::now();
        KernelDataplane::open_unattached(None, Capacity::default())?;
        Ok(begun.elapsed())
    })?;
    let mut figures = vec![Figure::new(
        "load maps and programs",
        load,
        "ms",
        Some(250.0),
    )];
    let mut dataplane = KernelDataplane::open_unattached(None, Capacity::default())?;
    let infos = [
        dataplane.ingress_program()?.info()?,
        dataplane.return_program()?.info()?,
    ];
    for info in infos {
        let name = info
            .name_as_str()
            .context("a program with a name")?
            .to_owned();
        let verified = info.verified_instruction_count().unwrap_or(0);
        let what = format!("{name}: verified");
        figures.push(Figure::new(what, verified.into(), "insns", None));
        let bytes = f64::from(info.size_jitted());
        figures.push(Figure::new(
            format!("{name}: machine code"),
            bytes,
            "B",
            None,
        ));
    }
    for chain in deepest_chains(embedded_object())? {
        let program = chain.frames.first().map_or("", |(name, _)| name.as_str());
        let what = format!("{program}: stack, as Linux 6.1 counts");
        figures.push(Figure::new(what, chain.bytes.into(), "B", Some(512.0)));
    }
    Ok(figures)
}

/// The largest table.
fn tables() -> Result<Vec<Figure>> {
    let mut backends: Vec<(Uuid, u16)> = (1..=100_u128).map(|i| (instance_uuid(i), 100)).collect();
    backends.sort_unstable();
    let mut owners = Vec::new();
    let build = best(20, || {
        let begun = Instant::now();
        owners = maglev::build(&backends, SEED, 65_537).context("a table")?;
        Ok(begun.elapsed())
    })?;
    let mut dataplane = KernelDataplane::open_unattached(None, Capacity::default())?;
    let region = Region {
        offset: 0,
        len: 65_537,
    };
    let key = VipKey::new(
        VIP.into(),
        lbagent_common::Port::new(80),
        lbagent_common::Protocol::TCP,
    );
    let entry = VipEntry {
        vip_id: 1,
        table_len: region.len,
        ..VipEntry::default()
    };
    let slots = owners.iter().map(|owner| Slot::settled(owner + 1));
    let steps = [
        Step::PutTable(region, slots.collect()),
        Step::PutVip(key, entry),
    ];
    let publish = best(20, || {
        let begun = Instant::now();
        for step in &steps {
            dataplane.apply(step)?;
        }
        Ok(begun.elapsed())
    })?;
    Ok(vec![
        Figure::new("Maglev 65537 × 100: build", build, "ms", Some(3.0)),
        Figure::new("Maglev 65537 × 100: publish", publish, "ms", Some(10.0)),
    ])
}

fn instance_uuid(number: u128) -> Uuid {
    Uuid::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn address(number: usize) -> IpAddr {
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

fn desired(groups: usize) -> Result<DesiredState> {
    let now = OffsetDateTime::UNIX_EPOCH;
    let mut state = DesiredState {
        generation: 1,
        ..DesiredState::default()
    };
    for group in 0..groups {
        let uuid = Uuid::from_u128(0xa000_0000 + group as u128);
        let service_group = ServiceGroup {
            uuid,
            name: format!("group-{group}"),
            created_at: now,
            persistent: true,
            soft_limit: 0,
            hard_limit: 0,
            services: vec![Service {
                port: u16::try_from(1_000 + group)?,
                destination_port: 8_080,
                protocol: Transport::Tcp,
                ip: None,
            }],
            domains: Vec::new(),
            policy: GroupPolicy::default(),
        };
        state.service_groups.insert(uuid, service_group);
        for number in group * INSTANCES..(group + 1) * INSTANCES {
            let instance = Instance {
                uuid: instance_uuid(number as u128 + 1),
                name: format!("instance-{number}"),
                created_at: now,
                state: InstanceState::Running,
                service_group: Some(uuid),
                addresses: vec![address(number).into()],
                image: None,
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
        answers_per_second: GatewaySettings::ANSWERS_PER_SECOND,
    }
}

/// What is changed one at a time, in this order, in every round.
const CHANGES: [(&str, Change); 3] = [
    ("weight of one instance", |instance| {
        instance.policy.weight = 50;
    }),
    ("one instance stopped", |instance| {
        instance.state = InstanceState::Stopped;
    }),
    ("one instance started", |instance| {
        instance.state = InstanceState::Running;
        instance.policy.weight = 100;
    }),
];

/// Many services: everything at once, then one thing at a time.
fn scale(groups: usize) -> Result<Vec<Figure>> {
    let backends = groups * INSTANCES;
    let capacity = Capacity {
        vips: groups as u32 + 100,
        // Room for the tables that changes are written to.
        slots: (groups as u32 + 100) * TABLE,
        backends: backends as u32 + 100,
        returns: backends as u32 + 100,
        ..Capacity::default()
    };
    let mut dataplane = KernelDataplane::open_unattached(None, capacity)?;
    let paths: BTreeMap<IpAddr, Path> = (0..backends).map(|n| (address(n), path(n))).collect();
    dataplane.set_paths(paths);
    let state = desired(groups)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut run = runtime.block_on(async { Run::start(dataplane, state) })?;
    let name = format!("{groups} services × {INSTANCES}");
    let load = run.loaded()?;
    let mut figures = vec![Figure::new(
        format!("{name}: full load"),
        load,
        "ms",
        Some(3_000.0),
    )];
    let (others, resident) = memory()?;
    let maps = others + mapped(&capacity);
    figures.push(Figure::new(format!("{name}: maps"), maps, "MiB", None));
    figures.push(Figure::new(
        format!("{name}: agent, maps mapped"),
        resident,
        "MiB",
        None,
    ));
    let mut times: Vec<f64> = vec![f64::MAX; CHANGES.len()];
    for round in 0..5 {
        let changed = instance_uuid((round * 37 * INSTANCES + 5) as u128 + 1);
        for (time, (_, change)) in times.iter_mut().zip(CHANGES) {
            *time = time.min(run.change(changed, change)?);
        }
    }
    figures.extend(
        CHANGES
            .iter()
            .zip(times)
            .map(|((what, _), time)| Figure::new(format!("{name}: {what}"), time, "ms", Some(5.0))),
    );
    drop(run);
    runtime.shutdown_timeout(Duration::from_secs(10));
    Ok(figures)
}

/// The reconcile loop at work.
struct Run {
    runtime: tokio::runtime::Handle,
    desired: watch::Sender<Arc<DesiredState>>,
    handle: ReconcilerHandle,
    begun: Instant,
}

impl Run {
    fn start(dataplane: KernelDataplane, state: DesiredState) -> Result<Self> {
        let (desired, watched) = watch::channel(Arc::new(state));
        let timing = Timing {
            // Only changes lead to passes here.
            periodic: Duration::from_secs(3600),
            ..Timing::default()
        };
        let made = Reconciler::new(Box::new(dataplane), gateway(), watched, timing);
        let (reconciler, handle) = made.context("starting the data plane's thread")?;
        let begun = Instant::now();
        tokio::spawn(reconciler.run());
        Ok(Self {
            runtime: tokio::runtime::Handle::current(),
            desired,
            handle,
            begun,
        })
    }

    fn loaded(&self) -> Result<f64> {
        self.wait(1)?;
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

    /// Changes an instance; returns how long that took to be applied. Making the new state is the
    /// store's work and not counted; the grace of the former table is waited for.
    fn change(&mut self, instance: Uuid, change: Change) -> Result<f64> {
        let mut state = DesiredState::clone(&self.desired.borrow());
        state.generation += 1;
        change(state.instances.get_mut(&instance).context("an instance")?);
        let (generation, state) = (state.generation, Arc::new(state));
        crate::poll::keep_pace(Instant::now(), Timing::default().grace * 2);
        let begun = Instant::now();
        self.desired.send_replace(state);
        self.wait(generation)?;
        Ok(millis(begun.elapsed()))
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
