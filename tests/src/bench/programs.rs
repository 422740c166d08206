//! Programs that a benchmark starts, and the CPUs that it keeps them on.

use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Where Debian's packages keep their daemons, whatever the PATH.
pub(super) const SBIN: &str = "/usr/sbin";

/// CPUs that this process may use.
pub(super) fn cpus() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Keeps this thread on one of the CPUs that it may use, the first of which is 0.
pub(super) fn pin_to(index: usize) -> Result<()> {
    Usable::here()?.pin(index)
}

/// The CPUs that a thread may use.
#[derive(Debug)]
pub(super) struct Usable(CpuSet);

impl Usable {
    /// Those of this thread as it is now.
    pub(super) fn here() -> Result<Self> {
        let this_thread = Pid::from_raw(0);
        let set = sched_getaffinity(this_thread).context("which CPUs may be used")?;
        Ok(Self(set))
    }

    /// Keeps this thread, and what it starts from now on, on one of them.
    pub(super) fn pin(&self, index: usize) -> Result<()> {
        let cpu = (0..CpuSet::count())
            .filter(|cpu| self.0.is_set(*cpu).unwrap_or(false))
            .nth(index)
            .with_context(|| format!("no CPU {index} for this process"))?;
        let mut set = CpuSet::new();
        set.set(cpu).with_context(|| format!("CPU {cpu}"))?;
        let this_thread = Pid::from_raw(0);
        sched_setaffinity(this_thread, &set).with_context(|| format!("staying on CPU {cpu}"))
    }
}

/// A program that ends with its owner.
pub(super) struct Program(pub(super) Child);

impl Program {
    /// Starts a program that `cargo xtask bench` has installed.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().display().to_string();
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| {
            format!("starting {program}; `cargo xtask bench` installs it")
        })?))
    }

    /// nginx with a configuration, in a process namespace of its own: workers outlive a master that
    /// is killed, unless the namespace dies with it.
    pub(super) fn start_nginx(
        mut command: Command,
        prefix: &Path,
        configuration: &Path,
    ) -> Result<Self> {
        command.args(["--pid", "--fork", "--kill-child=KILL"]);
        command.arg(format!("{SBIN}/nginx"));
        command.arg("-p").arg(prefix).arg("-c").arg(configuration);
        Self::start(command.args(["-e", "stderr"]))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; the figures say so.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
