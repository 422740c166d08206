//! Connections, latency and bulk through real sockets.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::figures::Results;
use super::stations::Station;
use super::{Measure, Options, Way, load};
use crate::bench::programs::cpus;

const WAYS: [Way; 6] = [
    Way::Direct,
    Way::Routed,
    Way::LbagentNat,
    Way::Nftables,
    Way::Haproxy,
    Way::Nginx,
];

/// Client's threads on each CPU while all are busy.
const BUSY: usize = 8;

/// What to measure, and for how long.
pub(super) struct Effort {
    ways: Vec<Way>,
    rounds: u32,
    busy: Duration,
    alone: Duration,
    bulk: Duration,
}

impl Effort {
    pub(super) fn of(options: &Options) -> Self {
        let [busy, alone, bulk] = if options.quick {
            [500, 300, 300]
        } else {
            [1500, 700, 700]
        }
        .map(Duration::from_millis);
        Self {
            ways: options.chosen(&WAYS),
            rounds: if options.quick { 2 } else { 6 },
            busy,
            alone,
            bulk,
        }
    }
}

/// Runs all rounds.
pub(super) fn measure(effort: &Effort, results: &mut Results) -> Result<()> {
    let stations = effort
        .ways
        .iter()
        .map(|way| Station::start(*way))
        .collect::<Result<Vec<_>>>()?;
    for station in &stations {
        warm_up(station, effort.busy).with_context(|| station.way.name())?;
    }
    println!(
        "{} rounds: {} ms with {BUSY} clients on each of {} CPUs, {} ms with one client, {} ms of \
         bulk each way",
        effort.rounds,
        effort.busy.as_millis(),
        cpus(),
        effort.alone.as_millis(),
        effort.bulk.as_millis()
    );
    for round in 1..=effort.rounds {
        for station in &stations {
            round_of(station, effort, results).with_context(|| station.way.name())?;
        }
        eprintln!("connections: round {round} of {}", effort.rounds);
    }
    Ok(())
}

/// Fills caches, and checks that the way leads to all backends.
fn warm_up(station: &Station, duration: Duration) -> Result<()> {
    let asked = load::ask(&station.client, station.answer, cpus(), BUSY, duration)?;
    let answering = asked.answers.iter().filter(|count| **count > 0).count();
    ensure!(
        answering == station.backends,
        "{answering} backends answered, expected {}",
        station.backends
    );
    Ok(())
}

fn round_of(station: &Station, effort: &Effort, results: &mut Results) -> Result<()> {
    let (client, way) = (&station.client, station.way);
    let mut busy = load::ask(client, station.answer, cpus(), BUSY, effort.busy)?;
    if busy.failed > 0 {
        println!(
            "{}: {} connections failed, {} did not",
            way.name(),
            busy.failed,
            busy.times.len()
        );
    }
    results.add(Measure::Connections, way, busy.rate() / 1e3);
    results.add(Measure::BusyP99, way, busy.percentile(0.99)?);
    let mut alone = load::ask(client, station.answer, 1, 1, effort.alone)?;
    results.add(Measure::AloneP50, way, alone.percentile(0.5)?);
    results.add(Measure::AloneP99, way, alone.percentile(0.99)?);
    let upload = load::upload(client, station.bulk, effort.bulk).context("upload")?;
    results.add(Measure::Upload, way, upload);
    let download = load::download(client, station.bulk, effort.bulk).context("download")?;
    results.add(Measure::Download, way, download);
    Ok(())
}
