//! `cargo xtask bench`: the benchmark runner.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use lbagent_tests::bench::{control, datapath, health, redirect, terminator, traffic};

/// Measures lbagent.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// What the agent needs to load everything and to change one thing
    Control(Common),
    /// Nanoseconds per packet of the BPF programs
    Datapath {
        #[command(flatten)]
        common: Common,
        /// Measure only what has a name that contains this, as `request` or `established/64k`: for
        /// profiles
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// What 10,000 health checks every 5 s cost
    Health(Common),
    /// What a redirect to HTTPS costs XDP, lbterm, nginx and HAProxy
    Redirect(Common),
    /// What requests, handshakes and idle connections cost lbterm, HAProxy and nginx
    Terminator {
        #[command(flatten)]
        common: Common,
        /// Measure only what has a name that begins so, as `http2` or `handshake`: for profiles
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Connections, bulk and packets per second through lbagent and through others
    Traffic {
        #[command(flatten)]
        common: Common,
        /// Measure only ways whose name contains this: for profiles
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
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

fn run(benchmark: Benchmark) -> Result<bool> {
    match benchmark {
        Benchmark::Control(Common { quick, check, json }) => {
            control::run(&control::Options { quick, check, json })
        }
        Benchmark::Datapath { common, only } => {
            let Common { quick, check, json } = common;
            datapath::run(&datapath::Options {
                quick,
                check,
                json,
                only,
            })
        }
        Benchmark::Health(Common { quick, check, json }) => {
            health::run(&control::Options { quick, check, json })
        }
        Benchmark::Redirect(Common { quick, check, json }) => {
            redirect::run(&control::Options { quick, check, json })
        }
        Benchmark::Terminator { common, only } => {
            let Common { quick, check, json } = common;
            terminator::run(&terminator::Options {
                quick,
                check,
                json,
                only,
            })
        }
        Benchmark::Traffic { common, only } => {
            let Common { quick, check, json } = common;
            traffic::run(&traffic::Options {
                quick,
                check,
                json,
                only,
            })
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().benchmark) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
