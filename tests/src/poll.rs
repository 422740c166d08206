//! Waiting for conditions.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::slowness::patience;

/// How long a test waits for something that should happen at once. A busy machine takes seconds for
/// it, and only a test that fails waits so long.
pub const SOON: Duration = Duration::from_secs(30);

/// Asks until the answer is there; the error says what was waited for.
pub fn poll_for<T>(what: &str, timeout: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let timeout = patience(timeout);
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if start.elapsed() > timeout {
            bail!("waited {timeout:?} for {what}, in vain");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Asks until the answer is yes.
pub fn poll_until(what: &str, timeout: Duration, mut ask: impl FnMut() -> bool) -> Result<()> {
    poll_for(what, timeout, || ask().then_some(()))
}

/// Tries until it works; the error carries the last failure.
pub fn retry<T>(
    what: &str,
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut last = None;
    let found = poll_for(what, timeout, || {
        attempt().map_err(|error| last = Some(error)).ok()
    });
    match (found, last) {
        (Err(waited), Some(last)) => Err(last).context(waited.to_string()),
        (found, _) => found,
    }
}

/// Holds a sender back until `due` has passed since `start`. This shapes traffic; nothing that a
/// test expects may depend on it.
pub fn keep_pace(start: Instant, due: Duration) {
    std::thread::sleep(due.saturating_sub(start.elapsed()));
}
