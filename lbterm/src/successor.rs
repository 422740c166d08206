//! An upgrade without a gap: this process starts the next one, which gets the same listening sockets
//! from the agent. The agent has this one drain when the other one serves.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tracing::{error, info, warn};

/// Starts successors, one at a time.
#[derive(Debug)]
pub struct Successor {
    executable: PathBuf,
    workers: usize,
    is_running: Arc<AtomicBool>,
}

impl Successor {
    /// From the file that this process was started from, as it will be then. To be called early:
    /// a file that was replaced since has lost its name.
    pub fn of_this(workers: usize) -> io::Result<Self> {
        Ok(Self {
            workers,
            executable: env::current_exe()?,
            is_running: Arc::default(),
        })
    }

    /// The file.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Starts it with the arguments and the environment of this process.
    pub fn start(&self) {
        if self.is_running.swap(true, Ordering::AcqRel) {
            warn!("a successor is starting already");
            return;
        }
        let spawned = Command::new(&self.executable)
            .args(env::args_os().skip(1))
            // It cannot read any more how many CPUs its control group has.
            .env("LBTERM_WORKERS", self.workers.to_string())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                error!(%error, executable = %self.executable.display(), "cannot start a successor: this process goes on");
                self.is_running.store(false, Ordering::Release);
                return;
            }
        };
        info!(pid = child.id(), "started a successor");
        let is_running = Arc::clone(&self.is_running);
        // It normally outlives this process, and then nobody waits for it here.
        thread::spawn(move || {
            let ended = child.wait();
            error!(?ended, "the successor ended: this process goes on");
            is_running.store(false, Ordering::Release);
        });
    }
}
