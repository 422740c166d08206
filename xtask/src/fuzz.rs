//! `cargo xtask fuzz`: the targets of tests/fuzz under libFuzzer.
//!
//! Ordinary tests run the same bodies over the same seeds for a moment; this is for as long as one likes.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process::{self, progress};
use crate::setup::{self, Toolchain};
use crate::workspace;

/// Options of `fuzz`.
#[derive(Args)]
pub struct Options {
    /// One target; all, one after the other, without it
    target: Option<String>,
    /// For how long each is run
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
}

/// Runs targets. What they cannot stand is kept below target/fuzz, and named.
pub fn run(options: &Options) -> Result<()> {
    let targets = targets()?;
    let chosen = match &options.target {
        None => targets,
        Some(target) if targets.contains(target) => vec![target.clone()],
        Some(target) => bail!(
            "no fuzz target '{target}'; there are {}",
            targets.join(", ")
        ),
    };
    setup::ensure_fuzzer()?;
    let mut failed = Vec::new();
    for target in chosen {
        progress(format_args!("{target} for {} s", options.seconds));
        if let Err(error) = run_target(&target, options.seconds) {
            eprintln!("error: {error:#}");
            failed.push(target);
        }
    }
    if failed.is_empty() {
        progress("nothing was found");
        return Ok(());
    }
    bail!("found something: {}", failed.join(", "))
}

/// Every target has seeds.
fn targets() -> Result<Vec<String>> {
    let seeds = workspace::root().join("tests/fuzz/seeds");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&seeds).with_context(|| format!("{}", seeds.display()))? {
        let entry = entry.with_context(|| format!("{}", seeds.display()))?;
        targets.push(entry.file_name().to_string_lossy().into_owned());
    }
    targets.sort();
    Ok(targets)
}

fn run_target(target: &str, seconds: u32) -> Result<()> {
    let home = workspace::root().join("target/fuzz");
    // Found inputs that cover something new go to the first one.
    let corpus = home.join("corpus").join(target);
    let artifacts = home.join("artifacts").join(target);
    for directory in [&corpus, &artifacts] {
        fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
    }
    let fuzz = workspace::root().join("tests/fuzz");
    let mut command = Toolchain::chosen().command("cargo");
    let tools = workspace::tools().join("bin");
    command
        .env("PATH", setup::path_with(&tools))
        // The code is safe Rust: the address sanitizer would find nothing and cost half of the speed.
        .args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"])
        .arg(&fuzz)
        .arg("--target-dir")
        .arg(home.join("build"))
        .arg(target)
        .arg(&corpus)
        .arg(fuzz.join("seeds").join(target))
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()));
    process::run(&mut command).with_context(|| {
        let artifacts = artifacts.display();
        format!("{target}: what was found, if it was built, is in {artifacts}; make it a seed")
    })
}
