//! `cargo xtask bench control`: what it costs the agent to load everything, and to change one thing.
//!
//! The real object, unattached, under the agent's own reconcile loop: from a new desired state to
//! the pass that has applied it. Ways are given, as no host has 160,000 backends; they have a next
//! hop each, as the agent would find.

mod daemon;
mod scale;

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lbagent::dataplane::{Capacity, Dataplane, KernelDataplane, Region, Step, embedded_object};
use lbagent::plan::maglev;
use lbagent_common::{Slot, VipEntry, VipKey};
use serde::Serialize;
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

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const SEED: u64 = 0x1234_5678_9abc_def0;

/// One figure with its goal, if it has one.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    /// The most that it may be.
    goal: Option<f64>,
}

impl Figure {
    pub(super) fn new(
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Option<f64>,
    ) -> Self {
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
    let groups = if options.quick { 1_000 } else { 10_000 };
    figures.extend(scale::measure(groups)?);
    figures.extend(daemon::measure(groups, options.quick)?);
    report(&figures, options)
}

/// Prints, and tells whether every goal is met, if that was asked.
pub(super) fn report(figures: &[Figure], options: &Options) -> Result<bool> {
    print!("{}", table(figures));
    if let Some(path) = &options.json {
        write_json(figures, path)?;
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
    let mut lines = format!("{:<58} {:>12} {:<6} goal\n", "what", "figure", "");
    for figure in figures {
        let Figure {
            what,
            value,
            unit,
            goal,
        } = figure;
        let verdict = if figure.is_missed() { "MISSED" } else { "met" };
        let ratio = |goal: f64| match goal > 0.0 {
            true => format!(", {:.2} of it", value / goal),
            false => String::new(),
        };
        let goal = goal.map_or(String::new(), |goal| {
            format!("≤ {goal} {verdict}{}", ratio(goal))
        });
        let digits = match *unit {
            "ms" | "×" => 2,
            _ => 0,
        };
        lines.push_str(&format!(
            "{what:<58} {value:>12.digits$} {unit:<6} {goal}\n"
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
