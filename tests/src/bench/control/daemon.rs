//! Ten thousand service groups in the real daemon: what its clients wait for, and what it takes.
//!
//! A change is answered once the data plane holds it, so the way from an accepted request to the map
//! is within the time of the answer. Requests are sent at fixed times, whether or not the ones before
//! were answered by then, and their time counts from there: who comes while everything waits is not
//! left out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lbagent_api::service_group::{Protocol, Service};
use lbagent_api::state::{
    FORMAT, StateDocument, StateInstance, StateInstanceState, StateServiceGroup,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::scale::{INSTANCES, TABLE, address, group_uuid};
use super::{Figure, instance_uuid, millis};
use crate::agent::{API, Agent, Config};
use crate::poll::{keep_pace, retry};
use crate::topology::{Shape, Topology, VIPS};

const PATIENCE: Duration = Duration::from_secs(120);
/// Changes a second while their times are measured.
const PACE: u32 = 20;
/// Changes whose times are a round: machines that do other work too have better and worse ones.
const ROUND: usize = 200;
/// MiB that the daemon may have for itself: 300 MB.
const OWN_MEMORY: f64 = 286.0;
/// First port of groups that the benchmark creates.
const PORTS: usize = 20_000;

/// Measures with so many groups, against a tenth of them.
pub(super) fn measure(groups: usize, is_quick: bool) -> Result<Vec<Figure>> {
    let topology = Topology::build(Shape::Routed, 1)?;
    let router = topology.backends[0].addresses[0].to_string();
    let status = topology
        .gateway
        .command("ip")
        .args(["route", "add", "10.0.0.0/13", "via", &router])
        .status()?;
    ensure!(status.success(), "no route to the instances");
    let mut agent = Agent::start(&topology.gateway, &config(&topology, groups))?;
    let name = format!("{groups} groups × {INSTANCES}, daemon");
    let figure =
        |what: &str, value, unit, goal| Figure::new(format!("{name}: {what}"), value, unit, goal);

    let few = on_host(&topology, || loaded(groups / 10).and_then(one_more))?;
    let rounds = if is_quick { 5 } else { 60 } * PACE;
    let pid = agent.pid()?;
    let (many, changes, waited, created, listed) = on_host(&topology, || {
        let mut session = loaded(groups)?;
        let before = Cpu::of(pid)?;
        let changes = changes(&mut session, rounds)?;
        let waited = (Cpu::of(pid)?.waited - before.waited) / f64::from(rounds);
        let created = creates(&mut session)?;
        let listed = lists(&mut session, groups)?;
        Ok((one_more(session)?, changes, waited, created, listed))
    })?;
    let memory = memory(&agent)?;
    agent.kill()?;
    let restarted = started(&topology, &mut agent)?;
    agent.terminate()?;
    let detached = agent.run(&["detach", "--config", crate::agent::CONFIG_PATH])?;
    ensure!(detached.code == 0, "detach: {}", detached.stderr);
    let started = started(&topology, &mut agent)?;
    let rounds: Vec<f64> = changes.chunks(ROUND).map(|times| at(times, 0.99)).collect();
    Ok(vec![
        figure("change to map, p50", at(&changes, 0.5), "ms", None),
        figure("change to map, p99", at(&changes, 0.99), "ms", Some(10.0)),
        figure("p99, median of rounds", at(&rounds, 0.5), "ms", None),
        figure("p99, best round", at(&rounds, 0.0), "ms", None),
        figure("change to map, slowest", at(&changes, 1.0), "ms", None),
        figure("waiting for a CPU, by change", waited, "ms", None),
        figure("one more group", many, "ms", None),
        figure(
            "one more group, against a tenth",
            many / few,
            "×",
            Some(1.5),
        ),
        figure("groups created by 4 clients", created, "/sec", None),
        figure("lists of 100 groups, one client", listed, "/sec", None),
        figure("start, maps kept", restarted.wall, "ms", Some(3_000.0)),
        figure("start, maps kept: CPU", restarted.cpu.ran, "ms", None),
        figure("of it waiting for one", restarted.cpu.waited, "ms", None),
        figure("start, nothing kept", started.wall, "ms", Some(3_000.0)),
        figure("start, nothing kept: CPU", started.cpu.ran, "ms", None),
        figure("of it waiting for one", started.cpu.waited, "ms", None),
        figure("own memory", memory.own, "MiB", Some(OWN_MEMORY)),
        figure("resident, mapped maps too", memory.resident, "MiB", None),
    ])
}

/// A value of which so large a part of all is not above it.
fn at(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part) as usize]
}

