//! `lbagent replay`: captured packets through the real programs, and why each went where it went.
//!
//! The object is loaded without being attached, its maps are filled by the agent's own plan and
//! apply, and every packet is run by the kernel in a network namespace of its own, where each
//! backend is reachable as the state document says.

mod capture;
mod destination;
mod document;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use lbagent_common::BackendId;
use serde::Serialize;
use time::OffsetDateTime;

use crate::dataplane::{
    Action, ActualState, Capacity, CounterSnapshot, Dataplane, DataplaneError, KernelDataplane,
    Path, Sandbox, Step,
};
use crate::desired::DesiredState;
use crate::plan::{self, Elsewhere, GatewaySettings, Health, IdCursor, PlanInput, Terminator};
use capture::Captured;
use verdict::{Namer, Verdict};

/// Plans until nothing is left to do: a plan makes room for the next one at most this often.
const MAX_PASSES: usize = 8;

/// The side that the captured packets came in on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ingress {
    /// From clients: `lb_ingress`.
    #[default]
    Client,
    /// From backends: `lb_return`.
    Return,
}

/// What to replay, and where the results go.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// A state document, as `lbctl state export` writes it.
    pub state: PathBuf,
    /// Packets, pcap or pcapng.
    pub pcap_in: PathBuf,
    /// Gets the packets as the programs left them, without those that they dropped.
    pub pcap_out: PathBuf,
    /// Gets one JSON object a line for each packet.
    pub verdicts: PathBuf,
    /// Where the packets came in.
    pub ingress: Ingress,
    /// Interfaces of the exporting host, by index, that face clients. What leaves for a backend by
    /// one of them is `tx` from the client side, everything else is `redirect`.
    pub client_ifindexes: BTreeSet<u32>,
    /// BPF object to use instead of the embedded one.
    pub object: Option<PathBuf>,
}

/// What a state document comes down to.
#[derive(Clone, Debug)]
struct ReplayState {
    /// What was asked for.
    desired: DesiredState,
    /// The gateway's part of the configuration.
    gateway: GatewaySettings,
    /// Map capacities.
    capacity: Capacity,
    /// How the gateway reaches its backends; one that is absent has no route.
    paths: BTreeMap<IpAddr, Path>,
    /// Interfaces of `paths` that face clients.
    client_side: BTreeSet<u32>,
}

/// How many packets ended how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// By reason.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// Replays; the files are complete when this returns without an error.
pub fn replay(options: &ReplayOptions) -> Result<Summary> {
    let state = document::read(&options.state, options.client_ifindexes.clone())?;
    let packets = capture::read(&options.pcap_in)?;
    let options = options.clone();
    // A thread of its own, because the network namespace is one too.
    thread::spawn(move || run(&options, &state, &packets))
        .join()
        .map_err(|_| anyhow!("the replay ended by a panic, which is a mistake in lbagent"))?
}

fn run(options: &ReplayOptions, state: &ReplayState, packets: &[Captured]) -> Result<Summary> {
    let mut sandbox = Sandbox::enter().map_err(privileged)?;
    let mut dataplane =
        KernelDataplane::open_unattached(options.object.as_deref(), state.capacity)?;
    dataplane.set_paths(sandbox.connect(&state.paths, &state.client_side)?);
    // As long as packets run: a socket that is closed leaves the map.
    let listening = sandbox.listen()?;
    for (index, socket) in (0..).zip(&listening) {
        dataplane.set_terminator(index, socket.as_ref())?;
    }
    let actual = fill(&mut dataplane, state)?;
    let ifindex = match options.ingress {
        Ingress::Client => sandbox.client_ifindex,
        Ingress::Return => sandbox.backend_ifindex,
    };
    let mut replay = Replay {
        namer: Namer::new(&state.desired, &actual),
        backends: actual.backends.keys().copied().collect(),
        counters: CounterSnapshot::default(),
        dataplane,
        ingress: options.ingress,
        ifindex,
    };
    let mut output = capture::Writer::create(&options.pcap_out)?;
    let mut lines = BufWriter::new(
        File::create(&options.verdicts)
            .with_context(|| format!("cannot create {}", options.verdicts.display()))?,
    );
    let mut summary = Summary::default();
    replay.counters = replay.read_counters()?;
    for (index, packet) in packets.iter().enumerate() {
        let (mut verdict, left) = replay
            .step(packet)
            .with_context(|| format!("packet {index}"))?;
        verdict.index = index as u64;
        if verdict.action != Action::Drop {
            verdict.out_index = Some(output.add(packet.at, &left)?);
        }
        *summary.reasons.entry(verdict.reason).or_default() += 1;
        serde_json::to_writer(&mut lines, &verdict)?;
        lines.write_all(b"\n")?;
    }
    lines.flush()?;
    output.finish()?;
    Ok(summary)
}

/// Says what a user who is not root lacks.
fn privileged(error: DataplaneError) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    let is_refusal = |cause: &std::io::Error| cause.kind() == ErrorKind::PermissionDenied;
    if error
        .chain()
        .filter_map(|cause| cause.downcast_ref())
        .any(is_refusal)
    {
        return error.context(
            "the kernel runs packets for privileged users only: run this as root, or with \
             CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF",
        );
    }
    error
}

/// Fills the maps as the agent does. What the gateway could not serve either is only warned about.
fn fill(dataplane: &mut KernelDataplane, state: &ReplayState) -> Result<ActualState> {
    let addresses = plan::backend_addresses(&state.desired);
    let mut cursor = IdCursor::default();
    for _ in 0..MAX_PASSES {
        let actual = dataplane.read(&addresses)?;
        let plan = plan::plan(&PlanInput {
            desired: &state.desired,
            gateway: &state.gateway,
            health: &Health::new(),
            terminator: Terminator { v4: true, v6: true },
            elsewhere: &Elsewhere::default(),
            actual: &actual,
            retired: &BTreeSet::new(),
            cursor,
            now: OffsetDateTime::now_utc(),
        });
        // Probes are no change: they come with every plan.
        if plan
            .steps
            .iter()
            .all(|step| matches!(step, Step::Probe(..)))
        {
            for condition in &plan.conditions {
                tracing::warn!(object = ?condition.object, "{}", condition.reason);
            }
            return Ok(actual);
        }
        for step in &plan.steps {
            dataplane
                .apply(step)
                .with_context(|| format!("cannot apply {step:?}"))?;
        }
        cursor = plan.cursor;
    }
    bail!("the plan does not come to an end, which is a mistake in lbagent")
}

struct Replay {
    dataplane: KernelDataplane,
    ingress: Ingress,
    ifindex: u32,
    namer: Namer,
    backends: Vec<BackendId>,
    counters: CounterSnapshot,
}

impl Replay {
    fn step(&mut self, packet: &Captured) -> Result<(Verdict, Vec<u8>)> {
        let run = match self.ingress {
            Ingress::Client => self.dataplane.run_ingress(&packet.bytes, self.ifindex),
            Ingress::Return => self.dataplane.run_return(&packet.bytes, self.ifindex),
        }?;
        let after = self.read_counters()?;
        let verdict = self
            .namer
            .verdict(&packet.bytes, run.action, &self.counters, &after)?;
        self.counters = after;
        Ok((verdict, run.packet))
    }

    fn read_counters(&mut self) -> Result<CounterSnapshot> {
        Ok(self.dataplane.counters(&[], &self.backends)?)
    }
}
