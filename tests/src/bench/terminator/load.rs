//! Clients of requests: wrk for HTTP/1.1, h2load for HTTP/2 and for a fixed rate.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::pki::ECDSA_NAME;
use crate::bench::programs::Program;
use crate::netns::NetNs;

/// Connections of a client that asks over HTTP/1.1.
const CONNECTIONS: &str = "64";
/// Connections, and requests in flight on each, over HTTP/2.
const CONNECTIONS_H2: &str = "16";
const STREAMS: &str = "16";
/// Connections of a client that asks at a fixed rate.
const CONNECTIONS_AT_RATE: u32 = 50;

/// A client that asks as fast as it gets answers.
pub(super) struct Load {
    program: Program,
    is_wrk: bool,
}

impl Load {
    /// wrk.
    pub(super) fn http1(ns: &NetNs, scheme: &str, to: SocketAddr, path: &str) -> Result<Self> {
        let mut command = ns.command("wrk");
        // It is interrupted long before.
        command.args([
            "--threads",
            "1",
            "--duration",
            "10m",
            "--connections",
            CONNECTIONS,
        ]);
        command.arg(format!("{scheme}://{ECDSA_NAME}:{}{path}", to.port()));
        Self::start(command, true)
    }

    /// h2load.
    pub(super) fn http2(ns: &NetNs, to: SocketAddr, path: &str, time: Duration) -> Result<Self> {
        let mut command = h2load(ns, to, path, time);
        command.args(["-c", CONNECTIONS_H2, "-m", STREAMS]);
        Self::start(command, false)
    }

    fn start(mut command: Command, is_wrk: bool) -> Result<Self> {
        let program = Program::start(command.stdout(Stdio::piped()))?;
        Ok(Self { program, is_wrk })
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// It says that requests failed.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.is_wrk {
            kill(
                Pid::from_raw(self.program.0.id().try_into()?),
                Signal::SIGINT,
            )?;
            let said = output(&mut self.program.0)?;
            let is_good = said.contains("requests in")
                && !said.contains("Non-2xx")
                && !said.contains("Socket errors");
            ensure!(is_good, "wrk:\n{said}");
            return Ok(());
        }
        check_h2load(&output(&mut self.program.0)?)
    }
}

/// Microseconds that the answers of so many requests a second took, over HTTP/1.1 and TLS.
pub(super) fn times_at_rate(
    ns: &NetNs,
    to: SocketAddr,
    path: &str,
    per_second: f64,
    time: Duration,
    log: &Path,
) -> Result<Vec<f64>> {
    // It appends.
    let _ = std::fs::remove_file(log);
    let mut command = h2load(ns, to, path, time);
    let each = (per_second / f64::from(CONNECTIONS_AT_RATE)).max(1.0);
    command.args(["--h1", "--warm-up-time", "500ms"]);
    command.arg("-c").arg(CONNECTIONS_AT_RATE.to_string());
    command.arg(format!("--rps={each:.0}"));
    command.arg(format!("--log-file={}", log.display()));
    let mut program = Program::start(command.stdout(Stdio::piped()))?;
    check_h2load(&output(&mut program.0)?)?;
    let text = std::fs::read_to_string(log).context("h2load's log")?;
    let time = |line: &str| line.split_whitespace().nth(2)?.parse::<f64>().ok();
    let times: Vec<f64> = text.lines().filter_map(time).collect();
    let expected = per_second * program_seconds(&text);
    ensure!(
        times.len() as f64 > 0.8 * expected,
        "{} answers came in time, {expected:.0} were expected",
        times.len()
    );
    Ok(times)
}

/// From the first request in a log of h2load to the last.
fn program_seconds(log: &str) -> f64 {
    let start = |line: &str| line.split_whitespace().next()?.parse::<f64>().ok();
    let starts = || log.lines().filter_map(start);
    let (first, last) = (
        starts().fold(f64::MAX, f64::min),
        starts().fold(0.0, f64::max),
    );
    (last - first).max(0.0) / 1e6
}

fn h2load(ns: &NetNs, to: SocketAddr, path: &str, time: Duration) -> Command {
    let mut command = ns.command("h2load");
    command.args(["-t", "1"]);
    command.arg(format!("--connect-to={to}"));
    command.arg(format!("-D{}ms", time.as_millis()));
    command.arg(format!("https://{ECDSA_NAME}:{}{path}", to.port()));
    command
}

fn check_h2load(said: &str) -> Result<()> {
    let is_good =
        said.contains(" 0 failed, 0 errored, 0 timeout") && said.contains(" 0 3xx, 0 4xx, 0 5xx");
    ensure!(is_good, "h2load:\n{said}");
    Ok(())
}

fn output(child: &mut Child) -> Result<String> {
    let mut said = String::new();
    let mut pipe = child.stdout.take().context("a pipe was asked for")?;
    pipe.read_to_string(&mut said)?;
    child.wait()?;
    Ok(said)
}
