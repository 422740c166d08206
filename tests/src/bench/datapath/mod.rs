//! `cargo xtask bench datapath`: nanoseconds per packet of `lb_ingress`, beside floor programs, and
//! what the kernel's verifier does for the programs.
//!
//! The real object is filled by the agent's own plan and apply, in a namespace with routes and
//! neighbours, and called through the harness that restores the packet. Cases take turns in every
//! round, so that a machine that gets slower or faster does so for all of them; what is compared is
//! the best round of each. The object is loaded several times, because the kernel puts machine code
//! where chance will have it (`bpf_jit_binary_pack_alloc()`), which alone makes up to 10 %.

mod answers;
mod cases;
mod gateway;
mod goals;
mod verifier;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lbagent_common::{Port, Protocol, VipKey};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use self::answers::Cost;
use self::cases::{Before, Case};
use self::gateway::BACKENDS;
use super::floors::{Floors, Flows, Restore};
use super::report::{self, Figure};
use crate::prog_run::{Rig, VIP_V4};

/// How to measure and where to write.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer rounds of fewer packets.
    pub quick: bool,
    /// Fail when a goal is missed.
    pub check: bool,
    /// Where the figures go.
    pub json: Option<PathBuf>,
    /// Only what has a name that contains this.
    pub only: Option<String>,
}

impl Options {
    /// Whether something of this name is to be measured.
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

/// Measures and reports. Returns whether the run is good: goals count only when asked for.
pub fn run(options: &Options) -> Result<bool> {
    let (loads, rounds, packets) = if options.quick {
        (3, 2, 50_000)
    } else {
        (6, 4, 200_000)
    };
    stay_on_this_cpu()?;
    let loading = verifier::measure(if options.quick { 3 } else { 9 })?;
    print!("{}", loading.table());
    println!(
        "{loads} loads, {rounds} rounds of {packets} packets each, {BACKENDS} backends a group"
    );
    let figures = forwarded(options, loads, rounds, packets)?;
    print!("{}", report::table(&figures));
    let answers = answers::measure(options, loads, rounds, packets)?;
    print!("{}", answers::table(&answers));
    if let Some(path) = &options.json {
        report::write_json(&figures, path)?;
    }
    let missed: Vec<String> = loading
        .missed()
        .into_iter()
        .chain(report::missed(&figures))
        .chain(answers.iter().filter_map(Cost::missed))
        .collect();
    if !missed.is_empty() {
        println!("goals missed: {}", missed.join("; "));
    }
    Ok(missed.is_empty() || !options.check)
}

/// Measures what is forwarded or foreign.
fn forwarded(options: &Options, loads: u32, rounds: u32, packets: u32) -> Result<Vec<Figure>> {
    let mut cases = cases::all()?;
    let is_wanted = |case: &Case| options.wants(case.name);
    if !cases.iter().any(is_wanted) {
        return Ok(Vec::new());
    }
    // Everything is compared with the reference.
    cases.retain(|case| case.name == cases::REFERENCE || is_wanted(case));
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for load in 1..=loads {
        let mut bench = Bench::set_up()?;
        for case in &cases {
            bench.verify(case).with_context(|| case.to_string())?;
        }
        for _ in 0..rounds {
            for (case, times) in cases.iter().zip(&mut times) {
                times.push(bench.time(case, packets)?);
            }
        }
        eprintln!("{load} of {loads} loads");
    }
    goals::figures(&cases, &times)
}

/// The gateway and the programs that it is compared with.
struct Bench {
    rig: Rig,
    floors: Floors,
    ifindex: u32,
}

impl Bench {
    fn set_up() -> Result<Self> {
        let mut rig = gateway::build()?;
        let mut floors = Floors::load(rig.dataplane.ingress_program()?.fd()?)?;
        let vip: SocketAddr = format!("{VIP_V4}:{}", gateway::SETTLED[0].port).parse()?;
        let keys = [Protocol::TCP, Protocol::UDP]
            .map(|protocol| VipKey::new(vip.ip().into(), Port::new(vip.port()), protocol));
        floors.publish(&keys, BACKENDS)?;
        let ifindex = nix::net::if_::if_nametoindex("cl0").context("the rig's client interface")?;
        Ok(Self {
            rig,
            floors,
            ifindex,
        })
    }

