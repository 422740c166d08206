//! `-w`: a command again and again, for as long as somebody looks.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use clap::Args;

use super::parse_duration;
use crate::error::CtlError;
use crate::output;

/// Clears the terminal, and puts the cursor into its corner.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

/// Whether the command goes on.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(skip)]
pub struct Arguments {
    /// Show it again whenever it changed, looking every 2s or so often, until Ctrl-C
    #[arg(
        short = 'w',
        long = "watch",
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = parse_interval
    )]
    pub every: Option<Duration>,
}

/// Reads a duration that is not nothing.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        interval if interval.is_zero() => Err("expected more than nothing".to_owned()),
        interval => Ok(interval),
    }
}

/// Runs `command` every so often, and shows what it prints when that changed. The first failure
/// ends it; a later one is told, and the agent asked again.
pub fn run(
    every: Duration,
    mut command: impl FnMut() -> Result<(), CtlError>,
) -> Result<(), CtlError> {
    let terminal = io::stdout().is_terminal();
    let mut shown: Option<String> = None;
    loop {
        let (text, result) = output::collect(&mut command);
        match result {
            Err(error) if shown.is_none() => return Err(error),
            Err(error) => error.lines().iter().for_each(|line| eprintln!("{line}")),
            Ok(()) if shown.as_ref() == Some(&text) => {}
            Ok(()) => {
                if show(&text, terminal, shown.is_some()).is_err() {
                    // The reader is gone.
                    return Ok(());
                }
                shown = Some(text);
            }
        }
        thread::sleep(every);
    }
}

fn show(text: &str, terminal: bool, again: bool) -> io::Result<()> {
    let before = match (terminal, again) {
        (true, _) => CLEAR,
        // An empty line tells one state from the next.
        (false, true) => "\n",
        (false, false) => "",
    };
    let mut stdout = io::stdout().lock();
    write!(stdout, "{before}{text}")?;
    stdout.flush()
}
