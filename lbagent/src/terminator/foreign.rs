//! Another program's listening sockets: copied out of its process as long as they are handed to the
//! kernel, and never held.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::sync::watch;

use super::listener::{Listener, NotAListener};

/// A process, which a number alone does not name for long.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// When it began, in ticks since the host's start.
    pub(super) began: u64,
    /// What it is called.
    pub(super) name: String,
    pidfd: OwnedFd,
    ended: watch::Receiver<bool>,
}

/// Why a program's socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// There is no such process.
    #[error("There is no process {pid}")]
    NoProcess {
        /// The number.
        pid: u32,
    },
    /// The agent may not look into it.
    #[error("The agent may not copy descriptors of process {pid}: {source}")]
    NotPermitted {
        /// The number.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// It does not listen there.
    #[error(
        "Process {pid} has no listening TCP socket on port {port}{}",
        because.as_ref().map_or(String::new(), |because| format!(": what it has there, {because}"))
    )]
    NoListener {
        /// The process.
        pid: u32,
        /// The port.
        port: u16,
        /// Why a socket that it has there is none.
        because: Option<String>,
    },
    /// The kernel fails.
    #[error("Cannot look at process {pid}: {source}")]
    Failed {
        /// The number.
        pid: u32,
        /// Why.
        source: io::Error,
    },
}

impl Process {
    /// A process that runs.
    pub(super) fn open(pid: u32) -> Result<Arc<Self>, ForeignError> {
        let failed = |source| ForeignError::Failed { pid, source };
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or(ForeignError::NoProcess { pid })?;
        let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => {
                return Err(ForeignError::NoProcess { pid });
            }
            pidfd => pidfd.map_err(|error| failed(error.into()))?,
        };
        Ok(Arc::new(Self {
            pid,
            began: began(pid).map_err(failed)?,
            name: name(pid),
            ended: watch_end(pidfd.try_clone().map_err(failed)?).map_err(failed)?,
            pidfd,
        }))
    }

    /// Ends when the process does.
    pub(super) async fn ended(&self) {
        // Its sender is gone after the thread only, which ends with the process.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Copies of its listening sockets on a port, at least one.
    pub(super) fn listeners(&self, port: u16) -> Result<Vec<Listener>, ForeignError> {
        let pid = self.pid;
        let directory = format!("/proc/{pid}/fd");
        let entries = fs::read_dir(directory).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ForeignError::NoProcess { pid },
            _ => ForeignError::NotPermitted { pid, source },
        })?;
        let (mut found, mut because) = (Vec::<Listener>::new(), None);
        for entry in entries.flatten() {
            let is_socket = fs::read_link(entry.path())
                .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(number) = number.filter(|_| is_socket) else {
                continue;
            };
            let copy = match pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty()) {
                Ok(copy) => copy,
                // Closed meanwhile.
                Err(rustix::io::Errno::BADF) => continue,
                Err(error) => {
                    let source = error.into();
                    return Err(ForeignError::NotPermitted { pid, source });
                }
            };
            match Listener::examine(copy) {
                Ok(listener) if listener.address.port() == port => found.push(listener),
                Err(error @ NotAListener::OtherNamespace) => because = Some(error.to_string()),
                _ => {}
            }
        }
        if found.is_empty() {
            return Err(ForeignError::NoListener { pid, port, because });
        }
        Ok(found)
    }
}

/// Tells when a process has ended, by a thread of its own: there are few such processes, and the kernel
/// makes a descriptor of one readable when it ends.
fn watch_end(pidfd: OwnedFd) -> io::Result<watch::Receiver<bool>> {
    let (ended, told) = watch::channel(false);
    let wait = move || {
        let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = poll(&mut watched, None) {}
        ended.send_replace(true);
    };
    let thread = std::thread::Builder::new().name("process".into());
    thread.spawn(wait)?;
    Ok(told)
}

/// When a process began, in ticks since the host's start: field 22 of `/proc/PID/stat`.
pub(super) fn began(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields);
    let field = fields.and_then(|fields| fields.split_whitespace().nth(19));
    field
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}
