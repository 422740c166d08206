//! `-w`: a command again and again, for as long as somebody looks.

use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Args;

use super::parse_duration;
use crate::client::Client;
use crate::error::CtlError;
use crate::news::{self, News};
use crate::output;

/// Clears the terminal, and puts the cursor into its corner.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";
/// How often the agent is asked when it does not tell.
const INTERVAL: Duration = Duration::from_secs(2);
/// Changes seldom come alone: so long others may join the first one before the agent is asked.
const TOGETHER: Duration = Duration::from_millis(100);
/// A stream that was silent for longer than three of the agent's heartbeats is dead.
const SILENCE: Duration = Duration::from_secs(50);
/// Time between two attempts to reach an agent that is gone.
pub const AGAIN: Duration = Duration::from_secs(1);

/// When a command runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// When the agent tells of a change.
    Told,
    /// Every so often.
    Every(Duration),
}

/// Whether a command goes on whose objects the agent tells about.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(skip)]
pub struct Arguments {
    /// Show it again whenever the agent tells of a change, until Ctrl-C; with =INTERVAL, such as
    /// =2s, ask so often instead
    #[arg(
        short = 'w',
        long = "watch",
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = parse_pace
    )]
    pub pace: Option<Pace>,
}

/// Whether a command goes on that shows what no event tells, such as counters.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(skip)]
pub struct Polling {
    /// Show it again whenever it changed, asking every 2s or so often, until Ctrl-C
    #[arg(
        short = 'w',
        long = "watch",
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = parse_pace
    )]
    pub pace: Option<Pace>,
}

fn parse_pace(text: &str) -> Result<Pace, String> {
    match text {
        "" => Ok(Pace::Told),
        text => parse_interval(text).map(Pace::Every),
    }
}

/// Reads a duration that is not nothing.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        interval if interval.is_zero() => Err("expected more than nothing".to_owned()),
        interval => Ok(interval),
    }
}

/// Runs `command` again and again, and shows what it prints when that changed. The first failure
/// ends it; a later one is told, and the agent asked again.
pub fn run(
    pace: Pace,
    client: &Client,
    mut command: impl FnMut() -> Result<(), CtlError>,
) -> Result<(), CtlError> {
    let mut view = View {
        command: &mut command,
        is_terminal: io::stdout().is_terminal(),
        shown: None,
        is_troubled: false,
    };
    let result = match pace {
        Pace::Told => follow(client, &mut view),
        Pace::Every(interval) => poll(interval, &mut view),
    };
    match result {
        Ok(never) => match never {},
        Err(End::Failed(error)) => Err(error),
        Err(End::NobodyReads) => Ok(()),
    }
}

/// Why it does not go on.
enum End {
    Failed(CtlError),
    NobodyReads,
}

fn poll(interval: Duration, view: &mut View<'_>) -> Result<Infallible, End> {
    loop {
        view.look()?;
        thread::sleep(interval);
    }
}

/// Looks whenever the agent tells that there may be something to see. That begins with the
/// stream's begin, so nothing is missed between two streams.
fn follow(client: &Client, view: &mut View<'_>) -> Result<Infallible, End> {
    loop {
        match listen(&news::listen(client), view)? {
            Lost::Silent => {}
            Lost::Gone(error @ CtlError::Unreachable { .. }) => {
                view.trouble(error)?;
                thread::sleep(AGAIN);
            }
            Lost::Gone(CtlError::Refused { message, .. }) => {
                let every = super::duration(INTERVAL);
                tell!(
                    "lbctl: the agent tells of no changes ({message}); asking it every {every} \
                     instead"
                );
                return poll(INTERVAL, view);
            }
            Lost::Gone(error) => return Err(End::Failed(error)),
        }
    }
}

/// How a stream came to its end.
enum Lost {
    Silent,
    Gone(CtlError),
}

fn listen(news: &Receiver<News>, view: &mut View<'_>) -> Result<Lost, End> {
    loop {
        match news.recv_timeout(SILENCE) {
            Ok(News::Change) => {
                thread::sleep(TOGETHER);
                let mut end = None;
                for more in news.try_iter() {
                    if let News::End(error) = more {
                        end = Some(error);
                    }
                }
                view.look()?;
                if let Some(error) = end {
                    return Ok(Lost::Gone(error));
                }
            }
            // Ages go on, but only a person reads these.
            Ok(News::Heartbeat) if view.is_terminal => view.look()?,
            Ok(News::Heartbeat) => {}
            Ok(News::End(error)) => return Ok(Lost::Gone(error)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Ok(Lost::Silent);
            }
        }
    }
}

/// What is seen of the agent.
struct View<'a> {
    command: &'a mut dyn FnMut() -> Result<(), CtlError>,
    is_terminal: bool,
    shown: Option<String>,
    /// Whether a failure was the last thing told.
    is_troubled: bool,
}

impl View<'_> {
    fn look(&mut self) -> Result<(), End> {
        let (text, result) = output::collect(&mut *self.command);
        if let Err(error) = result {
            return self.trouble(error);
        }
        if self.is_troubled {
            tell!("lbctl: the agent answers again");
            self.is_troubled = false;
        }
        if self.shown.as_ref() != Some(&text) {
            self.show(&text).map_err(|_| End::NobodyReads)?;
            self.shown = Some(text);
        }
        Ok(())
    }

    fn show(&self, text: &str) -> io::Result<()> {
        let before = match (self.is_terminal, &self.shown) {
            (true, _) => CLEAR,
            // An empty line tells one state from the next.
            (false, Some(_)) => "\n",
            (false, None) => "",
        };
        let mut stdout = io::stdout().lock();
        write!(stdout, "{before}{text}")?;
        stdout.flush()
    }

    /// Tells the first failure of a row. Where nothing was ever seen, it is the end.
    fn trouble(&mut self, error: CtlError) -> Result<(), End> {
        if self.shown.is_none() {
            return Err(End::Failed(error));
        }
        if !self.is_troubled {
            error.lines().iter().for_each(|line| tell!("{line}"));
            tell!("lbctl: trying again until it works, or until Ctrl-C");
        }
        self.is_troubled = true;
        Ok(())
    }
}
