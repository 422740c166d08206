//! `cargo xtask vm`: the rings on other kernels, in virtual machines without hardware support.

mod initramfs;
mod kernel;
mod qemu;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::process::{self, AlreadyReported, progress};
use crate::test::Tally;
use crate::{build, pins, setup, workspace};
use kernel::Kernel;

/// Options of `vm`.
#[derive(Args, Default)]
pub struct Options {
    /// Boot this kernel only: 6.1 or 6.12
    #[arg(long, value_name = "SERIES", value_parser = parse_series)]
    kernel: Option<&'static pins::VmKernel>,
    /// Run one ring only
    #[arg(long, value_enum)]
    ring: Option<Ring>,
    /// Run only tests whose name contains this; of ring 2 all tests then, not only the smoke
    filter: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ring {
    /// The BPF programs, packet by packet, through BPF_PROG_TEST_RUN
    #[value(name = "1")]
    Datapath,
    /// The real daemon and real traffic, a selection
    #[value(name = "2")]
    Traffic,
}

impl Ring {
    /// The test binary, as cargo and the machine call it.
    fn binary(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Traffic => "traffic",
        }
    }
}

/// Tests of ring 2 that show a kernel's part: attaching, redirecting, pinning, taking over; and
/// the first kernel that can pass them.
const SMOKE: &[((u32, u32), &str)] = &[
    ((6, 1), "balance::generic_xdp_carries_everything_too"),
    ((6, 1), "balance::slots_are_even_and_counters_add_up"),
    (
        (6, 1),
        "decap::segments::clients_are_told_a_segment_size_that_fits",
    ),
    ((6, 1), "decap::every_encapsulation_reaches_the_vip"),
    (
        (6, 1),
        "drain::established_flows_stay_with_a_draining_backend",
    ),
    (
        (6, 1),
        "restart::connections_keep_their_backends_over_restarts",
    ),
    ((6, 1), "restart::a_restart_changes_nothing"),
    (
        (6, 1),
        "kernel_tunnels::decap_takes_off_what_the_kernel_puts_on",
    ),
    // Older kernels don't tell which interfaces take redirected frames; the kernel forwards then.
    ((6, 3), "balance::the_fast_path_is_taken"),
    // And it forwards no IPv4 packet from its own address, as outer headers have it.
    (
        (6, 3),
        "kernel_devices::backends_tunnel_devices_take_off_what_the_gateway_puts_on",
    ),
    (
        (6, 3),
        "kernel_devices::clients_and_backends_may_be_in_different_vlans",
    ),
    // It counts programs that are attached by TCX, which is younger than 6.1.
    ((6, 6), "detach::detach_leaves_nothing"),
];

fn parse_series(text: &str) -> Result<&'static pins::VmKernel, String> {
    let known = pins::VM_KERNELS.iter();
    let names: Vec<_> = known.clone().map(|kernel| kernel.series).collect();
    known
        .into_iter()
        .find(|kernel| kernel.series == text)
        .ok_or_else(|| format!("known are {}", names.join(" and ")))
}

/// Boots each kernel and runs the rings there.
pub fn run(options: &Options) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the kernels and programs of the machines are x86-64; this host is not");
    }
    setup::run()?;
    setup::ensure_vm_programs()?;
    build::with_tests([Ring::Datapath, Ring::Traffic].map(Ring::binary))?;
    let programs = build_tests()?;
    check_smoke(&programs)?;
    let kernels = match options.kernel {
        Some(kernel) => std::slice::from_ref(kernel),
        None => &pins::VM_KERNELS,
    };
    let booted: Vec<_> = kernels
        .iter()
        .map(|pinned| {
            let kernel = Kernel::ensure(pinned)?;
            let image = initramfs::build(&kernel, &programs, &plan_runs(options, pinned))?;
            Ok((kernel, image))
        })
        .collect::<Result<_>>()?;
    // A machine has one CPU, see `qemu`; side by side they use as many as there are kernels.
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let started: Vec<_> = booted
            .iter()
            .map(|(kernel, image)| scope.spawn(|| run_kernel(kernel, image)))
            .collect();
        let ended = started.into_iter().map(|machine| {
            let result = machine.join();
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ended.collect()
    });
    let mut total = Tally::default();
    for tally in tallies {
        total.add(tally?);
    }
    for name in &total.failures {
        println!("failed: {name}");
    }
    progress("all kernels have run");
    println!("{}", total.summary());
    if total.failed > 0 {
        return Err(AlreadyReported.into());
    }
    Ok(())
}

