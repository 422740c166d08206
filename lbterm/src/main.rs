//! Arguments, logging, exit code.

use std::error::Error;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use lbterm::cli::{Cli, Command};
use lbterm::run::{self, RunError};
use tracing_subscriber::EnvFilter;

/// What an exit code of the help text stands for.
#[derive(Clone, Copy)]
enum Exit {
    Failed = 1,
    Privileges = 4,
}

fn main() -> ExitCode {
    let (exit, error): (Exit, Box<dyn Error>) = match Cli::parse().command {
        Command::Run(args) => {
            log_to_stderr(args.log_json);
            match run::run(args) {
                Ok(()) => return ExitCode::SUCCESS,
                Err(error @ RunError::Confine(_)) => (Exit::Privileges, error.into()),
                Err(error) => (Exit::Failed, error.into()),
            }
        }
        Command::Man { directory } => match clap_mangen::generate_to(Cli::command(), &directory) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => {
                let text = format!(
                    "cannot write manual pages to '{}': {error}",
                    directory.display()
                );
                (Exit::Failed, text.into())
            }
        },
    };
    eprintln!("lbterm: {}", lbterm::chain(&*error));
    ExitCode::from(exit as u8)
}

fn log_to_stderr(json: bool) {
    let filter = EnvFilter::try_from_env("LBTERM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that nobody takes any more is told of on stderr otherwise, which panics: it is stderr.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    if json {
        log.json().init()
    } else {
        log.with_ansi(false).init()
    }
}
