//! One agent a state directory, and the capabilities that it needs.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::AgentError;

/// Held while the agent lives; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Makes the state directory if need be, and takes its lock.
    pub(super) fn take(state_dir: &Path) -> Result<Self, AgentError> {
        let failed = |source| AgentError::StateDir {
            path: state_dir.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state_dir.join("lock"))
            .map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // For the message of whoever comes second.
                let write = file
                    .set_len(0)
                    .and_then(|()| file.seek(SeekFrom::Start(0)))
                    .and_then(|_| writeln!(file, "{}", std::process::id()));
                write.map_err(failed)?;
                Ok(Self { _file: file })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                Err(AgentError::Running {
                    pid: text.trim().parse().ok(),
                    path: state_dir.to_owned(),
                })
            }
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}

/// Bits of capability sets (include/uapi/linux/capability.h).
const NEEDED: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];
/// Stands for CAP_BPF and CAP_PERFMON too, as before kernel 5.8.
const CAP_SYS_ADMIN: u32 = 21;

/// Names of the needed capabilities that this process lacks.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    missing_of(held)
}

fn missing_of(held: u64) -> Vec<&'static str> {
    let has = |bit: u32| held & (1 << bit) != 0;
    let covered = |bit: u32| has(bit) || bit >= 38 && has(CAP_SYS_ADMIN);
    NEEDED
        .into_iter()
        .filter(|(bit, _)| !covered(*bit))
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        for (held, missing) in [
            (u64::MAX, vec![]),
            (
                0,
                vec!["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_BPF"],
            ),
            (1 << 21 | 1 << 12 | 1 << 13, vec![]),
            (1 << 12 | 1 << 13 | 1 << 38, vec!["CAP_BPF"]),
        ] {
            assert_eq!(missing_of(held), missing, "{held:x}");
        }
    }

    #[test]
    fn the_second_one_learns_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let Err(AgentError::Running { pid, .. }) = Lock::take(dir.path()) else {
            panic!("two locks")
        };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        Lock::take(dir.path()).unwrap();
    }
}
