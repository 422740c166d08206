//! `cargo xtask bench`: benchmarks, one subcommand each. Goals stand beside the measurements.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::process::{self, progress};
use crate::{build, capabilities, rivals, setup};

/// Options of `bench`.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// What the agent needs to load everything and to change one thing
    Control(Common),
    /// Nanoseconds per packet of the BPF programs
    Datapath(Common),
    /// What 10,000 health checks every 5 s cost
    Health(Common),
    /// What a redirect to HTTPS costs XDP, lbterm, nginx and HAProxy
    Redirect(Common),
    /// What requests, handshakes and idle connections cost lbterm, HAProxy and nginx
    Terminator(Common),
    /// Connections, bulk and packets per second through lbagent and through others
    Traffic(Common),
}

/// Options that every benchmark takes.
#[derive(Args)]
struct Common {
    /// Fewer rounds: figures to look at, not to publish
    #[arg(long)]
    quick: bool,
    /// Exit 1 when a goal is missed; the last line names it
    #[arg(long)]
    check: bool,
    /// Write one JSON object per case to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs a benchmark.
pub fn run(options: &Options) -> Result<()> {
    capabilities::require("the benchmark", "")?;
    setup::run()?;
    match &options.benchmark {
        Benchmark::Control(common) => {
            build::run(&build::Options { release: true })?;
            progress("measuring the agent");
            run_benchmark("control", &["--release"], common)
        }
        Benchmark::Datapath(common) => {
            build::run(&build::Options::default())?;
            progress("measuring the data plane");
            run_benchmark("datapath", &[], common)
        }
        Benchmark::Health(common) => {
            build::run(&build::Options { release: true })?;
            progress("measuring health checks");
            run_benchmark("health", &["--release"], common)
        }
        Benchmark::Redirect(common) => {
            rivals::ensure_proxies()?;
            build::run(&build::Options { release: true })?;
            progress("measuring redirects");
            run_benchmark("redirect", &["--release"], common)
        }
        Benchmark::Terminator(common) => {
            rivals::ensure_proxies()?;
            build::run(&build::Options { release: true })?;
            progress("measuring terminators");
            run_benchmark("terminator", &["--release"], common)
        }
        Benchmark::Traffic(common) => {
            rivals::ensure()?;
            // The daemon and the clients are compared with programs that are optimised too.
            build::run(&build::Options { release: true })?;
            progress("measuring traffic");
            run_benchmark("traffic", &["--release"], common)
        }
    }
}

fn run_benchmark(name: &str, profile: &[&str], common: &Common) -> Result<()> {
    let mut command = process::cargo();
    command.args(["run", "--quiet"]).args(profile);
    command.args(["--bin", "lb-bench", "--"]);
    command.arg(name);
    if common.quick {
        command.arg("--quick");
    }
    if common.check {
        command.arg("--check");
    }
    if let Some(file) = &common.json {
        // Cargo runs in the workspace's root, the path is meant from here.
        let file = std::path::absolute(file)
            .with_context(|| format!("--json {}: not a path", file.display()))?;
        command.arg("--json").arg(file);
    }
    process::run_reporting(&mut command)
}
