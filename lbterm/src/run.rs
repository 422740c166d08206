//! `lbterm run`: puts the parts together, follows signals, and ends.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::cli::RunArgs;
use crate::confine::{self, ConfineError};
use crate::control::Control;
use crate::crew::{Crew, Ended};
use crate::notify;
use crate::serving::Shared;
use crate::successor::Successor;
use crate::tls;

/// Why the terminator did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It has privileges, or could not give some up.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// Something that every host has is missing.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The access log cannot be written.
    #[error("cannot open the access log {}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A worker's thread died, which is a mistake in this program.
    #[error("a worker ended unexpectedly; the log says where")]
    Lost,
}

/// What is needed to run.
struct Options {
    socket: PathBuf,
    workers: usize,
    drain_timeout: Duration,
    successor: Successor,
    access_log: Option<AccessLog>,
    /// One of so many requests is logged, unless all are asked for.
    log_one_of: u32,
}

/// Where requests are logged.
type AccessLog = Box<dyn Write + Send>;

fn open_log(path: &Path) -> io::Result<AccessLog> {
    Ok(if path == Path::new(STDOUT) {
        Box::new(io::stdout())
    } else {
        Box::new(File::options().append(true).create(true).open(path)?)
    })
}

/// How long the last lines of the access log may take.
const LOG_FLUSH: Duration = Duration::from_secs(1);

/// Standard output, as a file's name.
const STDOUT: &str = "-";

/// Where a successor will open the log.
fn log_directory(path: &Path) -> Option<&Path> {
    match path.parent() {
        None => None,
        Some(parent) if parent == Path::new("") => Some(Path::new(".")),
        parent => parent,
    }
    .filter(|_| path != Path::new(STDOUT))
}

/// Runs until everything is drained.
pub fn run(args: RunArgs) -> Result<(), RunError> {
    if !args.allow_root {
        confine::refuse_privileges()?;
    }
    // Reads files, so it comes before they are given up.
    let cpus = || thread::available_parallelism().map_or(1, NonZero::get);
    let workers = args.workers.unwrap_or_else(cpus);
    let successor = Successor::of_this(workers).map_err(cannot("find its own file"))?;
    confine::raise_file_limit();
    let access_log = args.access_log.as_deref();
    let open = |path: &Path| {
        open_log(path).map_err(|source| RunError::AccessLog {
            path: path.to_owned(),
            source,
        })
    };
    let opened = access_log.map(open).transpose()?;
    let log_directory = access_log.and_then(log_directory);
    confine::confine(successor.executable(), log_directory)?;
    let options = Options {
        socket: args.socket,
        workers,
        drain_timeout: args.drain_timeout,
        successor,
        access_log: opened,
        log_one_of: args.access_log_sample,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot("start the runtime"))?;
    runtime.block_on(serve(options))
}

async fn serve(mut options: Options) -> Result<(), RunError> {
    let shared = Arc::new(Shared::new(tls::provider()));
    if let Some(output) = options.access_log.take() {
        let started = shared.http.access.start(output, options.log_one_of);
        started.map_err(cannot("start the access log"))?;
    }
    let crew = Arc::new(Crew::new(options.workers, Arc::clone(&shared)));
    let control = Control {
        socket: options.socket.clone(),
        shared: Arc::clone(&shared),
        crew: Arc::clone(&crew),
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        workers = options.workers,
        socket = %options.socket.display(),
        "lbterm begins"
    );
    // The agent sees the end of the connection last: then nothing is left to wait for.
    let mut control = pin!(control.run());
    let ended = tokio::select! {
        ended = crew.ended() => Ok(ended),
        ended = follow_signals(&crew, &shared, &options) => ended,
        () = &mut control => Ok(Ended::Drained),
    };
    // The runtime has nothing else to do any more.
    shared.http.access.flush(LOG_FLUSH);
    match ended? {
        Ended::Drained => info!("every connection has ended"),
        Ended::Deadline { open } => warn!(open, "the time to finish is over"),
        Ended::Lost => return Err(RunError::Lost),
    }
    Ok(())
}

/// Ends when a second signal asks for it.
async fn follow_signals(
    crew: &Crew,
    shared: &Shared,
    options: &Options,
) -> Result<Ended, RunError> {
    let listen = |kind| signal(kind).map_err(cannot("listen to signals"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let mut user_1 = listen(SignalKind::user_defined1())?;
    let mut user_2 = listen(SignalKind::user_defined2())?;
    let log_one_of = |requests| {
        shared.http.access.set_one_of(requests);
        info!(one_of = requests, "the access log's sample was changed");
    };
    let mut is_ending = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {
                options.successor.start();
                continue;
            }
            _ = user_1.recv() => {
                log_one_of(1);
                continue;
            }
            _ = user_2.recv() => {
                log_one_of(options.log_one_of);
                continue;
            }
        }
        if is_ending {
            return Ok(crew.at_once());
        }
        is_ending = true;
        notify::stopping();
        crew.drain(options.drain_timeout);
    }
}

fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Host { what, source }
}
