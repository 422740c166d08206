//! `cargo xtask bench`: the benchmark runner.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lbagent_tests::bench::datapath;

/// Measures lbagent.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Nanoseconds per packet of the BPF programs
    Datapath {
        /// Fewer rounds: figures to look at, not to publish
        #[arg(long)]
        quick: bool,
        /// Exit 1 when a goal is missed; the last line names it
        #[arg(long)]
        check: bool,
        /// Write one JSON object per case to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let Benchmark::Datapath { quick, check, json } = Arguments::parse().benchmark;
    match datapath::run(&datapath::Options { quick, check, json }) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
