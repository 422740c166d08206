//! `cargo xtask demo`: from an empty folder to balanced traffic.

use anyhow::Result;
use clap::Args;

use crate::process::{self, progress};
use crate::{build, capabilities, setup};

/// Options of `demo`.
#[derive(Args)]
pub struct Options {
    /// Options of the demo itself; `-- --help` lists them
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds what is needed and runs the demo.
pub fn run(options: &Options) -> Result<()> {
    capabilities::require("the demo", "")?;
    setup::run()?;
    build::run(&build::Options::default())?;
    progress("starting the demo");
    process::run_reporting(
        process::cargo()
            .args(["run", "--quiet", "--bin", "lb-demo", "--"])
            .args(&options.rest),
    )?;
    progress("the demo has ended well");
    Ok(())
}
