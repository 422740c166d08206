//! First process of the virtual machine of `cargo xtask vm`: mounts what the tests expect of a
//! host, loads the kernel's modules, runs the test programs, says how it went, switches off.
//!
//! `/lb/plan` tells it what to do, one order a line:
//! `module FILE` loads a module of `/lb`; `run PROGRAM ARGUMENTS…` runs a program of `/lb`.
//! Everything goes to the second serial port: the first is the kernel's own.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Where the orders and the programs lie.
const HOME: &str = "/lb";
/// Where the host listens.
const PORT: &str = "/dev/ttyS1";

/// How many times slower than its host the tests take this machine for.
const SLOWNESS: &str = "10";

/// Kind and target of everything that is mounted, in this order.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("tmpfs", "/var/lib"),
];

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("lb-vm-init is the first process of a virtual machine; run `cargo xtask vm`");
        return ExitCode::FAILURE;
    }
    if let Err(error) = start() {
        // The first serial port, whose log the host keeps.
        println!("init: {error:#}");
    }
    // SIGKILL for all processes and a clean end of the machine; returns only when it fails, and
    // then the kernel panics because its first process ends.
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    println!("init: switching off: {error}");
    ExitCode::FAILURE
}

/// Prepares the machine and reports to the host what came of its orders.
fn start() -> Result<()> {
    for (kind, target) in MOUNTS {
        mount(
            Some(kind),
            target,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mounting {kind} on {target}"))?;
    }
    let mut port = File::options()
        .write(true)
        .open(PORT)
        .with_context(|| PORT.to_owned())?;
    let end = match work(&port) {
        Ok(()) => "success",
        Err(error) => {
            writeln!(port, "init: {error:#}")?;
            "failure"
        }
    };
    writeln!(port, "init: {end}")?;
    // The machine must not be off before the last line is out.
    nix::sys::termios::tcdrain(&port).context("waiting for the serial port")
}

/// Carries out all orders; the error names the programs that failed.
fn work(port: &File) -> Result<()> {
    let orders = fs::read_to_string(format!("{HOME}/plan")).context("reading the orders")?;
    let mut failed = Vec::new();
    for order in orders.lines() {
        let mut words = order.split_whitespace();
        match (words.next(), words.next()) {
            (Some("module"), Some(file)) => load_module(file)?,
            (Some("run"), Some(program)) if !run(port, program, words)? => failed.push(program),
            (Some("run"), Some(_)) => {}
            _ => bail!("no order: {order:?}"),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

fn load_module(file: &str) -> Result<()> {
    let path = Path::new(HOME).join(file);
    let module = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    match finit_module(&module, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("loading the module {file}")),
    }
}

/// Runs a program to its end and tells whether it succeeded.
fn run<'a>(port: &File, program: &str, arguments: impl Iterator<Item = &'a str>) -> Result<bool> {
    let status = Command::new(Path::new(HOME).join(program))
        .args(arguments)
        // A test that skips itself here would hide what the machine is for: that fails in CI, as
        // the list of permitted skips is empty in this machine.
        .env("CI", "true")
        .env("PATH", HOME)
        .env("LBAGENT_TEST_SLOWNESS", SLOWNESS)
        .stdin(Stdio::null())
        .stdout(port.try_clone()?)
        .stderr(port.try_clone()?)
        .status()
        .with_context(|| format!("starting {program}"))?;
    Ok(status.success())
}
