//! The end of commands that go on until somebody ends them.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use crate::error::CtlError;

/// For commands that go on for ever: Ctrl-C, or a reader such as `head` who has seen enough, is how
/// they are meant to end, so they end with success, and never within a line.
pub fn by_others() -> Result<(), CtlError> {
    let failed = |error| CtlError::Local(format!("cannot wait for signals: {error}"));
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Before the threads start, so that none of the process's threads takes the signals.
    signals.thread_block().map_err(failed)?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            end();
        }
    });
    std::thread::spawn(|| {
        if wait_until_nobody_reads().is_ok() {
            end();
        }
    });
    Ok(())
}

fn end() -> ! {
    let _whole_lines = std::io::stdout().lock();
    std::process::exit(0)
}

/// Waits until the other end of stdout is closed; for ever where it has none.
fn wait_until_nobody_reads() -> Result<(), Errno> {
    let stdout = std::io::stdout();
    // Errors are told without being asked for.
    let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    loop {
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
