//! What this process gives up before it reads a client's first byte: all files but those that a
//! successor is started from, new privileges, and being looked into.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

/// The newest rules that are asked for; an older kernel applies those that it knows.
const LANDLOCK: ABI = ABI::V6;

/// What programs are loaded from, where it exists: for the successor.
const LIBRARIES: [&str; 5] = [
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
];

/// Why this process was not confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// It needs none.
    #[error(
        "started with privileges ({0}), of which it needs none: run it as a user of its own, as the \
         systemd unit does, or with --allow-root"
    )]
    Privileged(String),
    /// The kernel refuses.
    #[error("cannot {what}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The rules about files cannot be set.
    #[error("cannot give up access to files")]
    Landlock(#[from] RulesetError),
}

/// Refuses privileges that a terminator does not need.
pub fn refuse_privileges() -> Result<(), ConfineError> {
    if geteuid().is_root() {
        return Err(ConfineError::Privileged("root".to_owned()));
    }
    let held = rustix::thread::capabilities(None).map_err(|errno| ConfineError::Kernel {
        what: "read its own capabilities",
        source: errno.into(),
    })?;
    if !held.effective.is_empty() {
        return Err(ConfineError::Privileged(format!("{:?}", held.effective)));
    }
    Ok(())
}

/// Gives up what is not needed any more. To be called before any thread is started: threads inherit
/// it, and it holds for successors too.
///
/// `log_directory` is where a successor will open its log.
pub fn confine(executable: &Path, log_directory: Option<&Path>) -> Result<(), ConfineError> {
    let kernel = |what| {
        move |errno: nix::Error| ConfineError::Kernel {
            what,
            source: errno.into(),
        }
    };
    prctl::set_no_new_privs().map_err(kernel("renounce new privileges"))?;
    // Keys of certificates are in memory: no core dumps, and no other process of this user looks.
    prctl::set_dumpable(false).map_err(kernel("forbid core dumps"))?;
    let status = restrict_files(executable, log_directory)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => {
            tracing::info!(
                "this kernel has no landlock: files are guarded by the user's rights alone"
            );
        }
        enforced => tracing::info!(?enforced, "access to files is given up"),
    }
    Ok(())
}

/// Nothing can be written but logs, and nothing be read but what programs are loaded from. Sockets
/// that are connected to are no files to landlock.
fn restrict_files(
    executable: &Path,
    log_directory: Option<&Path>,
) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .scope(Scope::Signal)?
        .create()?;
    for path in LIBRARIES.iter().map(Path::new).chain([executable]) {
        // What does not exist is not needed.
        if let Ok(opened) = PathFd::new(path) {
            let access = if path.is_dir() {
                AccessFs::from_read(LANDLOCK)
            } else {
                AccessFs::ReadFile | AccessFs::Execute
            };
            ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
        }
    }
    if let Some(opened) = log_directory.and_then(|path| PathFd::new(path).ok()) {
        let access = AccessFs::WriteFile | AccessFs::MakeReg;
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
    }
    ruleset.restrict_self()
}

/// Allows as many open files as this process may have: each connection is one or two.
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(files) => tracing::debug!(files, "limit of open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_left_but_what_a_successor_is_started_from() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "text").unwrap();
        let executable = std::env::current_exe().unwrap();
        let logs = tempfile::tempdir().unwrap();
        // What is given up is given up for this thread alone.
        let confined = thread::spawn(move || {
            let status = restrict_files(&executable, Some(logs.path())).unwrap();
            if status.ruleset == RulesetStatus::NotEnforced {
                return;
            }
            let denied = |done: io::Result<()>| {
                assert_eq!(done.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            denied(fs::read(&path).map(drop));
            denied(File::create(path.with_extension("new")).map(drop));
            denied(fs::remove_file(&path));
            denied(fs::read_dir("/").map(drop));
            File::open(&executable).unwrap();
            let log = logs.path().join("access.log");
            File::options()
                .append(true)
                .create(true)
                .open(&log)
                .unwrap();
            denied(fs::read(&log).map(drop));
        });
        confined.join().unwrap();
    }
}
