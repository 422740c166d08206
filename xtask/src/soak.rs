//! `cargo xtask soak`: the long form of the test that memory stays flat.

use anyhow::Result;
use clap::Args;

use crate::process::{self, progress};
use crate::{build, capabilities, setup};

const TEST: &str = "terminator::soak::memory_is_flat_under_churn";
const DURATION: &str = "LBAGENT_SOAK_SECONDS";

/// Options of `soak`.
#[derive(Args)]
pub struct Options {
    /// For how long
    #[arg(long, default_value_t = 30, value_name = "N")]
    minutes: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    capabilities::require("the soak", "")?;
    setup::run()?;
    build::run(&build::Options::default())?;
    progress(format_args!(
        "changes under load for {} minutes",
        options.minutes
    ));
    let mut test = process::cargo();
    test.env(DURATION, (options.minutes * 60).to_string())
        .args([
            "test",
            "--package",
            "lbagent-tests",
            "--test",
            "traffic",
            "--",
        ])
        .args(["--exact", TEST, "--nocapture"]);
    process::run(&mut test)
}
