//! `cargo xtask bench datapath`: nanoseconds per packet of `lb_ingress`, beside floor programs.
//!
//! The real object is filled by the agent's own plan and apply, in a namespace with routes and
//! neighbours, and called through the harness that restores the packet. Cases take turns in every
//! round, so that a machine that gets slower or faster does so for all of them; the ratio of a
//! case compares it with the reference of the same round.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lbagent::desired::Transport;
use lbagent_common::{Port, Protocol, VipKey};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::floors::{Floors, Restore, Target};
use super::report::{self, Figure, Goal};
use crate::packet_builder::{self, Segment};
use crate::prog_run::{CLIENT_V4, CLIENT_V6, Rig, VIP_V4, VIP_V6};

/// The most that a case may cost, in units of `floor/ref`. A UDP flow also pays for a cache line of
/// `UDP_SEEN`.
const GOALS: &[Goal] = &[
    Goal {
        case: "established/1",
        proto: "tcp",
        ratio: 2.0,
    },
    Goal {
        case: "established/64k",
        proto: "tcp",
        ratio: 2.5,
    },
    Goal {
        case: "established/512k",
        proto: "tcp",
        ratio: 3.0,
    },
    Goal {
        case: "syn/distinct",
        proto: "tcp",
        ratio: 3.0,
    },
    Goal {
        case: "foreign",
        proto: "tcp",
        ratio: 1.1,
    },
];

/// The unit of all ratios.
const REFERENCE: &str = "floor/ref";
/// Instances behind the VIP.
const BACKENDS: u32 = 100;
const VIP_PORT: u16 = 80;
const DESTINATION_PORT: u16 = 8080;
/// Destinations that are nobody's VIP.
const FOREIGN_V4: &str = "192.0.2.99";
const FOREIGN_V6: &str = "2001:db8:a::99";

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// How to measure and where to write.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer rounds of fewer packets.
    pub quick: bool,
    /// Fail when a goal is missed.
    pub check: bool,
    /// Where the figures go.
    pub json: Option<PathBuf>,
}

/// One thing to measure.
struct Case {
    name: &'static str,
    family: &'static str,
    proto: &'static str,
    mode: &'static str,
    target: Target,
    frame: Vec<u8>,
    flows: Option<u32>,
    /// What the program must return.
    action: u32,
    /// Bytes by which the frame must grow.
    growth: u32,
    /// How many backends a long run must reach.
    backends: u32,
}

/// Measures and reports. Returns whether the run is good: goals count only when asked for.
pub fn run(options: &Options) -> Result<bool> {
    let (rounds, packets) = if options.quick {
        (5, 50_000)
    } else {
        (20, 200_000)
    };
    stay_on_this_cpu()?;
    let mut rig = rig()?;
    let mut floors = Floors::load(rig.dataplane.ingress_program()?.fd()?)?;
    let vip: SocketAddr = format!("{VIP_V4}:{VIP_PORT}").parse()?;
    let keys = [Protocol::TCP, Protocol::UDP]
        .map(|protocol| VipKey::new(vip.ip().into(), Port::new(vip.port()), protocol));
    floors.publish(&keys, BACKENDS)?;
    let ifindex = nix::net::if_::if_nametoindex("cl0").context("the rig's client interface")?;
    let cases = cases()?;
    for case in &cases {
        verify(case, &mut rig, &mut floors, ifindex)
            .with_context(|| format!("{} {} {}", case.name, case.family, case.proto))?;
    }
    println!("{rounds} rounds of {packets} packets, {BACKENDS} backends");
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        for (case, times) in cases.iter().zip(&mut times) {
            floors.prepare(&case.restore())?;
            let result = floors.run(&case.frame, ifindex, packets)?;
            times.push(result.duration.as_nanos() as f64);
        }
        if u32::is_multiple_of(round + 1, 5) {
            eprintln!("{} of {rounds} rounds", round + 1);
        }
    }
    let figures = figures(&cases, &times)?;
    print!("{}", report::table(&figures, GOALS));
    if let Some(path) = &options.json {
        report::write_json(&figures, path)?;
    }
    match report::missed(&figures, GOALS) {
        Some(line) if options.check => {
            println!("{line}");
            Ok(false)
        }
        _ => Ok(true),
    }
}

impl Case {
    fn restore(&self) -> Restore<'_> {
        Restore {
            target: self.target,
            frame: &self.frame,
            flows: self.flows,
        }
    }
}

/// Every case, the floors first.
fn cases() -> Result<Vec<Case>> {
    const MANY: Option<u32> = Some(1 << 16);
    let ack = |client: &str, vip: &str| frame(client, vip, Transport::Tcp, Segment::Ack);
    let floor = |name, target, growth| -> Result<Case> {
        let frame = ack(CLIENT_V4, VIP_V4)?;
        let names = (name, "ipv4", "tcp", "none");
        Ok(Case::new(names, target, frame, MANY).expecting(XDP_TX, growth, 0))
    };
    let mut cases = vec![
        floor("floor/tx", Target::Tx, 0)?,
        floor(REFERENCE, Target::Reference, 20)?,
        floor("floor/stateless", Target::Stateless, 20)?,
    ];
    let families = [
        ("ipv4", CLIENT_V4, VIP_V4, FOREIGN_V4),
        ("ipv6", CLIENT_V6, VIP_V6, FOREIGN_V6),
    ];
    for (family, client, vip, foreign) in families {
        for (proto, transport) in [("tcp", Transport::Tcp), ("udp", Transport::Udp)] {
            let mut add = |name, frame, flows, action, backends| {
                let names = (name, family, proto, "nat");
                let case = Case::new(names, Target::Ingress, frame, flows);
                cases.push(case.expecting(action, 0, backends));
            };
            let established = frame(client, vip, transport, Segment::Ack)?;
            add(
                "established/1",
                established.clone(),
                Some(1),
                XDP_REDIRECT,
                1,
            );
            add(
                "established/64k",
                established.clone(),
                MANY,
                XDP_REDIRECT,
                BACKENDS,
            );
            add(
                "established/512k",
                established,
                Some(1 << 19),
                XDP_REDIRECT,
                BACKENDS,
            );
            if transport == Transport::Tcp {
                let syn = frame(client, vip, transport, Segment::Syn)?;
                add("syn/distinct", syn, None, XDP_REDIRECT, BACKENDS);
            }
            add(
                "foreign",
                frame(client, foreign, transport, Segment::Ack)?,
                MANY,
                XDP_PASS,
                0,
            );
        }
    }
    Ok(cases)
}