fn run_kernel(kernel: &Kernel, image: &Path) -> Result<Tally> {
    let series = kernel.series;
    progress(format_args!("kernel {series}: {}", kernel.release));
    let mut tally = Tally::default();
    let end = qemu::boot(kernel, image, |line| tally.see(line))?;
    if let Some(complaint) = end.complaint(tally.failed > 0) {
        tally.failed += 1;
        tally.failures.push(complaint);
    }
    for failure in &mut tally.failures {
        *failure = format!("{series}: {failure}");
    }
    progress(format_args!("kernel {series}: {}", tally.summary()));
    Ok(tally)
}

/// Builds the test binaries and returns them, the daemon, the CLI and the machine's init.
fn build_tests() -> Result<Vec<PathBuf>> {
    let mut command = process::cargo();
    command.args(["test", "--no-run"]);
    workspace::choose_all(&mut command);
    for ring in [Ring::Datapath, Ring::Traffic] {
        command.args(["--test", ring.binary()]);
    }
    command.arg("--message-format=json-render-diagnostics");
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("can't start cargo")?;
    if !output.status.success() {
        return Err(AlreadyReported.into());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let tests = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["kind"][0] == "test";
        is_test.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    let mut programs: Vec<_> = tests.collect();
    // Tests are built into a directory below the one of the workspace's programs.
    let directory = programs
        .first()
        .and_then(|test| test.parent()?.parent())
        .context("cargo names no test binary")?
        .to_owned();
    programs.extend(["lbagent", "lbctl", initramfs::INIT].map(|name| directory.join(name)));
    programs.extend(process::path_of("ip"));
    Ok(programs)
}

/// The command lines of the machine.
fn plan_runs(options: &Options, kernel: &pins::VmKernel) -> Vec<String> {
    let rings = match options.ring {
        Some(ring) => vec![ring],
        None => vec![Ring::Datapath, Ring::Traffic],
    };
    let arguments = |ring| match (ring, options.filter.as_deref()) {
        (_, Some(filter)) => filter.to_owned(),
        (Ring::Datapath, None) => String::new(),
        (Ring::Traffic, None) => {
            let possible = SMOKE.iter().filter(|(first, _)| *first <= kernel.version);
            let names: Vec<_> = possible.map(|(_, name)| *name).collect();
            format!("--exact {}", names.join(" "))
        }
    };
    rings
        .into_iter()
        .map(|ring: Ring| format!("{} {}", ring.binary(), arguments(ring)))
        .collect()
}

/// A renamed test would silently not run any more.
fn check_smoke(programs: &[PathBuf]) -> Result<()> {
    let traffic = programs
        .iter()
        .find(|path| initramfs::name_of(path) == Ring::Traffic.binary())
        .context("ring 2 was not built")?;
    let list = list_tests(traffic)?;
    let missing: Vec<_> = SMOKE
        .iter()
        .map(|(_, name)| name)
        .filter(|name| !list.lines().any(|line| line == format!("{name}: test")))
        .copied()
        .collect();
    if !missing.is_empty() {
        bail!(
            "SMOKE of xtask/src/vm/mod.rs names what is no test: {}",
            missing.join(", ")
        );
    }
    Ok(())
}

fn list_tests(binary: &Path) -> Result<String> {
    process::output_of(Command::new(binary).args(["--list", "--format=terse"]))
        .with_context(|| format!("{} lists no tests", binary.display()))
}

/// Everything that is fetched, built and logged for the machines.
fn directory() -> PathBuf {
    workspace::root().join("target/vm")
}
