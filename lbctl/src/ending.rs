//! The end of commands that go on until somebody ends them.

use nix::sys::signal::{SigSet, Signal};

use crate::error::CtlError;

/// For commands that go on for ever: Ctrl-C is how they are meant to end, so they end with
/// success, and never within a line.
pub fn by_signal() -> Result<(), CtlError> {
    let failed = |error| CtlError::Local(format!("cannot wait for signals: {error}"));
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Before the thread starts, so that none of the process's threads takes the signals.
    signals.thread_block().map_err(failed)?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            let _whole_lines = std::io::stdout().lock();
            std::process::exit(0);
        }
    });
    Ok(())
}
