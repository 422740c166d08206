//! The real `lbctl`, on the gateway.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::agent::{Ended, binary};
use crate::netns::HostNs;

/// `lbctl ARGS…`, not yet run.
pub fn command(host: &HostNs, arguments: &[&str]) -> Command {
    let mut command = host.command(binary("LBCTL_BIN", "lbctl"));
    command.args(arguments).env_remove("RUST_BACKTRACE");
    command
}

/// Runs `lbctl ARGS…` to its end.
pub fn run(host: &HostNs, arguments: &[&str]) -> Result<Ended> {
    Ended::of(&mut command(host, arguments))
}

/// Runs `lbctl ARGS…`, which must succeed, and returns what it printed.
pub fn succeed(host: &HostNs, arguments: &[&str]) -> Result<String> {
    let ended = run(host, arguments)?;
    let line = arguments.join(" ");
    ensure!(
        ended.code == 0,
        "lbctl {line}: exit code {}: {}",
        ended.code,
        ended.stderr
    );
    Ok(ended.stdout)
}
