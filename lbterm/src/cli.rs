//! The command line of `lbterm`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lbagent_api::terminator::DEFAULT_TERMINATOR_SOCKET;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `run`: every connection had ended, or the time for it was over
  1  failed while running
  2  the command line cannot be used
  4  it was started with privileges";

const SIGNALS: &str = "\
Signals:
  TERM, INT  accept no more, finish what there is within the drain timeout, end; once more: end now
  HUP        start a successor from the file that this program was started from; when it serves, the
             agent has this process finish its connections and end
  USR1       log every request from now on (with --access-log)
  USR2       log as --access-log-sample says again

Exit codes:
  0  every connection had ended, or the time for it was over
  1  failed while running
  2  the command line cannot be used
  4  it was started with privileges";

/// Terminator of lbagent: ends TLS, and balances connections and requests over instances
#[derive(Debug, Parser)]
#[command(name = "lbterm", version, after_help = EXIT_CODES, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the terminator: take listening sockets and configuration from the agent, and serve
    #[command(after_help = SIGNALS, after_long_help = SIGNALS)]
    Run(RunArgs),
    /// Write manual pages into a directory
    Man {
        /// Existing directory
        directory: PathBuf,
    },
}

/// How to run.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Socket of the agent. When the agent is away, what is in force goes on
    #[arg(long, value_name = "PATH", env = "LBTERM_SOCKET", default_value = DEFAULT_TERMINATOR_SOCKET)]
    pub socket: PathBuf,
    /// Threads that accept and serve. Without it: one for each CPU that this process may use
    #[arg(long, value_name = "N", env = "LBTERM_WORKERS", value_parser = workers)]
    pub workers: Option<usize>,
    /// Seconds that connections get to finish after SIGTERM
    #[arg(long, value_name = "SECONDS", env = "LBTERM_DRAIN_TIMEOUT", default_value = "30",
        value_parser = seconds)]
    pub drain_timeout: Duration,
    /// Run although this process is root, or has capabilities that it does not need
    #[arg(long, env = "LBTERM_ALLOW_ROOT")]
    pub allow_root: bool,
    /// Write a line of JSON for each request to this file, `-` for standard output. A successor opens
    /// it anew
    #[arg(long, value_name = "FILE", env = "LBTERM_ACCESS_LOG")]
    pub access_log: Option<PathBuf>,
    /// Log one of so many requests; 0 for none before SIGUSR1
    #[arg(
        long,
        value_name = "N",
        env = "LBTERM_ACCESS_LOG_SAMPLE",
        default_value_t = 1,
        requires = "access_log"
    )]
    pub access_log_sample: u32,
    /// Write logs as JSON, one object a line. LBTERM_LOG sets what is logged, as `info` or
    /// `lbterm=debug`
    #[arg(long, env = "LBTERM_LOG_JSON")]
    pub log_json: bool,
}

/// Most threads.
const MAX_WORKERS: usize = 126;

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers @ 1..=MAX_WORKERS) => Ok(workers),
        _ => Err(format!("a number from 1 to {MAX_WORKERS}")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // A day is more than any connection should need, and far from what clocks cannot add.
    seconds
        .filter(|seconds| *seconds <= Duration::from_secs(86_400))
        .ok_or_else(|| "a number of seconds from 0 to 86400".to_owned())
}
