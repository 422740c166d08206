//! The real binary as a child process.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::agent::{Agent, SOON};

/// A running terminator, which does not outlive the test.
pub struct Lbterm {
    child: Option<Child>,
    pid: Pid,
    log: PathBuf,
}

impl Lbterm {
    /// Starts one with two workers.
    pub fn start(agent: &Agent) -> Self {
        Self::start_with(agent, &["--workers", "2"])
    }

    /// Starts one.
    pub fn start_with(agent: &Agent, arguments: &[&str]) -> Self {
        let file = tempfile::NamedTempFile::new_in(agent.directory()).unwrap();
        let (file, log) = file.keep().unwrap();
        let child = command()
            .arg("--socket")
            .arg(agent.socket())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        Self {
            child: Some(child),
            pid,
            log,
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it has ended already");
        let wait = spawn_blocking(move || child.wait().unwrap());
        let status = timeout(SOON, wait).await;
        status
            .unwrap_or_else(|_| panic!("it does not end:\n{}", self.log()))
            .unwrap()
    }

    /// A line of what the kernel says of it in `/proc`.
    pub fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let mut lines = status.lines().filter_map(|line| line.strip_prefix(field));
        lines.next().unwrap().trim().to_owned()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Lbterm {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.pid, self.log());
        }
    }
}

/// `lbterm run`, also where tests run as root.
pub fn command() -> Command {
    let mut command = bare_command();
    command.arg("run").env("LBTERM_LOG", "debug");
    if geteuid().is_root() {
        command.arg("--allow-root");
    }
    command
}

/// `lbterm`.
pub fn bare_command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lbterm"))
}
