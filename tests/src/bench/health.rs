//! `cargo xtask bench health`: what 10,000 health checks every 5 s cost the agent.
//!
//! The agent's own health checks, started as the agent does, against servers of the same process
//! behind as many loopback addresses. What counts is the time of the thread that checks; over
//! loopback that holds the kernel's work for the servers' side too, so it is an upper bound.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lbagent::desired::{
    Check, DEFAULT_ACCOUNT, DesiredState, GroupPolicy, HealthPolicy, Instance, InstancePolicy,
    InstanceState, Service, ServiceGroup, Transport,
};
use lbagent::health::{self, Carried, HealthHandle};
use lbagent::plan::{GatewaySettings, SynShield, UnpublishedPorts, WithoutTerminator};
use lbagent_api::health::{CheckSpec, Payload};
use lbagent_api::health_report::HealthCounters;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use uuid::Uuid;

use super::control::{Figure, Options, report};
use crate::poll::keep_pace;

const CHECKS: u32 = 10_000;
const MEMBERS: u32 = 16;
/// Most of a core, in percent.
const GOAL: f64 = 50.0;
const INTERVAL: Duration = Duration::from_secs(5);

/// Measures, prints, and tells whether every goal is met, if that was asked.
pub fn run(options: &Options) -> Result<bool> {
    let servers = Servers::start()?;
    let time = INTERVAL * if options.quick { 2 } else { 6 };
    let mut figures = Vec::new();
    for kind in ["tcp", "http", "udp"] {
        figures.extend(measure(kind, &servers, time)?);
    }
    report(&figures, options)
}

fn measure(kind: &str, servers: &Servers, time: Duration) -> Result<Vec<Figure>> {
    let resident = resident_kib()?;
    let (_desired, watched) = watch::channel(Arc::new(desired(kind, servers)?));
    let (stop, stopped) = watch::channel(false);
    let (handle, _verdicts) = health::start(watched, gateway(), (Carried::new(), stopped))?;
    // The first checks of all are spread over the first interval.
    keep_pace(Instant::now(), INTERVAL);
    let (busy, begun, before) = (busy()?, Instant::now(), handle.counters());
    keep_pace(begun, time);
    let (busy, elapsed, after) = (self::busy()? - busy, begun.elapsed(), handle.counters());
    let resident = resident_kib()?.saturating_sub(resident);
    stop.send_replace(true);
    ensure_all_checked(&handle, &after)?;
    let failed = |counters: &HealthCounters| counters.failures.values().sum::<u64>();
    let what = |what: &str| format!("{CHECKS} {kind} checks every 5 s: {what}");
    let checks = (after.checks - before.checks) as f64 / elapsed.as_secs_f64();
    let share = busy.as_secs_f64() / elapsed.as_secs_f64() * 100.0;
    Ok(vec![
        Figure::new(what("of one core"), share, "%", Some(GOAL)),
        Figure::new(what("made"), checks, "/sec", None),
        Figure::new(what("late"), (after.late - before.late) as f64, "", None),
        // Checks that got no CPU in time cost less than those that are made.
        Figure::new(what("failed"), failed(&after) as f64, "", Some(0.0)),
        Figure::new(what("memory"), resident as f64, "KiB", None),
    ])
}

fn ensure_all_checked(handle: &HealthHandle, counters: &HealthCounters) -> Result<()> {
    let checked =
        counters.configured == u64::from(CHECKS) && counters.checks >= counters.configured;
    ensure!(checked, "not all were checked: {counters:?}");
    let groups = handle.report(|_| true).len();
    ensure!(groups == (CHECKS / MEMBERS) as usize, "{groups} groups");
    Ok(())
}

/// The time that the thread of the checks has run.
fn busy() -> Result<Duration> {
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        // A former one may be about to end: it is the last of that name that counts.
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim() == "health" {
            let stat = fs::read_to_string(path.join("schedstat"))?;
            let nanos = stat.split(' ').next().context("a time")?.parse()?;
            return Ok(Duration::from_nanos(nanos));
        }
    }
    anyhow::bail!("no thread makes checks")
}

fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("VmRSS")?.parse()?)
}

fn gateway() -> GatewaySettings {
    GatewaySettings {
        vips: [IpAddr::from([192, 0, 2, 10])].into(),
        unpublished_ports: UnpublishedPorts::Pass,
        hash_seed: 1,
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

fn desired(kind: &str, servers: &Servers) -> Result<DesiredState> {
    let is_udp = kind == "udp";
    let port = if is_udp { servers.udp } else { servers.tcp };
    let send = is_udp.then(|| Payload::new(*b"ping")).transpose()?;
    let check = Check::try_from(CheckSpec {
        kind: kind.to_owned(),
        expect: send.clone(),
        send,
        ..CheckSpec::default()
    })?;
    let mut state = DesiredState::default();
    for number in 0..CHECKS / MEMBERS {
        let service = Service {
            port: 80,
            destination_port: port,
            protocol: if is_udp {
                Transport::Udp
            } else {
                Transport::Tcp
            },
            ip: None,
            handlers: Vec::new(),
        };
        let group = group(number, service, &check);
        state.service_groups.insert(group.uuid, group);
    }
    for number in 0..CHECKS {
        // A UDP socket bound to no address answers from this one, whichever was asked.
        let address = match is_udp {
            true => Ipv4Addr::LOCALHOST,
            false => Ipv4Addr::from_bits(0x7f01_0000 + number),
        };
        let instance = instance(number, address);
        state.instances.insert(instance.uuid, instance);
    }
    Ok(state)
}

/// Spread, as version 4 UUIDs are.
fn spread(number: u32, salt: u128) -> Uuid {
    let spread = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128;
    Uuid::from_u128(u128::from(number + 1).wrapping_mul(spread) ^ salt)
}

fn group(number: u32, service: Service, check: &Check) -> ServiceGroup {
    ServiceGroup {
        uuid: spread(number, 1),
        account: DEFAULT_ACCOUNT,
        name: format!("group-{number}"),
        created_at: OffsetDateTime::UNIX_EPOCH,
        persistent: true,
        soft_limit: 1,
        hard_limit: 2,
        services: vec![service],
        domains: Vec::new(),
        autokill_ms: 0,
        empty_since: None,
        policy: GroupPolicy {
            health: HealthPolicy {
                check: Some(check.clone()),
                ..HealthPolicy::default()
            },
            ..GroupPolicy::default()
        },
    }
}

fn instance(number: u32, address: Ipv4Addr) -> Instance {
    Instance {
        uuid: spread(number, 2),
        account: DEFAULT_ACCOUNT,
        name: format!("instance-{number}"),
        created_at: OffsetDateTime::UNIX_EPOCH,
        state: InstanceState::Running,
        service_group: Some(spread(number / MEMBERS, 1)),
        addresses: vec![IpAddr::from(address).into()],
        image: None,
        annotations: Default::default(),
        tags: Default::default(),
        policy: InstancePolicy::default(),
    }
}

/// Servers that answer at once, on a thread of their own.
struct Servers {
    tcp: u16,
    udp: u16,
    _runtime: tokio::runtime::Runtime,
}

impl Servers {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let (tcp, udp) = runtime.block_on(async {
            anyhow::Ok((TcpListener::bind(any).await?, UdpSocket::bind(any).await?))
        })?;
        let ports = (tcp.local_addr()?.port(), udp.local_addr()?.port());
        runtime.spawn(serve(tcp));
        runtime.spawn(echo(udp));
        Ok(Self {
            tcp: ports.0,
            udp: ports.1,
            _runtime: runtime,
        })
    }
}

async fn serve(listener: TcpListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(async move {
            let mut asked = [0; 1024];
            if matches!(stream.read(&mut asked).await, Ok(1..)) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                let _ = stream.write_all(answer).await;
            }
        });
    }
}

async fn echo(socket: UdpSocket) {
    let mut asked = [0; 64];
    while let Ok((len, from)) = socket.recv_from(&mut asked).await {
        let _ = socket.send_to(&asked[..len], from).await;
    }
}
