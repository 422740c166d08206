//! What loading the programs costs: maps apart from programs, whose verification is the kernel's
//! work at every start of the agent, and all of the time that a take-over waits for.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::EbpfLoader;
use aya::programs::{ProgramInfo, SchedClassifier, Xdp};
use lbagent::dataplane::embedded_object;
use lbagent_common::limits;

use crate::bpf_stack::{self, Chain, deepest_chains};
use crate::prog_run;

/// The most that loading both programs may take.
const GOAL: Duration = Duration::from_millis(250);

/// The best of several loads.
pub(super) struct Loading {
    maps: Duration,
    programs: Vec<Program>,
}

struct Program {
    name: &'static str,
    took: Duration,
    instructions: u32,
    jitted: u32,
    /// The deepest chain of calls.
    stack: Chain,
}

/// Loads the object several times, as if nothing was there.
pub(super) fn measure(times: u32) -> Result<Loading> {
    let object = match prog_run::object() {
        Some(path) => std::fs::read(&path)
            .with_context(|| format!("LBAGENT_TEST_BPF_OBJECT={}", path.display()))?,
        None => embedded_object().to_vec(),
    };
    let mut chains = deepest_chains(&object)?;
    let mut best = load(&object, &mut chains)?;
    for _ in 1..times {
        let again = load(&object, &mut deepest_chains(&object)?)?;
        best.maps = best.maps.min(again.maps);
        for (best, again) in best.programs.iter_mut().zip(again.programs) {
            best.took = best.took.min(again.took);
        }
    }
    Ok(best)
}

fn load(object: &[u8], chains: &mut Vec<Chain>) -> Result<Loading> {
    let start = Instant::now();
    let mut ebpf = EbpfLoader::new().load(object)?;
    let maps = start.elapsed();
    let mut programs = Vec::new();
    for name in [limits::PROGRAM_INGRESS, limits::PROGRAM_RETURN] {
        let program = ebpf
            .program_mut(name)
            .with_context(|| format!("the object has no program {name}"))?;
        let start = Instant::now();
        if name == limits::PROGRAM_INGRESS {
            <&mut Xdp>::try_from(&mut *program)?.load()?;
        } else {
            <&mut SchedClassifier>::try_from(&mut *program)?.load()?;
        }
        let took = start.elapsed();
        let info: ProgramInfo = program.info()?;
        let is_its = |chain: &Chain| chain.frames.first().is_some_and(|(first, _)| first == name);
        let chain = chains.iter().position(is_its);
        programs.push(Program {
            name,
            took,
            instructions: info
                .verified_instruction_count()
                .context("this kernel does not tell how much it verified")?,
            jitted: info.size_jitted(),
            stack: chains.swap_remove(chain.with_context(|| format!("no frames of {name}"))?),
        });
    }
    Ok(Loading { maps, programs })
}

impl Loading {
    fn took(&self) -> Duration {
        self.programs.iter().map(|program| program.took).sum()
    }

    /// Figures to read.
    pub(super) fn table(&self) -> String {
        let mut text = format!("maps: made in {:.1} ms\n", milliseconds(self.maps));
        for program in &self.programs {
            let frames: Vec<_> = program
                .stack
                .frames
                .iter()
                .map(|(function, bytes)| format!("{} {bytes}", short(function)))
                .collect();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{}: loaded in {:.1} ms, {} instructions verified, {} bytes of machine code, stack \
                 {} of {} bytes ({})",
                program.name,
                milliseconds(program.took),
                program.instructions,
                program.jitted,
                program.stack.bytes,
                bpf_stack::LIMIT,
                frames.join(" > ")
            );
        }
        let verdict = if self.took() <= GOAL { "met" } else { "MISSED" };
        let _ = writeln!(
            text,
            "both programs: {:.1} ms, goal ≤ {} ms {verdict}",
            milliseconds(self.took()),
            GOAL.as_millis()
        );
        text
    }

    /// The goal, if it is missed.
    pub(super) fn missed(&self) -> Option<String> {
        (self.took() > GOAL).then(|| {
            format!(
                "loading both programs {:.0} ms > {} ms",
                milliseconds(self.took()),
                GOAL.as_millis()
            )
        })
    }
}

/// A function's path within its crate, without the types that it was compiled for.
fn short(function: &str) -> &str {
    let path = function.split("::<").next().unwrap_or(function);
    path.split_once("::").map_or(path, |(_, path)| path)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