impl Case {
    fn new(
        (name, family, proto, mode): (&'static str, &'static str, &'static str, &'static str),
        target: Target,
        frame: Vec<u8>,
        flows: Option<u32>,
    ) -> Self {
        Self {
            name,
            family,
            proto,
            mode,
            target,
            frame,
            flows,
            action: XDP_PASS,
            growth: 0,
            backends: 0,
        }
    }

    fn expecting(self, action: u32, growth: u32, backends: u32) -> Self {
        Self {
            action,
            growth,
            backends,
            ..self
        }
    }
}

/// A frame as long as the words that the harness restores.
fn frame(client: &str, vip: &str, transport: Transport, segment: Segment) -> Result<Vec<u8>> {
    let client = SocketAddr::new(client.parse()?, 40_000);
    let vip = SocketAddr::new(vip.parse()?, VIP_PORT);
    let len = if vip.is_ipv4() {
        super::layout::FRAME_WORDS_V4
    } else {
        super::layout::FRAME_WORDS_V6
    };
    let build = |payload: &[u8]| match transport {
        Transport::Tcp => packet_builder::tcp(client, vip, segment, payload),
        Transport::Udp => packet_builder::udp(client, vip, payload),
    };
    // Eight bytes more than the headers' words: a short request or its acknowledgement.
    let payload = vec![0x5a; len * 8 + 8 - build(&[]).len()];
    Ok(build(&payload))
}

/// A gateway with one service group on one port, TCP and UDP.
fn rig() -> Result<Rig> {
    let mut rig = Rig::new()?;
    let services =
        [Transport::Tcp, Transport::Udp].map(|transport| (VIP_PORT, DESTINATION_PORT, transport));
    let group = rig.group("bench", &services);
    for number in 2..2 + BACKENDS {
        let addresses = [format!("10.66.0.{number}"), format!("fd66::{number:x}")];
        let addresses = [addresses[0].as_str(), addresses[1].as_str()];
        rig.instance(&format!("backend-{number}"), group, &addresses)?;
    }
    rig.reconcile()?;
    Ok(rig)
}

/// A measurement of the wrong thing is worth nothing: checks what the program does with the
/// frame, before and after the harness has restored it, and where the packets go. It also warms
/// the caches and lets every flow be seen once.
fn verify(case: &Case, rig: &mut Rig, floors: &mut Floors, ifindex: u32) -> Result<()> {
    floors.prepare(&case.restore())?;
    let length = case.frame.len() as u32 + case.growth;
    for repeat in [1, 64] {
        let result = floors.run(&case.frame, ifindex, repeat)?;
        ensure!(
            result.return_value == case.action && result.data_size_out == length,
            "after {repeat} packets: action {} with {} bytes, expected {} with {length}",
            result.return_value,
            result.data_size_out,
            case.action
        );
    }
    let before = received(rig)?;
    floors.run(
        &case.frame,
        ifindex,
        case.flows.unwrap_or(0).max(1 << 16) * 4,
    )?;
    let after = received(rig)?;
    let reached = after
        .iter()
        .filter(|(name, packets)| before.get(*name) != Some(*packets));
    let reached = reached.count() as u32;
    ensure!(
        reached == case.backends,
        "packets reached {reached} backends, expected {}",
        case.backends
    );
    Ok(())
}

/// Packets that each backend got so far.
fn received(rig: &mut Rig) -> Result<BTreeMap<String, u64>> {
    Ok(rig
        .backends()?
        .into_iter()
        .map(|(name, traffic)| (name, traffic.in_packets))
        .collect())
}

fn figures(cases: &[Case], times: &[Vec<f64>]) -> Result<Vec<Figure>> {
    let reference = cases
        .iter()
        .position(|case| case.name == REFERENCE)
        .context("the reference is among the cases")?;
    let mut figures = Vec::with_capacity(cases.len());
    for (case, rounds) in cases.iter().zip(times) {
        let mut ratios: Vec<f64> = rounds
            .iter()
            .zip(&times[reference])
            .map(|(time, reference)| time / reference)
            .collect();
        let mut rounds = rounds.clone();
        let median = report::median(&mut rounds).context("there was at least one round")?;
        let ratio = report::median(&mut ratios).context("there was at least one round")?;
        figures.push(Figure {
            case: case.name,
            family: case.family,
            proto: case.proto,
            mode: case.mode,
            min_ns: rounds[0] as u64,
            median_ns: median.round() as u64,
            ratio: (ratio * 1000.0).round() / 1000.0,
        });
    }
    Ok(figures)
}

/// Flows are picked per CPU, and caches belong to one.
fn stay_on_this_cpu() -> Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu().context("which CPU this is")?)?;
    sched_setaffinity(Pid::from_raw(0), &here).context("staying on this CPU")
}
