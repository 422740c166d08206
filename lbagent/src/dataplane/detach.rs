//! `lbagent detach`: takes everything off the host that an agent put there. It works without an
//! agent, on what a half-finished start or detach left, and any number of times.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::generations;
use super::journal::Journal;
use super::load::remove_if_there;
use super::netlink::Netlink;
use super::pins::{Pins, unescape};
use super::{LoadError, clsact, host, neighbours, syscalls, sysctl};

/// Where to look.
#[derive(Clone, Debug)]
pub struct DetachOptions {
    /// Holds the record of changed host settings. The desired state in it stays.
    pub state_dir: PathBuf,
    /// Holds the pins.
    pub bpffs_dir: PathBuf,
    /// Interfaces that may have a filter though the record is lost.
    pub backend_interfaces: Vec<String>,
}

/// Why something stayed.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The pins are in use.
    #[error("an lbagent is running on {}; stop it first", path.display())]
    Running {
        /// The pin directory.
        path: PathBuf,
    },
    /// The record of changed settings cannot be read.
    #[error(transparent)]
    Record(#[from] LoadError),
    /// One thing could not be removed; everything else was tried.
    #[error("cannot remove {object}")]
    Remove {
        /// What.
        object: String,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
}

/// Removes everything and returns what it was, one line each. An error does not keep the rest from
/// being removed; the first one is returned, and running it again is safe.
pub fn detach(options: &DetachOptions) -> Result<Vec<String>, DetachError> {
    let pins = Pins::new(&options.bpffs_dir);
    let mut removal = Removal::default();
    let versions = pins
        .versions()
        .map_err(|error| removing(&options.bpffs_dir, error))?;
    let lock = options.bpffs_dir.exists().then(|| pins.lock());
    let lock = lock.transpose().map_err(|error| match error {
        LoadError::PinsInUse { path } => DetachError::Running { path },
        error => error.into(),
    })?;
    let journal = Journal::open(&options.state_dir)?;
    // Links first: from here on packets go as if there had never been an agent.
    removal.links(&pins.links());
    removal.network(&journal, options);
    for (setting, restored) in sysctl::restore(&journal) {
        match restored {
            Ok(()) => removal
                .removed
                .push(format!("changed setting, restored to {setting}")),
            Err(error) => removal.failed(format!("the changed setting {setting}"), error),
        }
    }
    for directory in versions.iter().chain([&pins.staging()]) {
        removal.tree(directory);
    }
    removal.roles(&options.bpffs_dir);
    drop(lock);
    removal.directory(&options.bpffs_dir);
    // The record is needed again if anything on it is still there.
    if removal.failure.is_none() {
        match journal.remove() {
            Ok(true) => removal
                .removed
                .push("record of changed host settings".to_owned()),
            Ok(false) => {}
            Err(error) => removal.failed("the record of changed host settings", error),
        }
    }
    removal.failure.map_or(Ok(removal.removed), Err)
}

#[derive(Default)]
struct Removal {
    removed: Vec<String>,
    failure: Option<DetachError>,
}

impl Removal {
    /// Takes the programs off their interfaces.
    fn links(&mut self, directory: &Path) {
        for path in self.entries(directory) {
            let name = unescape(&path.file_name().unwrap_or_default().to_string_lossy());
            if let Err(error) = syscalls::detach_link(&path) {
                // An interface that is gone took the link with it; anything else ends with the pin.
                tracing::debug!(link = %name, %error, "cannot detach a link at once");
            }
            self.file(&path, &format!("link {name}"));
        }
        self.directory(directory);
    }

    /// Removes every pin of a directory and of those in it, and the directories.
    fn tree(&mut self, directory: &Path) {
        for path in self.entries(directory) {
            // Not of what a symbolic link leads to.
            let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
            if is_directory {
                self.tree(&path);
            } else {
                self.file(&path, &format!("pin {}", path.display()));
            }
        }
        self.directory(directory);
    }

    /// Removes the names of the active and the previous programs.
    fn roles(&mut self, directory: &Path) {
        for path in self.entries(directory) {
            if path.file_name().is_some_and(generations::is_role) {
                self.file(&path, &format!("name {}", path.display()));
            }
        }
    }

    fn entries(&mut self, directory: &Path) -> Vec<PathBuf> {
        let listed = fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        match listed {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.failed(directory.display(), error);
                Vec::new()
            }
        }
    }

    fn file(&mut self, path: &Path, what: &str) {
        match remove_if_there(path) {
            Ok(true) => self.removed.push(what.to_owned()),
            Ok(false) => {}
            Err(error) => self.failed(path.display(), error),
        }
    }

    /// Filters, addresses, routes and neighbours of this network namespace.
    fn network(&mut self, journal: &Journal, options: &DetachOptions) {
        let mut netlink = match Netlink::open() {
            Ok(netlink) => netlink,
            Err(error) => return self.failed("VIP addresses", error),
        };
        let mut filtered = journal.record().filters.clone();
        filtered.extend(options.backend_interfaces.iter().cloned());
        self.filters(&mut netlink, &filtered, &journal.record().clsact);
        match host::remove_ours(&mut netlink, |_| true) {
            Ok(removed) => self.removed.extend(removed),
            Err(error) => self.failed("VIP addresses", error),
        }
        match neighbours::remove_ours(&mut netlink) {
            Ok(removed) => self.removed.extend(removed),
            Err(error) => self.failed("neighbours", error),
        }
    }

    fn filters(
        &mut self,
        netlink: &mut Netlink,
        filtered: &BTreeSet<String>,
        with_clsact: &BTreeSet<String>,
    ) {
        for name in filtered {
            match clsact::remove_filter(netlink, name) {
                Ok(true) => self.removed.push(format!("filter of {name}")),
                Ok(false) => {}
                Err(error) => self.failed(format!("the filter of {name}"), error),
            }
        }
        for name in with_clsact {
            match clsact::remove_clsact(netlink, name) {
                Ok(true) => self.removed.push(format!("clsact of {name}")),
                Ok(false) => {}
                Err(error) => self.failed(format!("clsact of {name}"), error),
            }
        }
    }

    /// Removes a directory if it is empty; what others put there stays.
    fn directory(&mut self, path: &Path) {
        match fs::remove_dir(path) {
            Ok(()) => self.removed.push(format!("directory {}", path.display())),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::ResourceBusy
                ) => {}
            Err(error) => self.failed(path.display(), error),
        }
    }

    fn failed(&mut self, object: impl ToString, source: impl Into<anyhow::Error>) {
        let failure = removing(object.to_string(), source);
        tracing::error!(error = ?failure, "detach");
        self.failure.get_or_insert(failure);
    }
}

fn removing(object: impl AsRef<Path>, source: impl Into<anyhow::Error>) -> DetachError {
    DetachError::Remove {
        object: object.as_ref().display().to_string(),
        source: source.into(),
    }
}
