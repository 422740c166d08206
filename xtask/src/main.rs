//! `cargo xtask`: everything that takes more than one plain cargo command.
//!
//! One module a command; the versions of what is fetched stand in [`pins`] and nowhere else.

mod bench;
mod build;
mod capabilities;
mod ci;
mod demo;
mod fuzz;
mod lint;
mod openapi;
mod pins;
mod process;
mod rivals;
mod setup;
mod soak;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, shows, tests and measures lbagent.
#[derive(Parser)]
#[command(name = "cargo xtask", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need and this machine lacks
    Setup,
    /// Build the BPF objects, then the programs of the workspace
    Build(build::Options),
    /// Show a gateway at work: real traffic, a drain, a crash and a restart
    Demo(demo::Options),
    /// Run the tests: unit, ring 1 (datapath), ring 2 (traffic), ring 3 (api)
    Test(test::Options),
    /// Change certificates, groups and instances under load, and see that memory stays what it is
    Soak(soak::Options),
    /// Run ring 1 and a selection of ring 2 on Debian's kernels 6.1 and 6.12, in virtual machines
    Vm(vm::Options),
    /// Search for inputs that the parsers of what others send cannot stand
    Fuzz(fuzz::Options),
    /// Measure
    Bench(bench::Options),
    /// Check formatting, lints of host and BPF code, licences, and the rules of
    /// CONTRIBUTING.md
    Lint,
    /// Write docs/openapi.json, the description of the API, as the code has it
    Openapi,
    /// What CI runs: lint, test, vm
    Ci,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::Build(options) => setup::run().and_then(|()| build::run(&options)),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Vm(options) => vm::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Lint => lint::run(),
        Command::Openapi => openapi::write(),
        Command::Ci => ci::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The program has said on its own last line what failed; another line would hide it.
        Err(error) if error.is::<process::AlreadyReported>() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
