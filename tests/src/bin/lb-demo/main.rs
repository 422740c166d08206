//! From nothing to balanced traffic, in namespaces of this machine: a client, a gateway, three
//! backends, the real daemon, driven with the real `lbctl`. Run by `cargo xtask demo`.
//!
//! Everything lives in namespaces that this process holds, so nothing is left when it ends, however
//! it ends.

mod acts;
mod https;
mod report;
mod stage;

use std::process::ExitCode;

use clap::Parser;
use lbagent_tests::capabilities;

use crate::report::Report;
use crate::stage::Stage;

/// Shows lbagent balancing real traffic on this machine, and leaves nothing behind.
#[derive(Debug, Parser)]
pub struct Options {
    /// Connections, and UDP exchanges, for each address family
    #[arg(long, default_value_t = 3000)]
    connections: usize,
    /// Bytes of each of the two long transfers
    #[arg(long, default_value_t = lbagent_tests::transfer::LONG)]
    bytes: u64,
}

/// Exit code when a capability is missing, as the agent's.
const NOT_PRIVILEGED: u8 = 4;

fn main() -> ExitCode {
    let options = Options::parse();
    let missing = capabilities::missing();
    if !missing.is_empty() {
        eprintln!(
            "the demo makes network namespaces and loads BPF programs, and this process lacks {}.\n\
             Run it as root: sudo -E env \"PATH=$PATH\" cargo xtask demo\n\
             In a container, start it with --privileged.",
            missing.join(", ")
        );
        return ExitCode::from(NOT_PRIVILEGED);
    }
    let mut report = Report::new();
    match perform(&options, &mut report) {
        Ok(()) => report.conclude(),
        Err(error) => {
            eprintln!("\nthe demo stopped: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let mut stage = Stage::build(report)?;
    acts::publish(&stage, report)?;
    acts::spread(&stage, report, options.connections)?;
    acts::table(&stage, report)?;
    acts::drain(&stage, report, options.bytes)?;
    acts::kill(&mut stage, report, options.bytes)?;
    https::show(&stage, report)?;
    acts::statistics(&stage, report)?;
    acts::leave(stage, report)
}