fn config(topology: &Topology, groups: usize) -> Config {
    let room = groups as u32 + 3_000;
    let backends = room * INSTANCES as u32;
    let mut config = Config::new(topology);
    // Instances have IPv4 addresses.
    config.vips.retain(IpAddr::is_ipv4);
    config.limits = [
        ("vips", room),
        ("slots", (groups as u32 + 200) * TABLE + room * 32),
        ("backends", backends),
        ("returns", backends),
        ("conns", 1 << 14),
        ("nat_flows", 1 << 12),
    ]
    .into();
    config
}

fn on_host<T: Send>(topology: &Topology, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    topology.gateway.run(work)
}

fn document(groups: usize) -> StateDocument {
    let created_at = OffsetDateTime::UNIX_EPOCH;
    let group = |number| StateServiceGroup {
        uuid: group_uuid(number),
        account: uuid::Uuid::nil(),
        name: format!("group-{number}"),
        created_at,
        persistent: true,
        soft_limit: 1,
        hard_limit: u16::MAX,
        services: vec![Service {
            port: 1_000 + number as u16,
            destination_port: 8_080,
            protocol: Protocol::Tcp,
            ip: None,
            handlers: Vec::new(),
        }],
        domains: Vec::new(),
        autokill: None,
        empty_since: None,
        policy: Default::default(),
    };
    let instance = |number: usize| StateInstance {
        uuid: instance_uuid(number as u128 + 1),
        account: uuid::Uuid::nil(),
        name: format!("instance-{number}"),
        created_at,
        state: StateInstanceState::Running,
        service_group: Some(group_uuid(number / INSTANCES)),
        addresses: vec![format!("{}/32", address(number))],
        image: None,
        tags: Vec::new(),
        annotations: Default::default(),
        policy: Default::default(),
    };
    StateDocument {
        format: FORMAT,
        generation: 0,
        vips: vec![VIPS[0]],
        hash_seed: 0,
        unpublished_ports: Default::default(),
        udp_idle_s: 60,
        accounts: Vec::new(),
        tokens: Vec::new(),
        certificates: None,
        terminator: None,
        service_groups: (0..groups).map(group).collect(),
        instances: (0..groups * INSTANCES).map(instance).collect(),
        paths: None,
    }
}

/// A session with a daemon that holds so many groups.
fn loaded(groups: usize) -> Result<Session> {
    let mut session = Session::open()?;
    let document = serde_json::to_string(&document(groups))?;
    session.change("PUT", "/v1/x/state", &document)?;
    Ok(session)
}

fn policy(instance: usize) -> String {
    let uuid = instance_uuid(instance as u128 + 1);
    format!("/v1/x/instances/{uuid}/policy")
}

/// Times of changes: weights, and instances that stop and start again.
fn changes(session: &mut Session, rounds: u32) -> Result<Vec<f64>> {
    let begun = Instant::now();
    let mut times = Vec::with_capacity(rounds as usize);
    for round in 0..rounds {
        let due = Duration::from_secs(1) * round / PACE;
        keep_pace(begun, due);
        let instance = (round / 4) as usize * 7;
        let uuid = instance_uuid(instance as u128 + 1);
        match round % 4 {
            0 => session.change("PUT", &policy(instance), r#"{"policy":{"weight":50}}"#),
            1 => session.change("PUT", &policy(instance), r#"{"policy":{"weight":100}}"#),
            2 => session.change("PUT", &format!("/v1/instances/{uuid}/stop"), "{}"),
            _ => session.change("PUT", &format!("/v1/instances/{uuid}/start"), "{}"),
        }?;
        times.push(millis(begun.elapsed().saturating_sub(due)));
    }
    Ok(times)
}

/// The median time that a new group takes, in milliseconds. It goes again.
fn one_more(mut session: Session) -> Result<f64> {
    let mut times = Vec::new();
    for number in 0..21 {
        let begun = Instant::now();
        let uuid = session.create(PORTS + number)?;
        times.push(millis(begun.elapsed()));
        session.change("DELETE", &format!("/v1/services/{uuid}"), "")?;
    }
    Ok(at(&times, 0.5))
}

/// Groups that four clients create in a second. They go again.
fn creates(session: &mut Session) -> Result<f64> {
    const CLIENTS: usize = 4;
    const EACH: usize = 100;
    let begun = Instant::now();
    let client = |client: usize| -> Result<Vec<String>> {
        let mut session = Session::open()?;
        let ports = PORTS + client * EACH..PORTS + (client + 1) * EACH;
        ports.map(|port| session.create(port)).collect()
    };
    let made: Vec<Vec<String>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        let ended = clients.into_iter().map(|client| client.join());
        ended
            .map(|ended| ended.unwrap_or_else(|_| bail!("a client panicked")))
            .collect::<Result<_>>()
    })?;
    let rate = (CLIENTS * EACH) as f64 / begun.elapsed().as_secs_f64();
    let named: Vec<Value> = made
        .concat()
        .iter()
        .map(|uuid| json!({ "uuid": uuid }))
        .collect();
    session.change("DELETE", "/v1/services", &Value::from(named).to_string())?;
    Ok(rate)
}

