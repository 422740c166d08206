//! Which other programs' sockets were registered, so that a restarted agent knows them again: in
//! `terminators.json` of the state directory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "terminators.json";

/// A program that was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) pid: u32,
    /// When the process began, which tells it from a later one with its number.
    pub(super) began: u64,
    pub(super) port: u16,
}

/// The record's file.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
}

impl Record {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(FILE),
        }
    }

    /// Nothing where there is no record, or one that cannot be read: those who were named are then
    /// named again.
    pub(super) fn read(&self) -> Vec<Named> {
        let read =
            || -> io::Result<Vec<Named>> { Ok(serde_json::from_slice(&fs::read(&self.path)?)?) };
        match read() {
            Ok(named) => named,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot read who was registered");
                Vec::new()
            }
        }
    }

    pub(super) fn write(&self, named: &[Named]) -> io::Result<()> {
        let temporary = self.path.with_extension("json.new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(named)?)?;
        file.sync_all()?;
        fs::rename(temporary, &self.path)
    }
}