    /// A measurement of the wrong thing is worth nothing: checks what the program does with the
    /// frame, before and after the harness has restored it, and where the packets go. It also warms
    /// the caches and lets every flow be seen once.
    fn verify(&mut self, case: &Case) -> Result<()> {
        self.prepare(case)?;
        let length = case.frame.len() as u32 + case.growth;
        for repeat in [1, 64] {
            let result = self.floors.run(&case.frame, self.ifindex, repeat)?;
            ensure!(
                result.return_value == case.action && result.data_size_out == length,
                "after {repeat} packets: action {} with {} bytes, expected {} with {length}",
                result.return_value,
                result.data_size_out,
                case.action
            );
        }
        self.prepare(case)?;
        let before = self.received()?;
        let packets = case.packets(1 << 18);
        self.floors.run(&case.frame, self.ifindex, packets)?;
        let mut after = self.received()?;
        for (name, packets) in &mut after {
            *packets -= before.get(name).copied().unwrap_or_default();
        }
        after.retain(|_, packets| *packets > 0);
        // Flows of changed slots are stored with their new owner, all but the few whose bucket has
        // no room (with 2 flows for each 4 entries, 2 in 10,000), and those of UDP that share an
        // entry of `UDP_SEEN` with another (1 in 32).
        let stray_per_mille = if case.proto == "udp" { 40 } else { 1 };
        let (old, new): (Vec<_>, Vec<_>) = after
            .iter()
            .partition(|(name, _)| name.contains(gateway::OLD));
        let stray: u64 = old.iter().map(|(_, packets)| **packets).sum();
        ensure!(
            stray * 1000 <= u64::from(packets) * stray_per_mille,
            "{stray} of {packets} packets went to former owners"
        );
        ensure!(
            new.len() == case.backends as usize,
            "packets reached {} backends, expected {}",
            new.len(),
            case.backends
        );
        Ok(())
    }

    /// Nanoseconds per packet, in one round.
    fn time(&mut self, case: &Case, packets: u32) -> Result<f64> {
        self.prepare(case)?;
        let packets = case.packets(packets);
        let result = self.floors.run(&case.frame, self.ifindex, packets)?;
        Ok(result.duration.as_nanos() as f64)
    }

    /// Does what has to be done before a case, and fills the harness.
    fn prepare(&mut self, case: &Case) -> Result<()> {
        match &case.before {
            Before::Nothing => {}
            Before::Forget => self.rig.dataplane.forget_flows()?,
            Before::Establish => {
                self.send(
                    case,
                    &case.frame,
                    Flows::InTurn(cases::TRACKED),
                    cases::TRACKED,
                )?;
            }
            Before::Flood(frames) => {
                for frame in frames {
                    self.send(case, frame, Flows::DISTINCT, cases::FLOOD)?;
                }
            }
        }
        self.floors.prepare(&Restore {
            target: case.target,
            frame: &case.frame,
            flows: case.flows,
        })
    }

    fn send(&mut self, case: &Case, frame: &[u8], flows: Flows, packets: u32) -> Result<()> {
        self.floors.prepare(&Restore {
            target: case.target,
            frame,
            flows,
        })?;
        self.floors.run(frame, self.ifindex, packets)?;
        Ok(())
    }

    /// Packets that each backend got so far.
    fn received(&mut self) -> Result<BTreeMap<String, u64>> {
        Ok(self
            .rig
            .backends()?
            .into_iter()
            .map(|(name, traffic)| (name, traffic.in_packets))
            .collect())
    }
}

/// Flows are picked per CPU, and caches belong to one.
fn stay_on_this_cpu() -> Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu().context("which CPU this is")?)?;
    sched_setaffinity(Pid::from_raw(0), &here).context("staying on this CPU")
}
