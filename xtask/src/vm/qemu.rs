//! One boot: qemu as an ordinary process, watched until it ends or is stuck.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::directory;
use super::kernel::Kernel;

/// Longest silence of a machine that is alive. The test runner names a slow test after a minute.
const SILENCE: Duration = Duration::from_secs(300);
/// Longest run of one kernel.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// Lines of the kernel's log that are shown when it ended badly.
const TAIL: usize = 40;

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything ran and succeeded.
    Success,
    /// Something failed, and its own output says what.
    Failure,
    /// The last line never came: the kernel panicked or the machine switched off.
    Gone,
    /// Killed after a long silence.
    Silent,
    /// Killed because it took too long.
    Late,
}

impl End {
    /// What to say about the end, given whether tests have failed already.
    pub fn complaint(self, tests_failed: bool) -> Option<String> {
        let text = match self {
            Self::Success => return None,
            Self::Failure if tests_failed => return None,
            Self::Failure => "a test program died, or the machine could not be prepared".to_owned(),
            Self::Gone => "the machine ended before its tests did".to_owned(),
            Self::Silent => format!("the machine was silent for {} s", SILENCE.as_secs()),
            Self::Late => format!("the machine took longer than {} s", PATIENCE.as_secs()),
        };
        Some(text)
    }
}

/// Boots a kernel, shows the tests' output line by line, the kernel's name before it, and hands each line to `see`. The output
/// and the kernel's messages stay in `target/vm/SERIES.log` and `SERIES.kernel.log`.
pub fn boot(kernel: &Kernel, image: &Path, see: impl FnMut(&str)) -> Result<End> {
    let kernel_log = log(kernel, "kernel.log");
    // qemu only opens it after a while; an old one must not be shown then.
    fs::write(&kernel_log, "").with_context(|| kernel_log.display().to_string())?;
    let path = log(kernel, "log");
    let mut kept = File::create(&path).with_context(|| path.display().to_string())?;
    let mut child = command(kernel, image, &kernel_log)
        .spawn()
        .context("can't start qemu-system-x86_64; install the package qemu-system-x86")?;
    let lines = lines_of(&mut child);
    let end = watch(kernel.series, &lines, &mut kept, see);
    // It has ended by itself, or nothing good will come of it any more.
    child.kill().context("can't kill qemu")?;
    child.wait().context("can't wait for qemu")?;
    let end = end?;
    if end != End::Success && end != End::Failure {
        show_tail(&kernel_log)?;
    }
    Ok(end)
}

fn log(kernel: &Kernel, kind: &str) -> PathBuf {
    directory().join(format!("{}.{kind}", kernel.series))
}

fn command(kernel: &Kernel, image: &Path, kernel_log: &Path) -> Command {
    // A kernel that panics reboots, which ends qemu.
    const KERNEL_ARGUMENTS: &str =
        "console=ttyS0 panic=-1 oops=panic random.trust_cpu=on mitigations=off";
    let mut command = Command::new("qemu-system-x86_64");
    // One CPU: each test run has the kernel rewrite the code of its XDP dispatcher in place, by way
    // of a breakpoint, and with two emulated CPUs the other one may meet the breakpoint when the
    // kernel has done with it, which is an oops.
    command
        .args(["-accel", "tcg,thread=single", "-cpu", "max"])
        .args(["-smp", "1", "-m", "3072"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(image)
        .args(["-append", KERNEL_ARGUMENTS])
        .arg("-serial")
        .arg(format!("file:{}", kernel_log.display()))
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// The output of the machine, line by line, until it closes.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let output = child.stdout.take();
    thread::spawn(move || {
        for line in output
            .into_iter()
            .flat_map(|o| BufReader::new(o).split(b'\n'))
        {
            let Ok(line) = line else { return };
            // A terminal's lines end with a carriage return.
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn watch(
    series: &str,
    lines: &Receiver<String>,
    kept: &mut File,
    mut see: impl FnMut(&str),
) -> Result<End> {
    let start = Instant::now();
    let mut end = None;
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                let seconds = start.elapsed().as_secs_f32();
                writeln!(kept, "[{seconds:6.1}] {line}")
                    .context("can't keep the machine's output")?;
                match line.as_str() {
                    "init: success" => end = Some(End::Success),
                    "init: failure" => end = Some(End::Failure),
                    line => {
                        println!("{series} | {line}");
                        see(line);
                    }
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(end.unwrap_or(End::Gone)),
            Err(RecvTimeoutError::Timeout) => return Ok(end.unwrap_or(End::Silent)),
        }
        if start.elapsed() > PATIENCE {
            return Ok(end.unwrap_or(End::Late));
        }
    }
}

fn show_tail(path: &Path) -> Result<()> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    let text = String::from_utf8_lossy(&text);
    let mut last = VecDeque::new();
    for line in text.lines() {
        if last.len() == TAIL {
            last.pop_front();
        }
        last.push_back(line.trim_end());
    }
    println!("--- end of {} ---", path.display());
    last.iter().for_each(|line| println!("{line}"));
    println!("---");
    Ok(())
}
