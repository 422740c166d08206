//! `cargo xtask test`: unit and property tests, then the rings, then one summary.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::process::{self, AlreadyReported, progress};
use crate::{build, capabilities, setup, workspace};

/// Tests append a line here when they skip themselves (`tests/src/skip.rs`): to the test runner
/// such a test has passed.
const SKIP_LOG: &str = "LBAGENT_SKIP_LOG";

/// Tells tests (`tests/src/slowness.rs`) to show the whole of what they say.
const LONG: &str = "LBAGENT_TEST_LONG";

/// The crate of the harness and the rings.
const HARNESS: &str = "lbagent-tests";

/// Options of `test`.
#[derive(Args, Default)]
pub struct Options {
    /// Run one ring only
    #[arg(long, value_enum)]
    ring: Option<Ring>,
    /// Let tests that have a long form show all of what they say: minutes each
    #[arg(long)]
    long: bool,
    /// Run only tests whose name contains this
    filter: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ring {
    /// Unit and property tests: no privileges, no BPF toolchain
    Unit,
    /// The BPF programs, packet by packet, through BPF_PROG_TEST_RUN
    #[value(name = "1")]
    Datapath,
    /// The real daemon and real traffic in namespaces
    #[value(name = "2")]
    Traffic,
    /// The API of the real daemon
    #[value(name = "3")]
    Api,
}

impl Ring {
    const ALL: [Self; 4] = [Self::Unit, Self::Datapath, Self::Traffic, Self::Api];

    fn title(self) -> &'static str {
        match self {
            Self::Unit => "unit and property tests",
            Self::Datapath => "ring 1: datapath",
            Self::Traffic => "ring 2: traffic",
            Self::Api => "ring 3: api",
        }
    }

    /// The test binary of a ring that has one.
    fn binary(self) -> Option<&'static str> {
        match self {
            Self::Unit => None,
            Self::Datapath => Some("datapath"),
            Self::Traffic => Some("traffic"),
            Self::Api => Some("api"),
        }
    }

    /// The cargo command that runs this ring.
    fn command(self) -> Result<Command> {
        let mut command = process::cargo();
        command.args(["test", "--no-fail-fast"]);
        workspace::choose_all(&mut command);
        if let Some(binary) = self.binary() {
            command.args(["--test", binary]);
            return Ok(command);
        }
        command.args(["--lib", "--bins"]);
        for target in crates_own_tests()? {
            command.args(["--test", &target]);
        }
        Ok(command)
    }
}

/// Names of the test binaries that crates other than the harness have.
fn crates_own_tests() -> Result<Vec<String>> {
    let text = process::output_of(process::cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))
    .context("`cargo metadata` failed")?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata wrote no JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages
        .filter(|package| package["name"] != HARNESS)
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter(|target| target["kind"][0] == "test");
    Ok(targets
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect())
}

/// What the test runner reported.
#[derive(Default)]
pub struct Tally {
    /// Tests.
    pub passed: u64,
    /// Tests, and runs that ended before they could name one.
    pub failed: u64,
    /// Tests.
    pub skipped: u64,
    /// Names of what failed.
    pub failures: Vec<String>,
}

impl Tally {
    /// Reads one line of the test runner's output.
    pub fn see(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count_before(result, "passed");
            self.failed += count_before(result, "failed");
            self.skipped += count_before(result, "ignored");
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    /// Tests that skipped themselves have passed in the runner's eyes.
    fn move_to_skipped(&mut self, skips: u64) {
        let moved = skips.min(self.passed);
        self.passed -= moved;
        self.skipped += moved;
    }

    /// Adds another run.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }

    /// The one line that everybody counts by.
    pub fn summary(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// The number in front of a word: 3 for `passed` in `ok. 3 passed; 0 failed`.
fn count_before(text: &str, word: &str) -> u64 {
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c == ';')
        .collect();
    words
        .windows(2)
        .find(|pair| pair[1] == word)
        .and_then(|pair| pair[0].parse().ok())
        .unwrap_or(0)
}

/// Runs the tests.
pub fn run(options: &Options) -> Result<()> {
    let rings = match options.ring {
        Some(ring) => vec![ring],
        None => Ring::ALL.to_vec(),
    };
    if rings != [Ring::Unit] {
        let alternative = "\nWithout privileges: cargo xtask test --ring unit";
        capabilities::require("rings 1 to 3", alternative)?;
        setup::run()?;
        if rings.contains(&Ring::Traffic) {
            setup::ensure_browser();
        }
        build::with_tests(rings.iter().filter_map(|ring| ring.binary()))?;
    }
    let mut total = Tally::default();
    for ring in rings {
        total.add(run_ring(ring, options)?);
    }
    for name in &total.failures {
        println!("failed: {name}");
    }
    progress("all tests have run");
    println!("{}", total.summary());
    if total.failed > 0 {
        return Err(AlreadyReported.into());
    }
    Ok(())
}

fn run_ring(ring: Ring, options: &Options) -> Result<Tally> {
    progress(ring.title());
    let log = skip_log()?;
    let mut tally = Tally::default();
    let mut command = ring.command()?;
    command.env(SKIP_LOG, &log);
    if options.long {
        command.env(LONG, "1");
    }
    if let Some(filter) = &options.filter {
        command.args(["--", filter]);
    }
    let succeeded = process::run_watched(&mut command, |line| tally.see(line))?;
    if !succeeded && tally.failed == 0 {
        // It did not compile, or a test killed its whole process.
        tally.failed = 1;
        tally
            .failures
            .push(format!("{} (did not build or did not end)", ring.title()));
    }
    let skips = fs::read_to_string(&log).with_context(|| format!("{}", log.display()))?;
    for line in skips.lines() {
        println!("skipped: {line}");
    }
    tally.move_to_skipped(skips.lines().count() as u64);
    progress(format_args!("{}: {}", ring.title(), tally.summary()));
    Ok(tally)
}

/// An empty file for this run's skips.
fn skip_log() -> Result<PathBuf> {
    let log = workspace::root().join("target/xtask-skips.log");
    log.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&log, ""))
        .with_context(|| format!("can't write {}", log.display()))?;
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], skips: u64, summary: &str, failures: &[&str]) {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.see(line));
        tally.move_to_skipped(skips);
        assert_eq!(tally.summary(), summary);
        assert_eq!(tally.failures, failures);
    }

    #[test]
    fn results_of_the_test_runner_are_added_up() {
        let good = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out";
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        check(&[], 0, "0 passed, 0 failed, 0 skipped", &[]);
        check(&[good], 0, "12 passed, 0 failed, 1 skipped", &[]);
        check(&[good, good], 4, "20 passed, 0 failed, 6 skipped", &[]);
        check(
            &["test a::b ... ok", "test a::c ... FAILED", bad, good],
            0,
            "13 passed, 2 failed, 1 skipped",
            &["a::c"],
        );
    }
}