/// Pages that one client reads in a second.
fn lists(session: &mut Session, groups: usize) -> Result<f64> {
    const PAGES: usize = 100;
    let begun = Instant::now();
    for page in 0..PAGES {
        let path = format!(
            "/v1/services?count=100&from={}",
            group_uuid(page * 7 % groups)
        );
        let answer = session.call("GET", &path, "")?;
        ensure!(
            answer["data"]["service_groups"][0]["instances"].is_array(),
            "{answer}"
        );
    }
    Ok(PAGES as f64 / begun.elapsed().as_secs_f64())
}

/// What a start took until the data plane had what is desired.
struct Start {
    wall: f64,
    cpu: Cpu,
}

/// Starts the daemon.
fn started(topology: &Topology, agent: &mut Agent) -> Result<Start> {
    let begun = Instant::now();
    agent.spawn()?;
    on_host(topology, || {
        retry("the daemon", PATIENCE, || {
            let answer = Session::open()?.call("GET", "/v1/healthz", "")?;
            let checks = &answer["data"]["checks"];
            ensure!(checks["dataplane"] == "healthy", "{answer}");
            Ok(())
        })
    })?;
    Ok(Start {
        wall: millis(begun.elapsed()),
        cpu: Cpu::of(agent.pid()?)?,
    })
}

/// Milliseconds of a process, all of its threads that are there together.
struct Cpu {
    ran: f64,
    /// Ready to run, while others ran.
    waited: f64,
}

impl Cpu {
    fn of(pid: u32) -> Result<Self> {
        let (mut ran, mut waited) = (0.0, 0.0);
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile.
            let Ok(times) = std::fs::read_to_string(thread?.path().join("schedstat")) else {
                continue;
            };
            let mut times = times.split_whitespace().map(str::parse::<f64>);
            ran += times.next().context("a time")?? / 1e6;
            waited += times.next().context("a time")?? / 1e6;
        }
        Ok(Self { ran, waited })
    }
}

/// MiB of the daemon.
struct Memory {
    resident: f64,
    /// Without what it has mapped: the maps' memory is the kernel's, whether or not an agent runs.
    own: f64,
}

fn memory(agent: &Agent) -> Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()?))?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.with_context(|| name.to_owned())?.parse::<f64>()? / 1024.0)
    };
    Ok(Memory {
        resident: field("VmRSS:")?,
        own: field("RssAnon:")?,
    })
}

/// One connection to the API of the host that this thread is on.
struct Session(BufReader<TcpStream>);

impl Session {
    fn open() -> Result<Self> {
        let api: SocketAddr = API.parse()?;
        let stream = TcpStream::connect(api)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// A request that must succeed; returns the answer.
    fn call(&mut self, method: &str, path: &str, body: &str) -> Result<Value> {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: {API}\r\ncontent-length: {length}\r\n\r\n");
        self.0.get_mut().write_all((head + body).as_bytes())?;
        let (mut line, mut length, mut is_ok) = (String::new(), 0, false);
        while line != "\r\n" {
            line.clear();
            ensure!(
                self.0.read_line(&mut line)? > 0,
                "{method} {path}: no answer"
            );
            is_ok |= line.starts_with("HTTP/1.1 200 ");
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let is_done = is_ok && answer["status"] == "success";
        ensure!(is_done, "{method} {path}: {answer}");
        Ok(answer)
    }

    /// A change, until the data plane has it: as a rule when it is answered, else what the daemon does
    /// at that moment is waited for.
    fn change(&mut self, method: &str, path: &str, body: &str) -> Result<Value> {
        let answer = self.call(method, path, body)?;
        if !answer["warnings"].is_null() {
            retry("what is desired in the maps", PATIENCE, || {
                let status = &self.call("GET", "/v1/x/status", "")?["data"]["status"];
                let is_applied = status["generation_applied"] == status["generation_desired"];
                ensure!(is_applied, "{answer}");
                Ok(())
            })?;
        }
        Ok(answer)
    }

    /// A new group with this port; returns its UUID.
    fn create(&mut self, port: usize) -> Result<String> {
        let body = json!({ "services": [{ "port": port, "protocol": "tcp" }] });
        let answer = self.change("POST", "/v1/services", &body.to_string())?;
        let uuid = answer["data"]["service_groups"][0]["uuid"].as_str();
        Ok(uuid.context("no UUID")?.to_owned())
    }
}
